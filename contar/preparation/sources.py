"""Which files are to be prepared: those of a folder, or of a list."""

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from contar._errors import bad, check_text
from contar.data import PICTURES, VIDEOS


class SourceFile(NamedTuple):
    """A video or a picture.

    Attributes:
        name: its path in the folder, or as the list says it.
        caption: of a list; None where only a text beside the file may tell.
    """

    name: str
    caption: str | None = None


def find_files(source: str | os.PathLike[str]) -> tuple[Path, list[SourceFile]]:
    """Return a folder and the videos and pictures in it, by name.

    Args:
        source: a folder, whose folders are looked into as well, but none that begins with a dot; or
            a list, whose paths start from the list's own folder: a .txt of a path a line, or a
            .jsonl of objects with "path" and, if there is one, "caption".

    Raises:
        FileNotFoundError: there is no such folder or list.
        ValueError: a list of another kind, a line that does not say a path (it is named), a suffix
            that is none of a video or picture, a file twice, or no file at all.
    """
    place = Path(source)
    if place.is_dir():
        root, files = place, _of_folder(place)
    elif place.is_file():
        root, files = place.parent, _of_list(place)
    else:
        raise FileNotFoundError(f"source: no folder and no list {str(place)!r}")
    if not files:
        raise bad("source", f"{place} without a file", "one with " + ", ".join(VIDEOS + PICTURES))
    files.sort(key=lambda file: file.name)
    for before, after in pairwise(files):
        if before.name == after.name:
            raise bad("source", f"{after.name} twice in {place}", "each file once")
    return root.absolute(), files


def is_video(name: str) -> bool:
    """Return whether a file is a video, by its suffix."""
    return os.path.splitext(name)[1].lower() in VIDEOS


def _known(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in VIDEOS + PICTURES


def _of_folder(place: Path) -> list[SourceFile]:
    files = []
    for folder, inner, names in os.walk(place):
        inner[:] = [name for name in inner if not name.startswith(".")]
        here = Path(folder).relative_to(place)
        files += [
            SourceFile(check_text("source", (here / name).as_posix()))
            for name in names
            if not name.startswith(".") and _known(name)
        ]
    return files


def _of_list(place: Path) -> list[SourceFile]:
    if place.suffix.lower() not in (".txt", ".jsonl"):
        raise bad("source", str(place), "a folder, or a list that ends in .txt or .jsonl")
    try:
        lines = place.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise bad("source", f"{place} ({error})", "a list in UTF-8") from error
    read = _object if place.suffix.lower() == ".jsonl" else _path
    files = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            file = read(line.strip(), f"{place}, line {number}")
            if not _known(file.name):
                allowed = "files of " + ", ".join(VIDEOS + PICTURES)
                raise bad("source", f"{file.name!r} in {place}, line {number}", allowed)
            files.append(file)
    return files


def _path(line: str, where: str) -> SourceFile:
    return SourceFile(line)


def _object(line: str, where: str) -> SourceFile:
    allowed = 'an object with "path" and at most "caption" beside it, both texts'
    try:
        content: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise bad("source", f"{where}: {error}", allowed) from error
    path = content.get("path") if isinstance(content, dict) else None
    caption = content.get("caption") if isinstance(content, dict) else None
    if not isinstance(path, str) or not path or not isinstance(caption, str | None):
        raise bad("source", f"{where}: {line[:200]}", allowed)
    if set(content) - {"path", "caption"}:
        raise bad("source", f"{where}: {', '.join(content)}", allowed)
    words = None if caption is None else " ".join(check_text("caption", caption).split())
    return SourceFile(check_text("source", path), words or None)
