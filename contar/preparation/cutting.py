"""Shots cut out of their files, shard by shard; and their frames, read back."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from contar._errors import bad
from contar._files import flush, read_json, write_whole
from contar._typing import Tensor, UInt8
from contar._work import check_task, ends_all, part_folder, told
from contar.data import Sample, write_shard
from contar.media import read_image, read_video, write_video
from contar.preparation.clips import KEPT, PLAN, facts_of, work_of
from contar.preparation.plan import read_plan


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
    check_task(rank, tasks)
    work, root = work_of(out, name), read_plan(out).root
    size, kept = (read_json(work / PLAN)[key] for key in ("shard", "kept"))
    with (work / KEPT).open(encoding="utf-8") as stream:
        for number in range(-(-kept // size)):
            lines = islice(stream, size)
            if number % tasks == rank and not facts_of(work, number).is_file():
                if not _write(work, root, number, enumerate(lines, number * size), ended):
                    return
                report(f"shard {number + 1} of {-(-kept // size)}")
            for _ in lines:  # of a shard that is another's, or there
                pass


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


def _write(
    work: Path,
    root: Path,
    number: int,
    lines: Iterator[tuple[int, str]],
    ended: Callable[[], bool],
) -> bool:
    """Write a shard and its facts; False if the work has ended before."""
    (work / "made").mkdir(exist_ok=True)
    with part_folder(work / "parts", number) as folder:
        clips = _Clips(root, lines, folder, ended)
        shard = _shard(iter(clips), folder, number)
        if clips.stopped:
            return False
        if shard is not None:
            flush(folder / shard["file"])
            os.replace(folder / shard["file"], work / "made" / shard["file"])
        file = facts_of(work, number)
        file.parent.mkdir(exist_ok=True)
        write_whole(file, json.dumps({"shard": shard, "failed": clips.failed}) + "\n")
    return True


class _Clips:
    """The clips of a shard's lines, and what came of them.

    Attributes:
        failed: shots of which there is no clip, with the error.
        stopped: whether the work has ended before the last line.
    """

    def __init__(
        self,
        root: Path,
        lines: Iterator[tuple[int, str]],
        folder: Path,
        ended: Callable[[], bool],
    ) -> None:
        self.root, self.lines, self.folder, self.ended = root, lines, folder, ended
        self.failed: list[dict[str, Any]] = []
        self.stopped = False

    def __iter__(self) -> Iterator[tuple[int, Sample]]:
        for place, line in self.lines:
            self.stopped = self.stopped or self.ended()
            if self.stopped:
                return
            row = json.loads(line)
            try:
                yield place, _clip(self.root, row, self.folder)
            except Exception as error:
                if ends_all(error):
                    raise
                where = {"name": row["name"], "shot": row["shot"]}
                self.failed.append({**where, "error": told(error)})


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
