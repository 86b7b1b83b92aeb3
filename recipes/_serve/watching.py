"""A generation as a sequence of what there is to see: sets, frames."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import numpy as np

from contar._typing import Float, Int, Tensor, UInt8
from contar.generation import Cancelled, Progress


@dataclass(frozen=True)
class SetDrawn:
    """A frame after one of its sets.

    Attributes:
        frame: number of the latent frame, from 0.
        frames: how many there are.
        set: number of the set, from 0.
        sets: how many the frame has.
        tokens: [n, c], the frame so far.
        current: [m], positions that this set filled.
    """

    frame: int
    frames: int
    set: int
    sets: int
    tokens: Float[Tensor, "n c"]
    current: Int[Tensor, " m"]


@dataclass(frozen=True)
class FramesMade:
    """Frames that are finished: [n, h, w, 3]."""

    pixels: UInt8[np.ndarray, "n h w 3"]


def watch(
    stream: Callable[[Callable[..., None]], Iterator[UInt8[np.ndarray, "n h w 3"]]],
    stop: Event,
    *,
    pause: float = 0.0,
) -> Generator[SetDrawn | FramesMade, None, None]:
    """Yield each set and each frame of a generation as they are made.

    It runs in a thread of its own, which is over when this is, left early or not.

    Args:
        stream: of a pipeline and one text, given its `callback_on_step_end`.
        stop: this generation's own; once it is set, the set at work is the last. Set when this is
            left.
        pause: seconds to wait after each set.

    Raises:
        Exception: what the generation raises, at the place where it comes.
    """
    seen: SimpleQueue[SetDrawn | FramesMade | Exception | None] = SimpleQueue()

    def after_set(_pipe: Any, _done: int, _frame: int, kept: dict[str, Any]) -> None:
        now: Progress = kept["progress"]
        tokens, current = now.tokens[0].float().cpu(), now.current[0].cpu()
        seen.put(SetDrawn(now.frame, now.frames, now.set, now.sets, tokens, current))
        if stop.wait(pause):
            raise Cancelled

    def work() -> None:
        try:
            for pixels in stream(after_set):
                seen.put(FramesMade(pixels))
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
