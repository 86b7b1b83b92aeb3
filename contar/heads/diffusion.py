"""Diffusion and flow matching as a token head: a network with its noise and its solver."""

from typing import Any

import torch
from torch import nn

from contar._errors import check_instance, check_size
from contar._random import Generators
from contar._typing import Float, Tensor
from contar.conditioning import Guidance
from contar.diffusion import NoiseProcess, SamplerTable
from contar.heads.diffusion_mlp import DiffusionMLP
from contar.heads.protocol import check_loss


class DiffusionHead(nn.Module):
    """A `DiffusionMLP` that knows by which noise it learns and with which solver it draws.

    The scheduler's config decides what it is: `DDPMScheduler` for MAR's diffusion loss,
    `FlowMatchEulerDiscreteScheduler` for flow matching. Take it where quality counts more than
    time: it draws in tens of steps. Temperature multiplies the noise of stochastic solvers.

    Source: MAR (Li et al. 2024, arXiv 2406.11838, section 3.2); flow matching (Lipman et al. 2022,
    arXiv 2210.02747).

    Args:
        network: predicts what the noise process asks for.
        scheduler: config of a diffusers scheduler.
        steps: of the solver.

    Raises:
        ValueError: a scheduler that `NoiseProcess` or `SamplerTable` refuses, or whose variance
            is not of the network's kind.
    """

    def __init__(self, network: DiffusionMLP, scheduler: Any, *, steps: int = 25) -> None:
        super().__init__()
        check_instance("network", network, DiffusionMLP)
        check_size("steps", steps)
        self.network = network
        self.values, self.cond_width = network.values, network.cond_width
        self.process = NoiseProcess.from_config(scheduler)
        self.table = SamplerTable.from_config(scheduler, steps)
        network.check_process(self.process)
        network.check_solver(self.table, Guidance(), 1.0)

    def compile(self, **options: Any) -> None:
        """Compile the network, with options of `torch.compile`."""
        self.network.compile(**options)

    def loss(
        self,
        target: Float[Tensor, "m c"],
        cond: Float[Tensor, "m d"],
        *,
        repeats: int = 1,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "r m"]:
        """Return the squared error of the prediction; arguments as in `TokenHead`.

        Raises:
            ValueError: what does not fit.
        """
        check_loss(self, target, cond, repeats, generator, like=self.network.token.weight)
        options: Any = {"process": self.process, "repeats": repeats, "generator": generator}
        return self.network.loss(target, cond, **options)

    def sample(
        self,
        cond: Float[Tensor, "b n d"],
        *,
        uncond: Float[Tensor, "b n d"] | None = None,
        guidance: Guidance | None = None,
        temperature: float = 1.0,
        generator: Generators | None = None,
    ) -> Float[Tensor, "b n c"]:
        """Draw by the solver; arguments as in `TokenHead`.

        Raises:
            ValueError: as `DiffusionMLP.sample`.
        """
        return self.network.sample(
            cond,
            table=self.table,
            uncond=uncond,
            guidance=guidance,
            temperature=temperature,
            generator=generator,
        )
