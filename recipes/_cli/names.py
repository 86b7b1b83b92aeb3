"""Prompts and the files that are made of them, named by a pattern."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

MOST = 100_000  # files of a call
_FIELDS = ("number", "prompt", "sample", "seed")


@dataclass(frozen=True)
class Wanted:
    """One file that is to be made."""

    prompt: str
    sample: int  # of its prompt, from 1
    seed: int
    file: Path


def read_prompts(prompts: Sequence[str], file: Path | None) -> list[str]:
    """Return prompts, and those of a file (- is the standard input): its lines that are not empty.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no prompt at all, or one that is no text.
    """
    from contar._errors import bad, check_text

    lines: list[str] = []
    if file is not None:
        if str(file) != "-" and not file.is_file():
            raise FileNotFoundError(f"prompts: no file {str(file)!r}")
        try:
            text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8-sig")
        except UnicodeDecodeError as error:
            raise bad("prompts", str(file), f"a text file in UTF-8 ({error})") from None
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if not lines:
            raise bad("prompts", f"{file}, in which there is none", "a file with a prompt a line")
    texts = [*prompts, *lines]
    if not texts:
        raise bad("prompt", "none", 'one or more, or --prompts FILE; "" leaves it to the model')
    return [check_text("prompt", text) for text in texts]


def name_files(out: Path, prompts: Sequence[str], *, count: int, seed: int) -> list[Wanted]:
    """Return the files that are wanted: of each prompt `count` samples, in turn.

    A pattern in `out` names them: {number} counts files from 1, {sample} those of a prompt, {seed}
    is `seed` for a prompt's first sample and one more for each next, {prompt} its words, joined by
    hyphens; {number:03} is written with three digits. Without one, several files get their number
    behind the name.

    Raises:
        ValueError: a pattern that is none, two files of one name, or more than `MOST`.
    """
    from contar._errors import bad, check_count

    total = len(prompts) * check_count("count", count)
    if total > MOST:
        raise bad("count", f"{count} of {len(prompts)} prompts", f"{MOST} files at most")
    pattern, names = str(out), ", ".join(f"{{{name}}}" for name in _FIELDS)
    try:
        fields = [field for _, field, _, _ in Formatter().parse(pattern) if field is not None]
        if set(fields) - {*_FIELDS}:
            raise LookupError
        if not fields and total > 1:
            pattern = str(out.with_name(f"{out.stem}-{{number:0{len(str(total))}}}{out.suffix}"))
        files = [
            Wanted(prompt, sample + 1, seed + sample, Path(pattern.format(
                number=count * place + sample + 1, sample=sample + 1, seed=seed + sample,
                prompt=re.sub(r"\W+", "-", prompt.lower()).strip("-")[:60] or "no-words",
            )))
            for place, prompt in enumerate(prompts)
            for sample in range(count)
        ]  # fmt: skip
    except (ValueError, LookupError):
        raise bad("out", pattern, f"a name, or a pattern with {names}") from None
    twice = {str(each.file) for each in files}
    if len(twice) < total:
        allowed = f"a pattern that names each of {total} files, with {names}"
        raise bad("out", f"{pattern}, {len(twice)} names", allowed)
    return files
