"""Watching and stopping a generation between its sets."""

from collections.abc import Callable
from dataclasses import dataclass

from tqdm import tqdm

from contar._errors import check_callable, check_count, check_instance
from contar._typing import Float, Int, Tensor


class Cancelled(Exception):  # noqa: N818 - the word says what happened, it is no fault
    """Raised out of a generation whose `cancel` returned True."""


@dataclass(frozen=True)
class Progress:
    """Where a generation stands after a set.

    Attributes:
        frame: number of the frame, from 0.
        frames: how many there are.
        set: number of the set, from 0.
        sets: how many there are in a frame.
        tokens: [b, n, c], the frame so far; positions to come are 0.
        current: [b, m], the positions that this set has filled.
    """

    frame: int
    frames: int
    set: int
    sets: int
    tokens: Float[Tensor, "b n c"]
    current: Int[Tensor, "b m"]


class Monitor:
    """A progress bar, a callback after each set, and a question before it: shall we stop?

    Args:
        total: sets of the whole generation.
        progress: show a bar.
        callback: called with a `Progress` after each set.
        cancel: called before each set, as `threading.Event().is_set`; True ends the generation.

    Raises:
        ValueError: a `total` below 0, or functions that cannot be called.
    """

    def __init__(
        self,
        total: int,
        *,
        progress: bool = False,
        callback: Callable[[Progress], object] | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> None:
        check_count("total", total, 0)
        check_instance("progress", progress, bool)
        for name, function in (("callback", callback), ("cancel", cancel)):
            if function is not None:
                check_callable(name, function)
        self._callback, self._cancel = callback, cancel
        self._total, self._progress = total, progress
        self._bar = tqdm(disable=True)

    def __enter__(self) -> "Monitor":
        self._bar = tqdm(total=self._total, unit="set", disable=not self._progress)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def before(self) -> None:
        """Raise `Cancelled` if the caller wants to stop."""
        if self._cancel is not None and self._cancel():
            raise Cancelled

    def after(self, progress: Progress) -> None:
        """Move the bar and tell the caller."""
        self._bar.update()
        if self._callback is not None:
            self._callback(progress)
