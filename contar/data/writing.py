"""A cache of samples on disk, written: shards of webdataset's format, and an index beside them.

A sample is a few arrays and a JSON object. `cache.json` beside the shards says what made them, how
many samples each has, and its checksum.
"""

import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from contar._errors import bad, check_count

INDEX = "cache.json"
NUMBERS = "biuf"  # kinds of numpy: booleans, integers, floats


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
        made_with: what the samples follow from, as fingerprints of models; readers compare it. It
            is kept as JSON, where a tuple is a list.
        shard: samples of a file.

    Raises:
        ValueError: a folder that exists, no samples, a shard size below 1, something in `made_with`
            or in a sample's facts that JSON does not have, or arrays of other names or of no
            numbers (the sample is named).
        ImportError: webdataset is not installed.
    """
    _tar_writer()
    shard = check_count("shard", shard)
    made_with = as_json("made_with", made_with)
    if out.exists():
        raise bad("out", str(out), "a folder that does not exist yet")
    temporary = out.with_name(f".{out.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)  # of a write that was killed
    temporary.mkdir(parents=True)
    try:
        files: list[dict[str, Any]] = []
        entries = _entries(enumerate(samples))
        for first in entries:
            chunk = chain([first], islice(entries, shard - 1))
            files.append(_write(temporary, len(files), chunk))
        if not files:
            raise bad("samples", "none", "at least one")
        join_shards(temporary, files, made_with)
        os.replace(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return out


def write_shard(samples: Iterable[tuple[int, Sample]], folder: Path, number: int) -> dict[str, Any]:
    """Write one shard of a cache that several processes make; return its facts, for `join_shards`.

    Equal samples make equal bytes.

    Args:
        samples: with their numbers in the cache, rising; each with arrays of the same names.
        folder: that holds the shards.
        number: of the shard.

    Raises:
        ValueError: no samples, or as `write_cache`.
        ImportError: webdataset is not installed.
    """
    facts = _write(folder, number, _entries(samples))
    if not facts["samples"]:
        (folder / facts["file"]).unlink()
        raise bad("samples", "none", "at least one")
    return facts


def join_shards(
    folder: Path, facts: Sequence[Mapping[str, Any]], made_with: Mapping[str, Any]
) -> None:
    """Write the index that makes a cache of a folder with shards, which are not read.

    Args:
        folder: with all shards.
        facts: of `write_shard`, in the order of the shards' numbers.
        made_with: as in `write_cache`.

    Raises:
        ValueError: no shards, or something in `made_with` that JSON does not have.
    """
    if not facts:
        raise bad("facts", "none", "at least one shard's")
    content = {"made_with": as_json("made_with", made_with), "shards": facts}
    (folder / INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def facts_of(file: Path, samples: int) -> dict[str, Any]:
    """Return what the index says of a shard: its name, samples and checksum."""
    checksum = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return {"file": file.name, "samples": samples, "crc32": checksum}


def as_json(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON gives them back: tuples as lists, numbers of numpy as Python's."""

    def of_numpy(value: object) -> Any:
        if isinstance(value, np.ndarray | np.generic):
            return value.tolist()
        raise TypeError(f"a {type(value).__name__}")

    try:
        return json.loads(json.dumps(dict(values), default=of_numpy, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise bad(name, f"{values!r} ({error})", "finite values that JSON has") from error


def _tar_writer() -> Any:
    """Return webdataset's `TarWriter`; ImportError says what to install if it is not there."""
    try:
        from webdataset import TarWriter  # type: ignore[attr-defined]
    except ImportError as error:
        raise ImportError('webdataset is not installed (pip install "contar[train]")') from error
    return TarWriter


def _write(folder: Path, number: int, entries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    file, count = folder / f"shard-{number:05d}.tar", 0
    with _tar_writer()(str(file), mtime=0) as writer:  # equal samples make equal shards
        for entry in entries:
            writer.write(entry)
            count += 1
    return facts_of(file, count)


def _entries(samples: Iterable[tuple[int, Sample]]) -> Iterator[dict[str, Any]]:
    """Yield samples as webdataset takes them, each seen to have the first one's arrays."""
    names: set[str] = set()
    for number, (arrays, facts) in samples:
        names = names or set(arrays)
        if not names or arrays.keys() != names:
            got = f"arrays {sorted(arrays)} in sample {number}"
            allowed = f"{sorted(names)}, as in the first" if names else "at least one"
            raise bad("samples", got, allowed)
        for name, array in arrays.items():
            if "/" in name or np.asarray(array).dtype.kind not in NUMBERS:
                got = f"{name!r} of {np.asarray(array).dtype} in sample {number}"
                raise bad("samples", got, "arrays of numbers, named without a '/'")
        entry = {f"{name}.npy": np.asarray(array) for name, array in arrays.items()}
        told = as_json(f"samples[{number}].facts", facts)
        yield {"__key__": f"{number:08d}", **entry, "json": told}
