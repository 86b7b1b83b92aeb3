"""Filling in a frame's tokens."""

from contar._errors import bad
from contar._typing import Float, Int, Tensor


def fill(
    tokens: Float[Tensor, "b n c"], ids: Int[Tensor, "b m"], drawn: Float[Tensor, "b m c"]
) -> Float[Tensor, "b n c"]:
    """Return the tokens with those of `ids` replaced by what a head has drawn.

    Raises:
        ValueError: `drawn` of another shape.
    """
    if drawn.shape != (*ids.shape, tokens.shape[2]):
        raise bad("drawn", tuple(drawn.shape), f"[b, m, c] = {(*ids.shape, tokens.shape[2])}")
    return tokens.scatter(1, ids[..., None].expand_as(drawn), drawn.to(tokens.dtype))
