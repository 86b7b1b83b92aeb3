"""A generation as a sequence of what there is to see: sets, frames."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import numpy as np

from contar._typing import UInt8
from contar.generation import Cancelled, Progress

Frames = UInt8[np.ndarray, "n h w 3"]


def watch(
    stream: Callable[[Callable[..., None]], Iterator[Frames]],
    stop: Event,
    *,
    pause: float = 0.0,
) -> Generator[Progress | Frames, None, None]:
    """Yield where a generation stands after each set, on the CPU, and frames as they are finished.

    It runs in a thread of its own, which is over when this is, left early or not.

    Args:
        stream: of a pipeline and one text, given its `callback_on_step_end`.
        stop: this generation's own; once it is set, the set at work is the last. Set when this is
            left.
        pause: seconds to wait after each set.

    Raises:
        Exception: what the generation raises, at the place where it comes.
    """
    seen: SimpleQueue[Progress | Frames | Exception | None] = SimpleQueue()

    def after_set(_pipe: Any, _done: int, _frame: int, kept: dict[str, Any]) -> None:
        now: Progress = kept["progress"]
        seen.put(replace(now, tokens=now.tokens.float().cpu(), current=now.current.cpu()))
        if stop.wait(pause):
            raise Cancelled

    def work() -> None:
        try:
            for frames in stream(after_set):
                seen.put(frames)
                if stop.is_set():
                    break
            seen.put(None)
        except Cancelled:
            seen.put(None)
        except Exception as error:  # handed to the one who watches
            seen.put(error)

    thread = Thread(target=work, name="generation", daemon=True)
    thread.start()
    try:
        while (event := seen.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event
    finally:
        stop.set()
        thread.join()
