"""A cache of samples on disk: shards as webdataset writes them, read at any place.

A sample is a few arrays and a JSON object. `cache.json` beside the shards says what made them, how
many samples each has, and its checksum.
"""

import hashlib
import io
import itertools
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from contar._errors import bad, check_count
from contar._files import read_json

INDEX = "cache.json"


class Sample(NamedTuple):
    """Arrays by name, and what else is known."""

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


def write_cache(
    samples: Iterable[Sample], out: Path, *, made_with: Mapping[str, Any], shard: int = 1000
) -> Path:
    """Write samples to shards; return the folder, which is there as a whole or not at all.

    Args:
        samples: any number of them, each with arrays of the same names.
        out: folder to make.
        made_with: what the samples follow from, as fingerprints of models; readers compare it.
        shard: samples of a file.

    Raises:
        ValueError: a folder that exists, no samples, or a shard size below 1.
        ImportError: webdataset is not installed.
    """
    open_tar = tar_writer()
    check_count("shard", shard)
    if out.exists():
        raise bad("out", str(out), "a folder that does not exist yet")
    temporary = out.with_name(f".{out.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)  # of a write that was killed
    temporary.mkdir(parents=True)
    try:
        files: list[dict[str, Any]] = []
        for chunk in _chunks(samples, shard):
            file = temporary / f"shard-{len(files):05d}.tar"
            count = 0
            with open_tar(str(file), mtime=0) as writer:  # equal samples make equal shards
                for number, sample in chunk:
                    entry = {f"{key}.npy": _bytes(array) for key, array in sample.arrays.items()}
                    writer.write({"__key__": f"{number:08d}", **entry, "json": sample.facts})
                    count += 1
            files.append(_facts(file, count))
        if not files:
            raise bad("samples", "none", "at least one")
        content = {"made_with": dict(made_with), "shards": files}
        (temporary / INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return out


def tar_writer() -> Any:
    """Return webdataset's `TarWriter`; ImportError says what to install if it is not there."""
    try:
        from webdataset import TarWriter  # type: ignore[attr-defined]
    except ImportError as error:
        raise ImportError('webdataset is not installed (pip install "contar[train]")') from error
    return TarWriter


def _chunks(samples: Iterable[Sample], size: int) -> Iterator[Iterator[tuple[int, Sample]]]:
    numbered = enumerate(samples)
    for first in numbered:
        yield itertools.chain([first], itertools.islice(numbered, size - 1))


class Cache(Dataset[Sample]):
    """The samples of a cache, by number.

    Args:
        folder: of `write_cache`.
        made_with: what must have made it, by name; what is not named is not asked.
        skip_corrupted: leave out shards that are damaged, instead of refusing the cache.

    Attributes:
        made_with: what made it.
        fingerprint: a short name that other samples would not have.
        skipped: shards that were left out.

    Raises:
        FileNotFoundError: no cache there.
        ValueError: one made with something else (what differs is named), or a shard that is
            missing or damaged (it is named), or nothing left.
    """

    def __init__(
        self,
        folder: Path,
        *,
        made_with: Mapping[str, Any] = MappingProxyType({}),
        skip_corrupted: bool = False,
    ) -> None:
        content = read_json(Path(folder) / INDEX)
        self.made_with: dict[str, Any] = content["made_with"]
        differing = [
            f"{name}: {self.made_with.get(name)!r} there, {wanted!r} here"
            for name, wanted in sorted(made_with.items())
            if self.made_with.get(name) != wanted
        ]
        if differing:
            got = f"{folder}, made with another " + "; ".join(differing)
            raise bad("cache", got, "one made with these")
        self.skipped: list[str] = []
        digest = hashlib.sha256()
        self._places: list[tuple[Path, dict[str, tuple[int, int]]]] = []
        for shard in content["shards"]:
            file = Path(folder) / shard["file"]
            if not file.is_file() or _facts(file, shard["samples"]) != shard:
                if not skip_corrupted:
                    got = f"a shard that is missing or damaged: {file}"
                    raise bad("cache", got, "whole shards, or skip_corrupted")
                self.skipped.append(str(file))
                continue
            self._places += [(file, members) for members in _members(file)]
            digest.update(f"{shard['crc32']} ".encode())
        if not self._places:
            raise bad("cache", f"{folder} without a whole shard", "at least one")
        self.fingerprint = digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        file, members = self._places[index]
        arrays, facts = {}, {}
        with file.open("rb") as stream:
            for name, (offset, size) in members.items():
                stream.seek(offset)
                content = stream.read(size)
                if name == "json":
                    facts = json.loads(content)
                else:
                    arrays[name.removesuffix(".npy")] = np.load(io.BytesIO(content))
        return Sample(arrays, facts)


def _bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _facts(file: Path, samples: int) -> dict[str, Any]:
    checksum = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return {"file": file.name, "samples": samples, "crc32": checksum}


def _members(file: Path) -> Iterable[dict[str, tuple[int, int]]]:
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    with tarfile.open(file) as archive:
        for member in archive:
            key, _, name = member.name.partition(".")
            samples.setdefault(key, {})[name] = (member.offset_data, member.size)
    return samples.values()
