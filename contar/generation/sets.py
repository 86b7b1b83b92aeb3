"""The set loop: one frame's tokens, set by set."""

from collections.abc import Callable, Iterator

from contar._errors import check_callable, check_instance, check_shape, check_tensor
from contar._typing import Float, Int, Tensor
from contar.ordering import SetSchedule, SetStep

Predict = Callable[[Float[Tensor, "b n c"], SetStep], Float[Tensor, "b2 m d"]]
Draw = Callable[[Float[Tensor, "b2 m d"], SetStep], Float[Tensor, "b m c"]]


def generate_sets(
    predict: Predict, draw: Draw, schedule: SetSchedule, tokens: Float[Tensor, "b n c"]
) -> Iterator[tuple[SetStep, Float[Tensor, "b n c"]]]:
    """Fill in a frame's tokens, yielding it after each set.

    Args:
        predict: from the tokens so far and the set to the conditions of its positions.
        draw: from those conditions and the set to its tokens.
        schedule: the sets.
        tokens: [b, n, c], to start from; it is left as it is.

    Yields:
        The set and the tokens with it filled in; the last are complete.

    Raises:
        ValueError: a schedule of another number of samples or tokens, functions that cannot be
            called, or, in the loop, a `draw` that returns other shapes.
    """
    check_callable("predict", predict)
    check_callable("draw", draw)
    check_instance("schedule", schedule, SetSchedule)
    check_tensor("tokens", tokens, (*schedule.order.shape, None), "[b, n, c]")
    return _loop(predict, draw, schedule, tokens)


def _loop(
    predict: Predict, draw: Draw, schedule: SetSchedule, tokens: Tensor
) -> Iterator[tuple[SetStep, Tensor]]:
    for step in schedule:
        tokens = fill(tokens, step.current, draw(predict(tokens, step), step))
        yield step, tokens.clone()  # the caller may change what it gets


def fill(
    tokens: Float[Tensor, "b n c"], ids: Int[Tensor, "b m"], drawn: Float[Tensor, "b m c"]
) -> Float[Tensor, "b n c"]:
    """Return the tokens with those of `ids` replaced by what a head has drawn.

    Raises:
        ValueError: `drawn` of another shape.
    """
    check_shape("drawn", drawn.shape, (*ids.shape, tokens.shape[2]), "[b, m, c]")
    return tokens.scatter(1, ids[..., None].expand_as(drawn), drawn.to(tokens.dtype))
