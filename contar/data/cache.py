"""A cache of samples on disk, read at any place; nothing in it is trusted."""

import hashlib
import io
import math
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from contar._errors import bad
from contar._files import json_object, read_json
from contar.data.writing import INDEX, NUMBERS, Sample, as_json, facts_of

_MEMBER = re.compile(r"([^./]+)\.(json|[^/]+\.npy)")


class Cache(Dataset[Sample]):
    """The samples of a cache, by number.

    Args:
        folder: of `write_cache`.
        made_with: what must have made it, by name; what is not named is not asked.
        skip_corrupted: leave out shards that are damaged, instead of refusing the cache.
        turn: (i, n) reads the contents of the shards i, i + n, ... alone to find damage, as n
            processes that open a cache together have to, each its own; (0, 1) reads all.

    Attributes:
        made_with: what made it.
        fingerprint: a short name that other samples would not have.
        skipped: shards that were left out.

    Raises:
        FileNotFoundError: no cache there.
        ValueError: an index that `write_cache` does not write; one made with something else (what
            differs is named); a shard that is missing, damaged or not as `write_cache` makes it (it
            and its member are named); or nothing left. A sample whose content is damaged is named
            when it is asked for. Turns beside `skip_corrupted`, or that are none.
    """

    def __init__(
        self,
        folder: Path,
        *,
        made_with: Mapping[str, Any] = MappingProxyType({}),
        skip_corrupted: bool = False,
        turn: tuple[int, int] = (0, 1),
    ) -> None:
        if turn != (0, 1) and (skip_corrupted or not 0 <= turn[0] < turn[1]):
            raise bad("turn", turn, "(i, n) with i below n; (0, 1) beside skip_corrupted")
        self.made_with, shards = _read_index(Path(folder))
        differing = [
            f"{name}: {self.made_with.get(name)!r} there, {wanted!r} here"
            for name, wanted in sorted(as_json("made_with", made_with).items())
            if self.made_with.get(name) != wanted
        ]
        if differing:
            got = f"{folder}, made with another " + "; ".join(differing)
            raise bad("cache", got, "one made with these")
        self.skipped: list[str] = []
        digest = hashlib.sha256()
        self._places: list[_Place] = []
        for number, shard in enumerate(shards):
            file = Path(folder) / shard["file"]
            mine = number % turn[1] == turn[0]
            try:
                if not file.is_file() or (mine and facts_of(file, shard["samples"]) != shard):
                    got = f"a shard that is missing or damaged: {file}"
                    raise bad("cache", got, "whole shards, or skip_corrupted")
                places = _places(file, shard["samples"])
                first = (self._places or places)[0]
                if places[0].members.keys() != first.members.keys():
                    got = f"{file} of {sorted(places[0].members)}"
                    raise bad("cache", got, f"{sorted(first.members)}, as in {first.file.name}")
                self._places += places
            except ValueError:
                if not skip_corrupted:
                    raise
                self.skipped.append(str(file))
                continue
            digest.update(f"{shard['crc32']} ".encode())
        if not self._places:
            raise bad("cache", f"{folder} without a whole shard", "at least one")
        self.fingerprint = digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        place = self._places[index]
        arrays, facts = {}, {}
        with place.file.open("rb") as stream:
            for name, (offset, size) in place.members.items():
                stream.seek(offset)
                content = stream.read(size)
                try:
                    if len(content) != size:
                        raise ValueError("it is cut off")
                    if name == "json":
                        facts = json_object(content)
                    else:
                        arrays[name.removesuffix(".npy")] = _array(content)
                except ValueError as error:
                    got = f"{place.file}, member {place.key}.{name}: {error}"
                    raise bad("cache", got, "what write_cache writes") from error
        return Sample(arrays, facts)

    def where(self, index: int) -> str:
        """Return the file of a sample, and what its members are called there."""
        place = self._places[index]
        return f"{place.file}, member {place.key}"


class _Place(NamedTuple):
    """Where a sample lies: members by what follows the key, each with its offset and size."""

    file: Path
    key: str
    members: dict[str, tuple[int, int]]


def _read_index(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what made a cache, and its shards' facts, as `write_cache` wrote them."""
    if not (folder / INDEX).is_file():
        allowed = f"a cache, as `contar cache` or write_cache makes, with a {INDEX}"
        raise FileNotFoundError(f"cache: got {str(folder)!r}, allowed: {allowed}")
    content = read_json(folder / INDEX)
    made_with, shards = content.get("made_with"), content.get("shards")
    if not isinstance(made_with, dict):
        raise bad(INDEX, f"made_with={made_with!r} in {folder}", "an object")
    if not isinstance(shards, list) or not shards:
        raise bad(INDEX, f"shards={shards!r} in {folder}", "a list of at least one")
    seen = set()
    for shard in shards:
        facts = shard if isinstance(shard, dict) else {}
        file, samples, checksum = (facts.get(key) for key in ("file", "samples", "crc32"))
        named = isinstance(file, str) and re.fullmatch(r"[^/\\\0]+\.tar", file)
        numbers = type(samples) is int and samples >= 1 and type(checksum) is int
        if not named or not numbers or len(facts) != 3:
            allowed = "{file: a name that ends in .tar, samples: 1 or more, crc32: an integer}"
            raise bad(INDEX, f"the shard {shard!r} in {folder}", allowed)
        if file in seen:
            raise bad(INDEX, f"{file} twice in {folder}", "each shard once")
        seen.add(file)
    return made_with, shards


def _array(content: bytes) -> np.ndarray:
    """Return the array of an .npy file, if its header says as many values as there are."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"an array of version {version}")
    try:
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    except Exception as error:  # of any kind: the parser of Python reads it
        raise ValueError(f"no header of an array ({error})") from error
    if dtype.kind not in NUMBERS:
        raise ValueError(f"an array of {dtype}")
    stated, there = math.prod(shape) * dtype.itemsize, len(content) - stream.tell()
    if min(shape, default=0) < 0 or stated != there:
        raise ValueError(f"an array of shape {shape}, {dtype}, in {there} bytes")
    stream.seek(0)
    return np.load(stream, allow_pickle=False)


def _members(file: Path) -> list[tarfile.TarInfo]:
    """Return a tar file's members; ValueError if it is none, or a compressed one."""
    members = []
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                if member.size < 0:  # which would lead back
                    raise tarfile.ReadError(f"{member.name} of {member.size} bytes")
                members.append(member)
    except (tarfile.TarError, EOFError, OverflowError, ValueError) as error:
        raise bad("cache", f"{file}, which is no tar file ({error})", "whole shards") from error
    return members


def _places(file: Path, count: int) -> list[_Place]:
    """Return where a shard's samples lie: `count` of them, each with facts and the same arrays."""
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    end = file.stat().st_size
    for member in _members(file):
        parts = _MEMBER.fullmatch(member.name)
        plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE)
        if not parts or not plain or member.sparse:  # type: ignore[attr-defined]
            raise _strange(file, member.name, "which is no array and no facts")
        of_sample = samples.setdefault(parts[1], {})
        if parts[2] in of_sample:
            raise _strange(file, member.name, "which is there twice")
        if member.size > end - member.offset_data:
            raise _strange(file, member.name, f"which says {member.size} bytes")
        of_sample[parts[2]] = (member.offset_data, member.size)
    if len(samples) != count:
        raise bad("cache", f"{file} with {len(samples)} samples", f"the {count} of {INDEX}")
    names = {name for of_sample in samples.values() for name in of_sample} | {"json"}
    for key, of_sample in samples.items():
        missing = sorted(names - set(of_sample))
        if missing:
            raise _strange(file, f"{key}.{missing[0]}", "which is not there")
    if names == {"json"}:
        raise bad("cache", f"{file} without an array", "at least one in each sample")
    return [_Place(file, key, of_sample) for key, of_sample in samples.items()]


def _strange(file: Path, member: str, what: str) -> ValueError:
    return bad("cache", f"{file}, member {member}, {what}", "what write_cache writes")
