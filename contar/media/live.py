"""Frames as they come, up to where their coming is stopped."""

import itertools
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from contar._errors import bad


@contextmanager
def until_stopped(frames: Iterator[np.ndarray]) -> Iterator[Iterator[np.ndarray]]:
    """Yield frames that end where their coming is stopped, by an error or Ctrl-C.

    What stopped them is raised after the block; at once, if no frame came before. Signals that stop
    a program wait while a frame is worked on, so that no half of one is left.

    Raises:
        ValueError: no frame comes.
    """
    stopped: list[BaseException] = []
    with _Signals() as signals:
        yield _shown(frames, signals, stopped)
    if stopped:
        raise stopped[0]


def _shown(
    frames: Iterator[np.ndarray], signals: "_Signals", stopped: list[BaseException]
) -> Iterator[np.ndarray]:
    """Yield frames; what stops them, after the first one, is put into a list."""
    for count in itertools.count():
        try:
            with signals.released():
                frame = next(frames, None)
        except BaseException as error:
            if not count:
                raise
            stopped.append(error)
            return
        if frame is None:
            if not count:
                raise bad("frames", "no frame", "at least one")
            return
        yield frame


class _Signals:
    """Has Ctrl-C and SIGTERM wait, where a handler in Python takes them, but in `released`."""

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._came: list[int] = []

    def __enter__(self) -> "_Signals":
        if threading.current_thread() is threading.main_thread():  # no other gets any
            found = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}
            self._handlers = {kind: handler for kind, handler in found.items() if callable(handler)}
        self._hold()
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Let through what came and what comes."""
        try:
            self._release()
            yield
        finally:
            self._hold()

    def _hold(self) -> None:
        for kind in self._handlers:
            signal.signal(kind, lambda kind, _: self._came.append(kind))

    def _release(self) -> None:
        for kind, handler in self._handlers.items():
            signal.signal(kind, handler)
        if self._came:
            signal.raise_signal(self._came.pop(0))
