"""A cache of the clips of many shards, made shard by shard in any number of tasks.

OUT             the cache: a shard for each that was read, and at the end `cache.json`
OUT/run         the plan, a line of facts for each shard that is done, parts of files
"""

import json
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

from contar._errors import bad, check_count
from contar._files import flush, read_json, write_whole
from contar._work import (
    Failure,
    check_same,
    check_task,
    ends_all,
    make_units,
    part_folder,
    told,
)
from contar.data import (
    Cache,
    CaptionedFile,
    Entry,
    Sample,
    clip_of,
    join_shards,
    read_entries,
    write_shard,
)

RUN = "run"
_PLAN, _INDEX = "plan.json", "cache.json"
_LOOK = 1 << 16  # bytes of a shard by which it is known again
_UNREAD: Mapping[str, Any] = {"shard": None, "source": None}
Encode = Callable[[CaptionedFile], Iterable[Sample]]


def plan_cache(
    shards: Sequence[Path],
    out: Path,
    *,
    made_with: Mapping[str, Any],
    settings: Mapping[str, Any],
    tasks: int = 1,
    retry: bool = False,
) -> None:
    """Write what is to be encoded, or see that it is this.

    Args:
        shards: of webdataset, each of another name.
        out: the cache to be made, in a folder that does not exist yet or was begun so.
        made_with: as in `contar.data.write_cache`.
        settings: of JSON, such as frames and rate of a clip.
        tasks: among which the shards are shared.
        retry: shards in which clips failed may be other files by now.

    Raises:
        ValueError: a folder begun otherwise, with another number of tasks, or not at all by this;
            a shard that is encoded and was another file then, by size or by its first 64 KiB.
    """
    run = out / RUN
    names = [file.name for file in shards]
    plan = {"shards": names, "made_with": dict(made_with), "settings": dict(settings)}
    plan = json.loads(json.dumps({**plan, "tasks": check_count("tasks", tasks)}))
    if (run / _PLAN).is_file():
        allowed = "the same shards, model, settings and tasks, or a new folder"
        check_same("out", out, read_json(run / _PLAN), plan, allowed)
        for number, file in enumerate(shards):
            facts = _read_facts(out, number)
            kept = facts.get("shard") and not (retry and facts["failed"])
            if kept and facts.get("source") != _source(file):
                got = f"{file}, which was another file when it was encoded"
                raise bad("shards", got, f"that file, or a new folder instead of {out}")
        return
    if out.exists() and (others := sorted(p.name for p in out.iterdir() if p.name != RUN)):
        got = f"{out}, in which {others[0]} is"
        raise bad("out", got, "a folder that does not exist yet, or one that was begun so")
    run.mkdir(parents=True, exist_ok=True)
    write_whole(run / _PLAN, json.dumps(plan, indent=1) + "\n")


def encode_shards(
    folder: Path,
    out: Path,
    encode: Encode,
    *,
    rank: int = 0,
    tasks: int = 1,
    retry: bool = False,
    report: Callable[[str], object] = lambda line: None,
    ended: Callable[[], bool] = lambda: False,
) -> list[Failure]:
    """Encode one task's share of a plan: the shards that are not done yet.

    A shard is written whole or not at all, so a run that was killed goes on with the same call. A
    clip or a shard that fails is recorded with its error, and the next one follows.

    Args:
        folder: of the shards.
        out: folder of `plan_cache`.
        encode: a video or picture to samples, one or several of a clip. What it makes hangs on the
            clip alone, so that a clip that is tried again fits among the others.
        rank: of the task; shard i is done by the task of rank i modulo `tasks`.
        tasks: as in the plan.
        retry: encode the clips and shards that failed, and no others.
        report: called with a line for each shard.
        ended: asked before each clip; True stops the work.

    Returns:
        The shards that failed as a whole in this call.

    Raises:
        ValueError: no such rank, or another number of tasks than in the plan.
        OSError: the folder cannot be written to.
        RuntimeError: of CUDA, such as that its memory is full.
    """
    plan = read_json(out / RUN / _PLAN)
    check_task(rank, tasks, plan["tasks"])

    def record(number: int, failure: Failure, trace: str) -> None:
        before = _read_facts(out, number)  # of a shard that is tried again, whose clips stay
        failed = [each for each in before.get("failed", ()) if each["key"] is not None]
        failed.append({"key": None, "error": failure.error, "trace": trace})
        _write_facts(out, number, {**_UNREAD, **before, "failed": failed})

    return make_units(
        range(rank, len(plan["shards"]), tasks),
        lambda number: _Shard(folder / plan["shards"][number], out, number).encode(encode, ended),
        wanted=lambda number: _left(out, number, retry),
        name=lambda number: plan["shards"][number],
        record=record,
        ended=ended,
        report=report,
    )


def shards_left(out: Path, *, retry: bool = False) -> list[int]:
    """Return the numbers of the shards that `encode_shards` would take."""
    count = len(read_json(out / RUN / _PLAN)["shards"])
    return [number for number in range(count) if _left(out, number, retry)]


def failed_clips(out: Path) -> Iterator[Failure]:
    """Yield the clips, as "SHARD: KEY", and shards that failed, in the order of the plan."""
    for number, name in enumerate(read_json(out / RUN / _PLAN)["shards"]):
        for failed in _read_facts(out, number).get("failed", ()):
            file = name if failed["key"] is None else f"{name}: {failed['key']}"
            yield Failure(file, failed["error"])


def join_cache(out: Path) -> int:
    """Make a cache of the shards, once all are done; return how many samples it has.

    Shards that failed as a whole are not in it. Those that are there are not read.

    Raises:
        ValueError: a shard is not done, or every one failed.
    """
    plan = read_json(out / RUN / _PLAN)
    if left := shards_left(out):
        raise bad("out", f"{out}, of which {len(left)} shards are not done", "all of them done")
    facts = [_read_facts(out, number)["shard"] for number in range(len(plan["shards"]))]
    whole = [each for each in facts if each is not None]
    if not whole:
        first = next(failed_clips(out))
        got = f"{len(facts)} that all failed, {first.file} by {first.error}"
        raise bad("shards", got, "one that can be encoded")
    join_shards(out, whole, plan["made_with"])
    return sum(each["samples"] for each in whole)


@dataclass(frozen=True)
class _Shard:
    """A shard on its way from a file to the cache, `out`."""

    file: Path
    out: Path
    number: int

    def encode(self, encode: Encode, ended: Callable[[], bool]) -> None:
        """Write the shard and what is known of it."""
        failed: list[dict[str, str]] = []
        source = _source(self.file)
        with part_folder(self.out / RUN / "parts", self.number) as folder:
            samples = enumerate(self._samples(encode, folder, source, failed, ended))
            first = next(samples, None)
            if first is None:
                why = failed[0]["error"] if failed else "it is empty"
                raise bad("shards", f"{self.file.name}, {why}", "one with a clip")
            facts = write_shard(chain([first], samples), folder, self.number)
            made = folder / facts["file"]
            flush(made)
            for stale in (self.out / _INDEX, _facts_file(self.out, self.number)):
                stale.unlink(missing_ok=True)  # both have the checksum of what was there
            os.replace(made, self.out / made.name)
            known = {"shard": facts, "source": source, "failed": failed}
            _write_facts(self.out, self.number, known)

    def _samples(
        self,
        encode: Encode,
        folder: Path,
        source: str,
        failed: list[dict[str, str]],
        ended: Callable[[], bool],
    ) -> Iterator[Sample]:
        """Yield the samples of the clips; those that fail go to `failed`."""
        known = self._known(folder, source)
        for entry in read_entries(self.file):
            if ended():
                raise RuntimeError("the run has ended")
            try:
                made = known.get(entry.key) or _encoded(entry, encode, folder)
            except Exception as error:
                if ends_all(error):
                    raise
                said = {"error": told(error), "trace": traceback.format_exc()}
                place = f"{folder}{os.sep}"
                said = {name: text.replace(place, "") for name, text in said.items()}
                failed.append({"key": entry.key, **said})
                continue
            yield from made

    def _known(self, folder: Path, source: str) -> dict[str, Iterable[Sample]]:
        """Return what was encoded of this file before, by key, read when it is asked for."""
        facts = _read_facts(self.out, self.number)
        shard = facts.get("shard")
        if (
            shard is None
            or facts.get("source") != source
            or not (self.out / shard["file"]).is_file()
        ):
            return {}
        before = folder / "before"
        before.mkdir()
        (before / shard["file"]).symlink_to((self.out / shard["file"]).absolute())
        join_shards(before, [shard], {})
        cache = Cache(before)
        known: dict[str, list[int]] = {}
        for index in range(len(cache)):
            known.setdefault(cache[index].facts["key"], []).append(index)
        return {key: map(cache.__getitem__, rows) for key, rows in known.items()}


def _encoded(entry: Entry, encode: Encode, folder: Path) -> list[Sample]:
    """Return the samples of an entry, with its key and scores."""
    clip = clip_of(entry)
    file = folder / f"clip{clip.suffix}"
    try:
        file.write_bytes(clip.content)
        samples = list(encode(CaptionedFile(file, clip.caption)))
    finally:
        file.unlink(missing_ok=True)
    more = {"key": entry.key, **({"scores": clip.scores} if clip.scores else {})}
    return [Sample(arrays, {**facts, **more}) for arrays, facts in samples]


def _source(shard: Path) -> str:
    """Return what tells a shard from another of its name, without reading it whole."""
    try:
        with shard.open("rb") as stream:
            return sha256(str(shard.stat().st_size).encode() + stream.read(_LOOK)).hexdigest()
    except OSError as error:
        raise bad("shards", f"{shard} ({error})", "files that can be read") from error


def _left(out: Path, number: int, retry: bool) -> bool:
    facts = _read_facts(out, number)
    return bool(facts["failed"]) if retry and facts else not (retry or facts)


def _facts_file(out: Path, number: int) -> Path:
    return out / RUN / "shards" / f"{number:05d}.json"


def _read_facts(out: Path, number: int) -> dict[str, Any]:
    """Return what is known of a shard that is done; nothing of another."""
    file = _facts_file(out, number)
    return read_json(file) if file.is_file() else {}


def _write_facts(out: Path, number: int, facts: dict[str, Any]) -> None:
    file = _facts_file(out, number)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, json.dumps(facts, ensure_ascii=False) + "\n")
