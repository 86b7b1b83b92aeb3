"""Long clips and large frames in tiles, for memory."""

from collections.abc import Callable

import torch

from contar._typing import Float, Tensor


def tiles(length: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Cut a range into tiles of `size` that overlap; a shorter last one makes up the rest.

    Example:
        >>> tiles(25, 17, 1)
        [(0, 17), (16, 25)]
    """
    starts = range(0, max(1, length - overlap), size - overlap)
    return [(start, min(start + size, length)) for start in starts]


def tiled(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "b c t h w"], size: int, factor: float
) -> Float[Tensor, "b c2 t2 h2 w2"]:
    """Apply a function to overlapping tiles of each frame and blend what they make.

    Neighbours overlap by a quarter of their side, over which their weights rise and fall linearly.

    Args:
        function: from a tile to its result, of `factor` times its side.
        x: frames; all of the clip's frames go along with each tile.
        size: side of a tile, in pixels of `x`; a quarter of it times `factor` is whole.
        factor: side of a result over the side of its tile.
    """
    height, width = x.shape[-2:]
    overlap = size // 4
    edge, total, weight = round(overlap * factor), None, None
    for top, bottom in tiles(height, size, overlap):
        for left, right in tiles(width, size, overlap):
            out = function(x[..., top:bottom, left:right])
            if total is None or weight is None:
                shape = (*out.shape[:-2], round(height * factor), round(width * factor))
                total, weight = out.new_zeros(shape), out.new_zeros(shape[-2:])
            rows = _ramp(out.shape[-2], edge, first=top == 0, last=bottom == height, like=out)
            columns = _ramp(out.shape[-1], edge, first=left == 0, last=right == width, like=out)
            share = rows[:, None] * columns
            y, x_ = round(top * factor), round(left * factor)
            place = (..., slice(y, y + out.shape[-2]), slice(x_, x_ + out.shape[-1]))
            total[place] += out * share
            weight[place] += share
    return total / weight  # type: ignore[operator]


def _ramp(length: int, edge: int, *, first: bool, last: bool, like: Tensor) -> Tensor:
    """Return weights that rise over the edge that a neighbour shares, and fall over the other."""
    steps = torch.arange(length, device=like.device, dtype=torch.float32)
    rise = torch.ones_like(steps) if first else ((steps + 0.5) / max(edge, 1)).clamp(max=1)
    fall = torch.ones_like(steps) if last else ((length - steps - 0.5) / max(edge, 1)).clamp(max=1)
    return (rise * fall).to(like.dtype)
