"""What a variant fills: a grid of tokens, for a class; and the heads that may draw them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from contar.heads import TokenHead, make_head

# All of them: width and blocks of their towers, heads of attention, class tokens, and the share of
# labels that training leaves out, for guidance.
WIDTH, DEPTH, ATTENTION, PREFIX, DROP = 128, 6, 4, 4, 0.1


@dataclass(frozen=True)
class Canvas:
    """A grid of tokens and the classes that it may show.

    Args:
        grid: (rows, columns) of tokens.
        token_dim: of a token.
        classes: how many there are; the number itself stands for none.
    """

    grid: tuple[int, int]
    token_dim: int
    classes: int

    @property
    def tokens(self) -> int:
        """How many tokens the grid has."""
        return self.grid[0] * self.grid[1]


Head = Callable[[int, int], TokenHead]

# From (values, width of the condition) to a head.
HEADS: dict[str, Head] = {
    name: partial(make_head, sizes)
    for name, sizes in {
        "ddpm": {"name": "diffusion", "width": 192, "depth": 3},
        "flow": {"name": "flow", "width": 192, "depth": 3},
        "mixture": {"name": "mixture", "components": 24, "width": 512},
        "energy": {"name": "energy", "width": 192, "depth": 4},
        "mean-flow": {"name": "mean_flow", "width": 192, "depth": 3, "steps": 2},
        "flow-map": {"name": "flow_map", "width": 192, "depth": 3, "steps": 2},
    }.items()
}
