"""What a variant fills: a grid of tokens, for a class; and the heads that may draw them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from contar.heads import (
    DiffusionHead,
    DiffusionMLP,
    EnergyHead,
    MeanFlowHead,
    MixtureHead,
    TokenHead,
)

DDPM = {
    "_class_name": "DDPMScheduler",
    "beta_schedule": "linear",
    "timestep_spacing": "leading",
    "clip_sample": False,
}
# Of hidden tokens: least, and deviation of the normal distribution with mean 1 that is cut there.
SHARES = (0.05, 0.4)
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}


@dataclass(frozen=True)
class Canvas:
    """A grid of tokens and the classes that it may show.

    Args:
        grid: (rows, columns) of tokens.
        values: of a token.
        classes: how many there are; the number itself stands for none.
    """

    grid: tuple[int, int]
    values: int
    classes: int

    @property
    def tokens(self) -> int:
        """How many tokens the grid has."""
        return self.grid[0] * self.grid[1]


Head = Callable[[int, int], TokenHead]


def _diffusion(scheduler: dict[str, Any], steps: int) -> Head:
    def make(values: int, width: int) -> TokenHead:
        network = DiffusionMLP(values, width, width=192, depth=3)
        return DiffusionHead(network, scheduler, steps=steps)

    return make


# From (values, width of the condition) to a head.
HEADS: dict[str, Head] = {
    "ddpm": _diffusion(DDPM, 50),
    "flow": _diffusion(FLOW, 25),
    "mixture": lambda values, width: MixtureHead(values, width, components=24, width=512),
    "energy": lambda values, width: EnergyHead(values, width, width=192, depth=4),
    "mean-flow": lambda values, width: MeanFlowHead(values, width, width=192, depth=3, steps=2),
}
