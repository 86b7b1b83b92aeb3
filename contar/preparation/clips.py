"""The shots of which a condition holds, cut out of their files, in shards that `Cache` reads."""

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from contar._errors import bad, check_count
from contar._files import flush, read_json, write_whole
from contar._typing import Tensor, UInt8
from contar.data import Sample, join_shards, write_shard
from contar.media import read_image, read_video, write_video
from contar.preparation.expression import Condition
from contar.preparation.gathering import SCORES, read_scores
from contar.preparation.plan import RUN, read_plan
from contar.preparation.scoring import _ends_all

_KEPT, _PLAN, _INDEX = "kept.jsonl", "plan.json", "cache.json"


def plan_clips(
    out: str | os.PathLike[str], condition: str, *, name: str = "clips", shard: int = 1000
) -> int:
    """Write which shots are kept, or see that it is these; return how many shards they make.

    Args:
        out: folder with scores.
        condition: on a row of them, as `Condition` reads it.
        name: of the folder in OUT that the shards come to.
        shard: clips of a file.

    Raises:
        FileNotFoundError: there are no scores.
        ValueError: a condition that is refused, that holds of nothing, or that holds of shots
            without a caption; or a folder begun with another condition, other scores, another size
            of shards.
    """
    place = Path(out)
    if Path(name).name != name or name in (RUN, "", ".", ".."):
        raise bad("name", name, f"the name of a folder in OUT other than {RUN!r}")
    settings = read_plan(out).preparation
    holds = Condition(condition, settings.columns(), name="apply")
    wanted = {
        "preparation": settings.to_json(),
        "condition": condition.strip(),
        "scores": _digest(place / SCORES),
    }
    work, made = place / RUN / name, place / name
    plan = {**wanted, "shard": check_count("shard", shard)}
    if made.exists() and not (work / _PLAN).is_file():
        raise bad("name", str(made), "a folder that does not exist yet")
    if (work / _PLAN).is_file():
        old = read_json(work / _PLAN)
        other = [each for each in plan if old.get(each) != plan[each]]
        if other:
            told = ", ".join(f"{e}: {plan[e]!r} (was {old.get(e)!r})" for e in other)
            allowed = "the same condition, scores and shards, or another name"
            raise bad("name", f"{name}, begun otherwise: {told}", allowed)
        return -(-old["kept"] // shard)
    part = place / RUN / f".{_KEPT}.part"
    try:
        kept = _keep(read_scores(out), holds, part)
        work.mkdir(exist_ok=True)
        os.replace(part, work / _KEPT)
    finally:
        part.unlink(missing_ok=True)
    write_whole(work / _PLAN, json.dumps({**plan, "kept": kept}, indent=1) + "\n")
    return -(-kept // shard)


def cut_clips(
    out: str | os.PathLike[str],
    *,
    name: str = "clips",
    rank: int = 0,
    tasks: int = 1,
    report: Callable[[str], object] = lambda line: None,
    ended: Callable[[], bool] = lambda: False,
) -> None:
    """Write one task's shards: those that are not there yet; shard i is of rank i modulo `tasks`.

    A clip that fails is recorded with its error, and left out of its shard.

    Args:
        out: folder of `plan_clips`.
        name: as there.
        rank: of the task.
        tasks: among which the shards are shared.
        report: called with a line for each shard.
        ended: asked before each clip; True stops the work.

    Raises:
        ValueError: no such rank.
        ImportError: webdataset or av is not installed.
        OSError: the folder cannot be written to.
    """
    if check_count("rank", rank, 0) >= check_count("tasks", tasks):
        raise bad("rank", rank, f"below the number of tasks, {tasks}")
    work, root = Path(out) / RUN / name, read_plan(out).root
    size, kept = (read_json(work / _PLAN)[key] for key in ("shard", "kept"))
    with (work / _KEPT).open(encoding="utf-8") as stream:
        for number in range(-(-kept // size)):
            lines = islice(stream, size)
            if number % tasks == rank and not _facts(work, number).is_file():
                if not _write(work, root, number, enumerate(lines, number * size), ended):
                    return
                report(f"shard {number + 1} of {-(-kept // size)}")
            for _ in lines:  # of a shard that is another's, or there
                pass


def join_clips(
    out: str | os.PathLike[str], name: str = "clips"
) -> tuple[int, list[dict[str, Any]]]:
    """Make OUT/NAME of the shards; return how many clips it has, and those that failed.

    Raises:
        FileNotFoundError: a shard has not been written.
        ValueError: every clip failed.
    """
    work, made = Path(out) / RUN / name, Path(out) / name
    plan = read_json(work / _PLAN)
    facts = [read_json(_facts(work, n)) for n in range(-(-plan["kept"] // plan["shard"]))]
    failed = [failure for each in facts for failure in each["failed"]]
    whole = [each["shard"] for each in facts if each["shard"] is not None]
    if not whole:
        raise bad("apply", f"{len(failed)} clips that all failed: {failed[0]}", "one that is cut")
    if not made.exists():
        made_with = {key: plan[key] for key in ("preparation", "condition", "scores")}
        join_shards(work / "made", whole, made_with)
        os.replace(work / "made", made)
    return sum(each["samples"] for each in whole), failed


def shards_left(
    out: str | os.PathLike[str], name: str = "clips", *, retry: bool = False
) -> list[int]:
    """Return the numbers of the shards that `cut_clips` would write.

    With `retry`, those in which clips failed are no longer there, nor is OUT/NAME.
    """
    work, made = Path(out) / RUN / name, Path(out) / name
    plan = read_json(work / _PLAN)
    files = [_facts(work, number) for number in range(-(-plan["kept"] // plan["shard"]))]
    again = [f for f in files if f.is_file() and read_json(f)["failed"]] if retry else []
    if again and made.exists():
        (made / _INDEX).unlink(missing_ok=True)
        os.replace(made, work / "made")
    for file in again:
        file.unlink()
    return [number for number, file in enumerate(files) if not file.is_file()]


def read_prepared(sample: Sample) -> tuple[UInt8[Tensor, "t h w 3"], float | None]:
    """Return the frames of a prepared clip, uint8 RGB, and their rate, None of a picture.

    Raises:
        ValueError: a sample of other shards, or a damaged one.
    """
    content, suffix = sample.arrays.get("file"), sample.facts.get("suffix")
    if content is None or not isinstance(suffix, str) or "/" in suffix:
        raise bad("sample", sorted(sample.arrays), "a sample of prepared clips, with its file")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"clip{suffix}"
        file.write_bytes(content.tobytes())
        if sample.facts.get("kind") == "picture":
            return read_image(file, name="sample")[None], None
        return read_video(file, name="sample")


def _keep(rows: Iterable[dict[str, Any]], holds: Condition, part: Path) -> int:
    """Write the rows of which a condition holds; return how many, at least one."""
    kept = 0
    with part.open("w", encoding="utf-8") as stream:
        for row in rows:
            if holds(row):
                if not row["caption"]:
                    got = f"{row['name']}#{row['shot']} without a caption"
                    allowed = "captions, or a condition as 'caption_length > 0'"
                    raise bad("apply", f"{holds.text!r}, which keeps {got}", allowed)
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
                kept += 1
    if not kept:
        raise bad("apply", f"{holds.text!r}, which keeps nothing", "a condition that keeps a shot")
    return kept


def _write(
    work: Path,
    root: Path,
    number: int,
    lines: Iterator[tuple[int, str]],
    ended: Callable[[], bool],
) -> bool:
    """Write a shard and its facts; False if the work has ended before."""
    failed: list[dict[str, Any]] = []
    stopped = False

    def samples() -> Iterator[tuple[int, Sample]]:
        nonlocal stopped
        for place, line in lines:
            stopped = stopped or ended()
            if stopped:
                return
            row = json.loads(line)
            try:
                yield place, _clip(root, row, folder)
            except Exception as error:
                if _ends_all(error):
                    raise
                told = f"{type(error).__name__}: {error}"
                failed.append({"name": row["name"], "shot": row["shot"], "error": told})

    folder = work / "parts" / f"{number:05d}-{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    (work / "made").mkdir(exist_ok=True)
    try:
        shard = _shard(samples(), folder, number)
        if stopped:
            return False
        if shard is not None:
            flush(folder / shard["file"])
            os.replace(folder / shard["file"], work / "made" / shard["file"])
        file = _facts(work, number)
        file.parent.mkdir(exist_ok=True)
        write_whole(file, json.dumps({"shard": shard, "failed": failed}) + "\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return True


def _shard(
    samples: Iterator[tuple[int, Sample]], folder: Path, number: int
) -> dict[str, Any] | None:
    """Write a shard and return its facts; None if there is no sample."""
    first = next(samples, None)
    return None if first is None else write_shard(chain([first], samples), folder, number)


def _clip(root: Path, row: Mapping[str, Any], folder: Path) -> Sample:
    """Return a kept shot: the bytes of its picture, or of an .mp4 of its frames."""
    path = root / row["name"]
    if row["kind"] == "picture":
        content, suffix = path.read_bytes(), path.suffix.lower()
    else:
        from contar.preparation.frames import frames_between

        frames = frames_between(str(path), row["start"], row["frames"])
        part = folder / "clip.mp4"
        # One thread: the bytes would depend on how many there are.
        content, suffix = write_video(frames, part, fps=row["fps"], threads=1).read_bytes(), ".mp4"
        part.unlink()
    return Sample({"file": np.frombuffer(content, np.uint8)}, {**row, "suffix": suffix})


def _facts(work: Path, number: int) -> Path:
    return work / "facts" / f"{number:05d}.json"


def _digest(file: Path) -> str:
    digest = sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
