"""The command line. What its commands do is in `recipes._cli`; only those import torch."""

import contextlib
import functools
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tyro

from recipes._cli.bench import bench
from recipes._cli.caching import cache
from recipes._cli.demo import demo
from recipes._cli.editing import edit
from recipes._cli.errors import is_expected, is_first, one_line, options_of, refusal
from recipes._cli.generating import generate
from recipes._cli.looking import evaluate, info
from recipes._cli.serving import serve
from recipes._cli.suites import sample, scores

Command = Callable[..., None]


def train() -> None:
    """Train a recipe: `contar train moving-digits --out RUN`; `contar train --help` says more."""


def prepare() -> None:
    """Score the shots of clips, and keep those of which a condition holds; see its --help."""


def compare() -> None:
    """Train variants on one task at one budget: `contar compare --out OUT`; see its --help."""


COMMANDS: dict[str, Command] = {
    "demo": demo,
    "generate": generate,
    "edit": edit,
    "serve": serve,
    "info": info,
    "evaluate": evaluate,
    "train": train,
    "bench": bench,
    "prepare": prepare,
    "cache": cache,
    "compare": compare,
    "sample": sample,
    "scores": scores,
}


def main() -> None:
    """Run the command line.

    A bad argument or file ends it with one line that names the option, and exit status 1, or 2
    where the words cannot be read; Ctrl-C with 130. Of several processes, as torchrun begins them,
    the first that ends by an error says it, and the others nothing.
    """
    command: Command | None = None
    words: list[str] = []
    if _name(sys.argv[1:2]) != "bench" and "OMP_WAIT_POLICY" not in os.environ:
        # Before torch is loaded: by default threads wait for each other awake, for so long that two
        # processes on the same cores make each other a hundred times slower. What `bench` times is
        # what Python would take.
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    try:
        program, commands, words = _commands(sys.argv[1:])
        command = commands.get(_name(words))
        _parse(program, commands, words)()
    except KeyboardInterrupt as stop:
        if is_first():
            print(": ".join(["contar: stopped", *filter(None, [str(stop)])]), file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if not is_first():
            raise SystemExit(1) from None
        if not is_expected(error):
            raise
        raise SystemExit(f"contar: {one_line(error, options_of(command), words)}") from None


def _commands(words: list[str]) -> tuple[str, Mapping[str, Command], list[str]]:
    """Return the program, its commands, and the words for it.

    Commands whose options are a recipe's or a room's own are read when they are asked for.
    """
    match words:
        case ["train", *rest]:
            from recipes._cli.recipes import TRAIN

            return "contar train", TRAIN, rest
        case ["compare", *_]:
            from recipes._cli.recipes import compare

            return "contar", {"compare": compare}, words
        case ["prepare", *_]:
            from recipes._cli.preparing import prepare

            return "contar", {"prepare": prepare}, words
    return "contar", COMMANDS, words


def _name(words: Sequence[str]) -> str:
    """Return the name of the command that words begin with; tyro takes underscores, too."""
    return words[0].replace("_", "-") if words else ""


def _parse(
    program: str, commands: Mapping[str, Command], words: Sequence[str]
) -> Callable[[], None]:
    """Return what the words say is to be done.

    Raises:
        SystemExit: they ask for help, which is printed, or cannot be read, which is said.
    """
    said, name = io.StringIO(), _name(words)
    try:
        with contextlib.redirect_stderr(said):
            if name not in commands:  # --help, a slip or nothing: tyro tells and ends it
                waiting = {each: _later(command) for each, command in commands.items()}
                return tyro.extras.subcommand_cli_from_dict(waiting, prog=program, args=[*words])
            config = (tyro.conf.DisallowNone,) if program == "contar" else ()  # a recipe's may be
            program = f"{program} {name}"
            return tyro.cli(_later(commands[name]), prog=program, args=words[1:], config=config)
    except SystemExit as stop:
        if stop.code and is_first():
            print(f"contar: {refusal(said.getvalue())}; see {program} --help", file=sys.stderr)
        raise


def _later(command: Command) -> Callable[..., Callable[[], None]]:
    """Return a command that is not done yet, so that its own errors are not those of its words."""

    @functools.wraps(command)
    def wait(*given: Any, **options: Any) -> Callable[[], None]:
        return functools.partial(command, *given, **options)

    return wait


if __name__ == "__main__":
    main()
