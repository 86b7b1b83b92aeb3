"""Work in units: one that fails is recorded and the next one follows."""

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

T = TypeVar("T")


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
        OSError: of a full or broken disk, on which all others would fail as well.
        RuntimeError: of CUDA, such as that its memory is full.
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
    """Return whether it is a disk's or a GPU's error, on which all other units would fail, too."""
    full = torch.cuda.OutOfMemoryError
    broken = isinstance(error, RuntimeError) and "CUDA error" in str(error)
    return broken or isinstance(error, (OSError, full, getattr(torch, "AcceleratorError", full)))
