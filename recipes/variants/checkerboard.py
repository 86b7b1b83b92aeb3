"""Checkerboard: `Masked`, but every second cell first, slowly; then the cells between, at once.

A cell of the second half has all its four neighbours to look at. Source: GtR (Yan et al. 2025,
arXiv 2510.17171), which generates slowly the one half and reconstructs the other fast.
"""

from functools import partial

from contar.ordering import checkerboard_order, set_sizes
from recipes.variants.canvas import Canvas, Head
from recipes.variants.masked import Masked


def build(canvas: Canvas, head: Head) -> Masked:
    """Return the model: 6 sets for the one half, 2 for the other; `Masked` has at most 8."""
    first = (canvas.tokens + 1) // 2
    halves = ((first, 6), (canvas.tokens - first, 2))
    sizes = tuple(size for half in halves for size in set_sizes(*half, curve="uniform"))
    order = partial(checkerboard_order, columns=canvas.grid[1])
    return Masked(canvas, head, order=order, sizes=sizes)
