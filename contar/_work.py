"""Work in units, shared among tasks: one that fails is recorded and the next one follows."""

import errno
import shutil
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, TypeVar

import torch

from contar._errors import bad, check_count

T = TypeVar("T")
_NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


@dataclass(frozen=True)
class Failure:
    """A unit that could not be made: its name, and the error's kind and message."""

    file: str
    error: str


def make_units(
    units: Sequence[T],
    make: Callable[[T], object],
    *,
    wanted: Callable[[T], bool],
    name: Callable[[T], str],
    record: Callable[[T, Failure, str], object],
    ended: Callable[[], bool] = lambda: False,
    report: Callable[[str], object] = lambda line: None,
) -> list[Failure]:
    """Make one unit after the other; return those that failed.

    Args:
        units: of a task.
        make: makes one, whole or not at all.
        wanted: whether a unit is to be made, asked when its turn comes.
        name: of a unit.
        record: called with a unit that failed, the failure and its trace.
        ended: asked before each unit and when one failed; True stops the work.
        report: called with a line for each unit.

    Raises:
        Exception: one that `ends_all`, or of `record`.
    """
    failures = []
    for number, unit in enumerate(units, 1):
        if not wanted(unit):
            continue
        if ended():
            break
        counted = f"{number} of {len(units)}: {name(unit)}"
        try:
            make(unit)
            report(counted)
        except Exception as error:
            if ends_all(error):
                raise
            if ended():
                break
            failure = Failure(name(unit), told(error))
            record(unit, failure, traceback.format_exc())
            report(f"{counted} failed: {failure.error}")
            failures.append(failure)
    return failures


def told(error: Exception) -> str:
    """Return an error's kind and message."""
    return f"{type(error).__name__}: {error}"


def ends_all(error: Exception) -> bool:
    """Return whether others would fail as well: a package misses, a disk or a GPU is full."""
    full = torch.cuda.OutOfMemoryError
    broken = isinstance(error, RuntimeError) and "CUDA error" in str(error)
    gone = (ImportError, full, getattr(torch, "AcceleratorError", full))
    no_place = isinstance(error, OSError) and error.errno in _NO_PLACE
    return broken or no_place or isinstance(error, gone)


def check_task(rank: int, tasks: int, planned: int | None = None) -> None:
    """Raise a ValueError unless there are as many tasks as planned, and one has this rank."""
    if planned is not None and tasks != planned:
        raise bad("tasks", tasks, f"{planned}, as begun with")
    if check_count("rank", rank, 0) >= check_count("tasks", tasks):
        raise bad("rank", rank, f"below the number of tasks, {tasks}")


def check_same(
    name: str, where: object, old: Mapping[str, Any], new: Mapping[str, Any], allowed: str
) -> None:
    """Raise a ValueError of what a folder's plan and a new one differ in, setting by setting."""
    before, now = ({**plan, **plan.get("settings", {})} for plan in (old, new))
    keys = [key for key in {**now, **before} if key != "settings"]
    other = [key for key in keys if before.get(key) != now.get(key)]
    if other:
        shown = {key: [shorten(repr(x.get(key)), 300) for x in (now, before)] for key in other}
        told = ", ".join(f"{key}: {new} (was {old})" for key, (new, old) in shown.items())
        raise bad(name, f"{where}, begun otherwise: {told}", allowed)


@contextmanager
def part_folder(parts: Path, number: int) -> Iterator[Path]:
    """Make a folder of one's own for the parts of a unit, and remove it."""
    folder = parts / f"{number:05d}-{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
