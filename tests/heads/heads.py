"""One small head of each kind, for laws that all of them keep."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from contar.heads import (
    DiffusionHead,
    DiffusionMLP,
    EnergyHead,
    FlowMapHead,
    MeanFlowHead,
    MixtureHead,
    Noise,
)

DDPM = {"_class_name": "DDPMScheduler", "beta_schedule": "linear", "clip_sample": False,
        "timestep_spacing": "leading"}  # fmt: skip
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}


def _diffusion(c: int, d: int, scheduler: dict, steps: int, **sizes: int) -> nn.Module:
    return DiffusionHead(DiffusionMLP(c, d, **sizes), scheduler, steps=steps)  # type: ignore[arg-type]


HEADS: dict[str, Callable[..., nn.Module]] = {
    "ddpm": lambda c, d, **s: _diffusion(c, d, DDPM, 50, **s),
    "flow": lambda c, d, **s: _diffusion(c, d, FLOW, 25, **s),
    "mixture": lambda c, d, width, depth: MixtureHead(c, d, components=8, width=width),
    "energy": lambda c, d, **s: EnergyHead(c, d, noise=32, **s),
    "mean_flow": lambda c, d, **s: MeanFlowHead(c, d, steps=4, **s),
    "flow_map": lambda c, d, **s: FlowMapHead(
        c, d, steps=4, draws="uniform", time_scale=3.0, prenorm=True, projection="linear", **s
    ),
}


def make(kind: str, values: int, cond: int, *, seed: int = 0, **sizes: int) -> Any:
    """Return a head with random weights, the global random state untouched."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return HEADS[kind](values, cond, **{"width": 16, "depth": 2, **sizes})


class Given(Noise):
    """A source of what is given, in order, whatever shapes are asked for."""

    def __init__(self, *drawn: torch.Tensor) -> None:
        self.drawn = iter(drawn)

    def normal(self, *shape: int) -> torch.Tensor:
        return next(self.drawn)

    def uniform(self, *shape: int) -> torch.Tensor:
        return next(self.drawn)
