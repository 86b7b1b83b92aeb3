"""Models' folders: written beside their place, then moved in, with one set of weights in each."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from contar._files import flush, read_json

_PRECISION = r"(\.(?:fp16|bf16|fp32))?"
# Files of a set of weights, as diffusers and transformers name them: whole, shards, their index.
_SET = re.compile(
    rf"(diffusion_pytorch_model|pytorch_model|model){_PRECISION}(?:-[0-9]{{5}}-of-[0-9]{{5}})?"
    rf"{_PRECISION}\.(?:safetensors|bin)(?:\.index{_PRECISION}\.json)?"
)


@contextmanager
def written_beside(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write in, whose files then replace those of the same names.

    Where a set of weights comes in, the one that was there goes, in whatever files it lay. All else
    in the folder stays. After an error all stays as it was.

    Raises:
        OSError: what is inside could not be written.
    """
    from safetensors import SafetensorError

    made = [place for place in (folder, *folder.parents) if not place.exists()]
    beside = folder / ".saving"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(beside, ignore_errors=True)  # of a save that was killed
        beside.mkdir()
        yield beside
        for file in beside.rglob("*"):
            if file.is_file():
                flush(file)
        _move(beside, folder)
    except SafetensorError as error:
        raise OSError(f"{folder}: {error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        for place in made:
            with suppress(OSError):  # it is not empty
                place.rmdir()


def _move(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    # Folders before files, so that the description of all comes last; an index after its shards.
    files = sorted(source.iterdir(), key=lambda file: (file.is_file(), ".index" in file.name))
    new = {file.name for file in files}
    old = _old_weights(target, new)
    indexes = [name for name in old if ".index" in name]
    if any(name in new for name in old if "-of-" in name):
        for name in indexes:  # or shards of both sets, for a moment, would be taken for one
            (target / name).unlink(missing_ok=True)
    for file in files:
        if file.is_dir():
            _move(file, target / file.name)
        else:
            os.replace(file, target / file.name)
    for name in (*indexes, *old):
        if name not in new:
            (target / name).unlink(missing_ok=True)


def _old_weights(folder: Path, new: set[str]) -> list[str]:
    """Return the names of the weights' files in a folder, if others of their library come in."""
    kinds = {kind for name in new if (kind := _kind(name))}
    if not kinds:
        return []
    libraries = {library for library, _ in kinds}
    copies = {precision for _, precision in kinds}  # None is the set itself, whose copies go too
    found = [
        file.name
        for file in folder.iterdir()
        if (kind := _kind(file.name)) and not file.is_dir()
        if kind[0] in libraries and (None in copies or kind[1] in copies)
    ]
    for index in [name for name in found if ".index" in name]:
        with suppress(ValueError, AttributeError):  # an index that is damaged
            listed = set(map(str, read_json(folder / index)["weight_map"].values()))
            found += [
                name
                for name in listed - set(found)
                if name == Path(name).name and name.endswith((".safetensors", ".bin"))
            ]
    return found


def _kind(name: str) -> tuple[bool, str | None] | None:
    """Return whether a file of weights is diffusers', and which precision it is a copy in."""
    match = _SET.fullmatch(name)
    if match is None:
        return None
    stem, *precisions = match.groups()
    return stem == "diffusion_pytorch_model", next(filter(None, precisions), None)
