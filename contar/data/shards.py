"""Clips in webdataset's shards: tar files in which the members of a clip share a key.

The format: https://github.com/webdataset/webdataset. A key is a name up to its first dot, and the
members of a key lie one after the other.
"""

import io
import tarfile
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contar._errors import bad
from contar._files import json_object
from contar.data.captioned import LONGEST, PICTURES, VIDEOS

_END = bytes(1024)  # two blocks of zeros end an archive


class Entry(NamedTuple):
    """What a shard holds of one key: the content of each member, by what follows the first dot."""

    key: str
    members: dict[str, bytes]


class ShardedClip(NamedTuple):
    """A video or a picture of a shard.

    Attributes:
        suffix: of a file with this content, as ".mp4".
        content: the file's bytes.
        caption: what it shows.
        scores: numbers of its JSON, by name; none if there is no JSON.
    """

    suffix: str
    content: bytes
    caption: str
    scores: dict[str, float | None]


def shard_files(folder: Path | str) -> list[Path]:
    """Return the .tar files of a folder by name.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has none.
    """
    place = Path(folder)
    if not place.is_dir():
        raise FileNotFoundError(f"folder: no folder {str(place)!r}")
    files = sorted(file for file in place.glob("*.tar") if not file.name.startswith("."))
    if not files:
        raise bad("folder", str(place), "one with .tar files")
    return files


def read_entries(file: Path) -> Iterator[Entry]:
    """Yield the entries of a shard one by one; folders and links are passed over.

    Raises:
        ValueError: a file that is not there, cannot be read, is no tar file or is cut off, or a key
            that comes back later.
    """
    seen: set[str] = set()
    for key, members in groupby(_members(file), itemgetter(0)):
        if key in seen:
            raise bad("shards", f"{file} with {key!r} in two places", "a key's members at one")
        seen.add(key)
        yield Entry(key, {rest: content for _, rest, content in members})


def _members(file: Path) -> Iterator[tuple[str, str, bytes]]:
    """Yield key, rest of the name and content of the regular members, one at a time."""
    try:
        _check_end(file)
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isreg() else None
                if stream is not None:
                    content = stream.read()
                    if len(content) != member.size:
                        raise tarfile.ReadError(f"{member.name} is cut off")
                    folder, sign, base = member.name.rpartition("/")
                    stem, _, rest = base.partition(".")
                    yield f"{folder}{sign}{stem}", rest, content
    except (tarfile.TarError, EOFError, OverflowError, OSError) as error:
        got = f"{file} ({type(error).__name__}: {error})"
        raise bad("shards", got, "whole tar files that can be read") from error


def _check_end(file: Path) -> None:
    """Raise a ReadError if a file has no end of a tar: one that is cut off between two members."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - len(_END)))
        if stream.read() != _END:
            raise tarfile.ReadError("no end of an archive: it is cut off, or none")


def clip_of(entry: Entry) -> ShardedClip:
    """Return the clip of an entry of a shard, also of one that `contar prepare` wrote.

    It is a member with a suffix of `VIDEOS` or `PICTURES`, or an array `file.npy` of a file's
    bytes, whose suffix the JSON says. The caption is the member `txt`, or "caption" of the JSON.

    Raises:
        ValueError: no such member, or several; no caption; or JSON that is none.
    """
    try:
        facts = json_object(entry.members.get("json", b"{}"), finite=True)
    except ValueError as error:
        raise bad("clip", f"no JSON ({error})", "a JSON object") from error
    suffixes = {name: "." + name.rpartition(".")[2].lower() for name in entry.members}
    files = [name for name, suffix in suffixes.items() if suffix in VIDEOS + PICTURES]
    if len(files) > 1:
        raise bad("clip", sorted(files), "one video or picture")
    if files:
        suffix, content = suffixes[files[0]], entry.members[files[0]]
    elif "file.npy" in entry.members and facts.get("suffix") in VIDEOS + PICTURES:
        suffix, content = facts["suffix"], _array(entry.members["file.npy"])
    else:
        raise bad("clip", sorted(entry.members), "a video or a picture")
    scores: dict[str, float | None] = {
        n: v for n, v in facts.items() if v is None or isinstance(v, bool | int | float)
    }
    return ShardedClip(suffix, content, _caption(entry.members.get("txt"), facts), scores)


def _array(content: bytes) -> bytes:
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise bad("clip", f"file.npy that is no array ({error})", "an array of bytes") from error
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        raise bad("clip", "file.npy of other values than bytes", "an array of uint8")
    return array.tobytes()


def _caption(text: bytes | None, facts: dict[str, Any]) -> str:
    try:
        told = facts.get("caption") if text is None else text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise bad("clip", "a text that is no UTF-8", "a text in UTF-8") from error
    if not isinstance(told, str) or not told.strip():
        raise bad("clip", "no caption", "what it shows, in words")
    if len(told.encode()) > LONGEST:
        raise bad("clip", f"a caption of more than {LONGEST} bytes", "what it shows, in words")
    return " ".join(told.split())
