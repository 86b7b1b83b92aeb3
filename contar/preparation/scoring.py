"""The scores of one share's files, line by line in a journal that a killed run goes on with."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contar._files import flush
from contar._lock import locked
from contar._work import check_task, ends_all, told
from contar.preparation.plan import RUN, files_of, read_plan
from contar.preparation.sources import SourceFile

Shots = Callable[[Path, SourceFile], list[dict[str, Any]]]
_FAILED = '{"error"'  # what a line of a file that failed begins with
_PATIENCE = 600.0  # seconds that a killed run's task has for the file in hand


def score_files(
    out: str | os.PathLike[str],
    *,
    rank: int = 0,
    tasks: int = 1,
    retry: bool = False,
    report: Callable[[str], object] = lambda line: None,
    ended: Callable[[], bool] = lambda: False,
) -> int:
    """Score one task's files: what its journal does not have yet. Return how many failed now.

    A file that fails is recorded with its error, and the next one follows. What is held is one
    shot's frames and one file's scores, however many files there are.

    Args:
        out: folder of `plan_preparation`.
        rank: of the task.
        tasks: as planned.
        retry: score the files that failed, and no others.
        report: called with a line for each file.
        ended: asked before each file; True stops the work, as when the run's own process is gone.

    Raises:
        ValueError: another number of tasks than planned, or no such rank.
        ImportError: what a step needs is not installed.
        OSError: the folder cannot be written to.
        RuntimeError: of CUDA, such as that its memory is full.
    """
    from contar.preparation.chain import Chain

    plan = read_plan(out)
    check_task(rank, tasks, plan.tasks)
    journal = journal_of(out, rank)
    shots = Chain(plan.preparation).shots
    share, failures = -(-(plan.count - rank) // tasks), 0
    with _alone(Path(out) / RUN / "scored" / f"{rank:05d}", report):
        if journal.is_file() and not retry:
            return 0
        part = journal.with_suffix(".part")
        done = _whole_lines(part)
        with part.open("a", encoding="utf-8") as stream:
            before = _before(journal)
            for number, file in enumerate(files_of(out, rank, tasks)):
                old = next(before, None)
                if number < done:
                    continue
                if ended():
                    return failures
                old = None if old is None or old.startswith(_FAILED) else old
                line = old or _scored(plan.root, file, shots)
                if line is not old:
                    failed = json.loads(line).get("error")
                    failures += failed is not None
                    end = "" if failed is None else f" failed: {failed}"
                    report(f"{number + 1} of {share}: {file.name}{end}")
                stream.write(line)
                stream.flush()
        flush(part)
        os.replace(part, journal)
    return failures


def journal_of(out: str | os.PathLike[str], rank: int) -> Path:
    """Return a rank's journal, which is there once the rank has ended."""
    return Path(out) / RUN / "scored" / f"{rank:05d}.jsonl"


def ranks_left(out: str | os.PathLike[str], *, retry: bool = False) -> list[int]:
    """Return the ranks for which `score_files` has work."""
    ranks = range(read_plan(out).tasks)
    if not retry:
        return [rank for rank in ranks if not journal_of(out, rank).is_file()]
    return [
        rank
        for rank in ranks
        if any(line.startswith(_FAILED) for line in _before(journal_of(out, rank)))
    ]


def _scored(root: Path, file: SourceFile, shots: Shots) -> str:
    """Return a file's line: its shots, or the error."""
    try:
        content: dict[str, Any] = {"shots": shots(root, file)}
        return json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"
    except Exception as error:
        if ends_all(error):
            raise
        content = {"error": told(error), "name": file.name}
        return json.dumps(content) + "\n"


def _whole_lines(part: Path) -> int:
    """Return how many whole lines a journal has, after cutting off what a kill left of one."""
    count = end = 0
    if part.is_file():
        with part.open("rb+") as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                count, end = count + 1, end + len(line)
            stream.truncate(end)
    return count


def _before(journal: Path) -> Iterator[str]:
    """Yield the lines of a journal that is whole; none if it is not there."""
    if journal.is_file():
        with journal.open(encoding="utf-8") as stream:
            yield from stream


@contextmanager
def _alone(folder: Path, report: Callable[[str], object]) -> Iterator[None]:
    """Keep others of the rank out; wait for one of a killed run, which ends by itself."""
    begun = time.monotonic()
    while True:
        lock = locked(folder)
        try:
            lock.__enter__()
            break
        except ValueError:
            if time.monotonic() - begun > _PATIENCE:
                raise
        if time.monotonic() - begun < 0.2:
            report("waiting for the task of a run that was killed")
        time.sleep(0.2)
    try:
        yield
    finally:
        lock.__exit__(None, None, None)
