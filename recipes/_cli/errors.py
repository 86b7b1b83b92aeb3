"""What went wrong, in one line that begins with the option's name."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import timedelta
from pathlib import Path
from subprocess import SubprocessError
from typing import Any, get_args, get_type_hints

import tyro

# Arguments of what commands call, by the options that set them.
_OPTIONS = {
    "folder_or_hub_id": "model",
    "num_heads": "heads",
    "num_frames": "frames",
    "num_inference_steps": "steps",
    "sets": "steps",
    "num_diffusion_steps": "diffusion_steps",
    "plan.diffusion_steps": "diffusion_steps",
    "guidance_scale": "guidance",
    "negative_prompt": "negative",
    "prompt frame": "prompt_at",
    "prompt frames": "prompt_at",
    "token_dim": "values",
    "cond_dim": "cond_width",
}
# How tyro words what it cannot read, and how we do.
_WORDINGS = (
    (r"Error parsing (\S+): no type matching (.+?) could be .* from \[(.*?)\].*",
     r"\1: got \3, allowed: \2"),
    (r"Error parsing (\S+): Could not parse arguments \[(.*?)\] into (?:\w+ type )?(.+)",
     r"\1: got \2, allowed: \3"),
    (r"Error parsing (\S+): invalid literal for int\(\).*: (.+)", r"\1: got \2, allowed: INT"),
    (r"Error parsing (\S+): could not convert string to float: (.+)",
     r"\1: got \2, allowed: FLOAT"),
    (r"Error parsing (?:recipe|comparison)\.(\S+): (\w+): (.*)", r"--\1.\2: \3"),
    (r"Error parsing (\S+): (.*)", r"\1: \2"),
    (r"invalid choice (.+) for argument '(\S+)'\. Expected one of \((.*?),?\)\.?",
     r"\2: got \1, allowed: one of \3"),
    (r"Missing value for argument '(\S+)'\. Expected 1 values\.?", r"\1: got none, allowed: one"),
    (r"Missing value for argument '(\S+)'\. Expected (.*?)\.?", r"\1: got too few, allowed: \2"),
    (r"Missing from .*?: (--\S+) (\S+).*", r"\1: got none, allowed: \2"),
    (r"Missing from .*?: (\S+).*", r"\1: got none"),
    (r"Unrecognized (?:or misplaced )?options: ([^\s,]+).*", r"\1: no such option or command"),
)  # fmt: skip


def options_of(command: Callable[..., object] | None) -> dict[str, str]:
    """Return a command's options as a person writes them, by their names; none of no command.

    What is given by its place has no dashes.
    """
    if command is None:
        return {}
    options = {}
    for name, hint in get_type_hints(command, include_extras=True).items():
        kind, *marks = get_args(hint) or (hint,)
        for each in [field.name for field in fields(kind)] if is_dataclass(kind) else [name]:
            dashed = f"--{each.removeprefix('as_').replace('_', '-')}"
            options[each] = each if tyro.conf.Positional in marks else dashed
    return options


def is_expected(error: Exception) -> bool:
    """Return whether an error is what a person's words or machine can bring about."""
    full = "out of memory" in str(error) or "can't allocate memory" in str(error)  # torch's
    usual = (ValueError, OSError, ImportError, MemoryError, SubprocessError)
    return isinstance(error, usual) or (isinstance(error, RuntimeError) and full)


def is_first() -> bool:
    """Return whether this process is to say what went wrong: of several, the first that asks.

    They ask the store through which they have met, or are to meet: torchrun's, or that of the
    process of number 0, which is the first where there is none yet.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return True
    from torch import distributed

    torch_distributed: Any = distributed  # whose types do not tell of its store
    try:
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = torch_distributed.TCPStore(*place, is_master=False, timeout=timedelta(seconds=10))
        key = f"contar-says-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        return store.add(key, 1) == 1
    except (KeyError, ValueError, RuntimeError):
        return os.environ.get("RANK", "0") == "0"


def one_line(error: BaseException, options: Mapping[str, str], words: Sequence[str] = ()) -> str:
    """Return an error's message on one line; an argument is named by the option that sets it.

    Args:
        error: that ends a command.
        options: of `options_of`.
        words: of the command line: where the system refuses a path of theirs, it is the argument.
    """
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and isinstance(error.filename, str):
        option = _option_of(error.filename, words, options)
        if option:
            return f"{option}: got {error.filename!r}, allowed: another path ({error.strerror})"
    name, colon, rest = message.partition(": ")
    option = name if name in options else _OPTIONS.get(name, "")
    if not colon or option not in options:
        return message
    return f"{options[option]}: {rest}"


def _option_of(path: str, words: Sequence[str], options: Mapping[str, str]) -> str | None:
    """Return the option that says a path or a folder that it is in; None if none does."""
    said = ""
    for word in words:
        value = word
        if word.startswith("--"):
            said, _, value = word.partition("=")
        if value and Path(path).is_relative_to(value):
            return said if said in options.values() else None
    return None


def refusal(box: str) -> str:
    """Return on one line what tyro says of words that it cannot read, in a box of several."""
    plain = re.sub(r"\x1b\[[\d;]*m", "", box)  # colours of a terminal
    plain = re.sub(r"\('(--[\w.-]+)',\)", r"\1", plain)  # as the first versions write an option
    rows = [row.strip("│ ") for row in plain.splitlines()[1:]]  # without the title
    text = " ".join(" ".join(rows).split()).lstrip("- ")
    said = re.split(r" ?╰?(?:──|---)", text)[0].split(" Got errors:")[0]
    near = re.search(r"Perhaps you meant: (--[\w.-]+)", text)
    found = ((re.fullmatch(pattern, said), wording) for pattern, wording in _WORDINGS)
    said = next((match.expand(wording) for match, wording in found if match), said)
    said = re.sub(r"'None', |, 'None'", "", said)  # of a choice that may be left out
    return said.rstrip(".") + (f"; there is {near[1]}" if near else "")
