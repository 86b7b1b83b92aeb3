"""The frame loop: frames one after the other, the first ones given if there are any."""

from collections.abc import Callable, Iterator
from typing import TypeVar

from contar._errors import bad, check_callable, check_size, check_tensor
from contar._typing import Float, Tensor

Condition = TypeVar("Condition")
State = TypeVar("State")


def generate_frames(
    observe: Callable[[int, Tensor | None, State], tuple[Condition, State]],
    draw: Callable[[int, Condition], Float[Tensor, "b c h w"]],
    frames: int,
    *,
    state: State,
    context: Float[Tensor, "b c n h w"] | None = None,
) -> Iterator[Float[Tensor, "b c h w"]]:
    """Yield frames as they are finished.

    Args:
        observe: from (number of the frame, the frame before it or None, state) to the condition of
            the frame and the next state. It is called for given frames too.
        draw: from the number of the frame and its condition to the frame.
        frames: to yield in all.
        state: what `observe` carries from frame to frame.
        context: [b, c, n, h, w], given first frames, yielded as they are: none is text to video,
            one image to video, n continuation.

    Raises:
        ValueError: `frames` below 1, more context than frames or no [b, c, n, h, w], or functions
            that cannot be called.
    """
    check_callable("observe", observe)
    check_callable("draw", draw)
    if context is not None:
        check_tensor("context", context, [None] * 5, "[b, c, n, h, w]")
    given = 0 if context is None else context.shape[2]
    if given > check_size("frames", frames):
        raise bad("context", f"{given} frames", f"at most the {frames} that are asked for")
    return _loop(observe, draw, frames, state, context)


def _loop(
    observe: Callable[[int, Tensor | None, State], tuple[Condition, State]],
    draw: Callable[[int, Condition], Tensor],
    frames: int,
    state: State,
    context: Tensor | None,
) -> Iterator[Tensor]:
    previous = None
    for t in range(frames):
        condition, state = observe(t, previous, state)
        if context is not None and t < context.shape[2]:
            previous = context[:, :, t]
        else:
            previous = draw(t, condition)
        yield previous.clone()  # the caller may change what it gets
