"""What the heads of few steps share: two times of a flow, and equal steps between them."""

import warnings
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.func import jvp

from contar._errors import DEEPEST, check_number, check_size
from contar._layers import weight_of
from contar._random import Generators
from contar._typing import Float, Tensor
from contar.conditioning import Guidance, ScalarEmbedding
from contar.heads._likelihood import flow_log_density
from contar.heads.diffusion_mlp import DiffusionMLP
from contar.heads.protocol import Noise, TokenHead, check_plain, check_sample


class FewStepHead(nn.Module, TokenHead):
    """A `DiffusionMLP` of the mean velocity of a flow between two times.

    Args:
        steps: of a draw.
        time_scale: factor of the times that the network is given.
    """

    def __init__(
        self, token_dim: int, cond_dim: int, steps: int, time_scale: float, **network: Any
    ) -> None:
        super().__init__()
        self.network = DiffusionMLP(token_dim, cond_dim, **network)
        self.token_dim, self.cond_dim = token_dim, cond_dim
        self.steps = check_size("steps", steps, 1, DEEPEST)
        self.time_scale = check_number("time_scale", time_scale, 1e-6)

    def second_time(self) -> ScalarEmbedding:
        """Return an embedding like that of the network's own time."""
        own = self.network.time
        options: Any = {"bias": own.fc1.bias is not None, "norm": own.norm}
        return ScalarEmbedding(own.fc1.out_features, cosine_first=True, **options)

    @abstractmethod
    def mean_velocity(self, x: Tensor, start: float, end: float, condition: Tensor) -> Tensor:
        """Return noise - token in the mean over the way from x, unchecked.

        Args:
            x: [..., token_dim], at the time `start`.
            start: from 1, which is the noise, to 0, the token.
            end: likewise.
            condition: projected.
        """

    def sample(
        self,
        cond: Float[Tensor, "b n d"],
        *,
        uncond: Float[Tensor, "b n d"] | None = None,
        guidance: Guidance | None = None,
        temperature: float = 1.0,
        noise: Noise | Generators | None = None,
        steps: int | None = None,
    ) -> Float[Tensor, "b n c"]:
        """Draw in equal steps; arguments as in `TokenHead`.

        Raises:
            ValueError: what does not fit, or a guidance with truncation, ceiling or over the frame.
        """
        like = weight_of(self.network.token)
        guidance, uncond, source = check_sample(self, cond, uncond, guidance, noise, like=like)
        self.check_sample(guidance, temperature, steps)
        count = self.steps if steps is None else steps
        passes = 1 + (uncond is not None)
        condition = self.network.condition(cond if uncond is None else torch.cat([cond, uncond]))
        x = temperature * source.normal(*cond.shape[:2], self.token_dim)
        for step in range(count, 0, -1):
            times = (step / count, (step - 1) / count)
            velocity = self.mean_velocity(x.repeat(passes, 1, 1), *times, condition)
            x = x - (guidance.combine(*velocity.chunk(2)) if passes > 1 else velocity) / count
        return x

    def log_density(
        self,
        x: Float[Tensor, "*m c"],
        cond: Float[Tensor, "*m d"],
        *,
        steps: int = 32,
        probes: int = 0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*m"]:
        """Return log p(x | condition) under the flow itself, in nats; as `DiffusionHead` has it.

        What is drawn in few steps is distributed so only as far as the steps are the flow's.

        Raises:
            ValueError: what does not fit.
        """
        return flow_log_density(
            self, x, cond,
            lambda x, cond, t: self.mean_velocity(x, t, t, self.network.condition(cond)),
            like=weight_of(self.network.token), steps=steps, probes=probes, generator=generator,
        )  # fmt: skip

    def check_sample(self, guidance: Guidance, temperature: float, steps: int | None) -> None:
        """Raise a ValueError unless `sample` takes these."""
        check_plain(guidance, temperature)
        if steps is not None:
            check_size("steps", steps, 1, DEEPEST)


def with_slope(
    function: Callable[..., Tensor], inputs: tuple[Tensor, ...], along: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Return a function's value, and its derivative where the inputs move `along`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch's own use of torch.jit
        return jvp(function, inputs, along)  # type: ignore[return-value]
