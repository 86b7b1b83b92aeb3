"""The energy score as a token head: a token in one pass from noise, learned without a density."""

from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from contar._errors import DEEPEST, bad, check_choice, check_number, check_size
from contar._layers import Mlp, weight_of
from contar._random import Generators, uniform
from contar._typing import Float, Tensor
from contar.conditioning import AdaptiveLayerNorm, Guidance
from contar.heads.protocol import Noise, check_loss, check_one_pass, check_plain, check_sample


class EnergyHead(nn.Module):
    """An MLP from condition and noise to a token, under a strictly proper score.

        loss = |x1 - target|^a + |x2 - target|^a - |x1 - x2|^a      for two draws x1, x2

    whose mean is least where the draws are distributed as the targets (0 < a < 2). Take it where
    speed counts: a token costs one pass. Temperature multiplies the noise, or the shifts that the
    blocks make of it, as EAR's does. Guidance is EAR's: the condition itself moves away from the
    unconditional one.

    Source: EAR (Shao et al. 2025, arXiv 2505.07812); the energy score: Gneiting & Raftery 2007,
    section 4.3.

    Args:
        noise: values of the noise, uniform in [-1/2, 1/2).
        alpha: the exponent a.
        train_temperature: factor of |x1 - x2|^a in the loss: above 1 draws lie further apart than
            the targets, below 1 closer together (EAR, as released).
        tempered: what temperature multiplies, "noise" or "shifts".

    Raises:
        ValueError: a number outside its range, or a value that is not listed.
    """

    def __init__(
        self,
        token_dim: int,
        cond_dim: int,
        *,
        width: int,
        depth: int,
        noise: int = 64,
        alpha: float = 1.0,
        train_temperature: float = 1.0,
        tempered: Literal["noise", "shifts"] = "noise",
    ) -> None:
        super().__init__()
        self.token_dim = check_size("token_dim", token_dim)
        self.cond_dim = check_size("cond_dim", cond_dim)
        self.noise_values = check_size("noise", noise)
        check_size("width", width)
        if not 0 < check_number("alpha", alpha) < 2:
            raise bad("alpha", alpha, "between 0 and 2")
        self.alpha = alpha
        self.train_temperature = check_number("train_temperature", train_temperature, 0)
        check_choice("tempered", tempered, ("noise", "shifts"))
        self.tempered = tempered
        self.condition = nn.Linear(cond_dim, width)
        self.noise = nn.Linear(noise, width)
        self.norms = nn.ModuleList(
            AdaptiveLayerNorm(width, outputs=3)
            for _ in range(check_size("depth", depth, 1, DEEPEST))
        )
        self.mlps = nn.ModuleList(Mlp(width, width, act_layer=nn.SiLU) for _ in range(depth))
        self.norm = AdaptiveLayerNorm(width)
        self.out = nn.Linear(width, token_dim)

    def forward(
        self, cond: Float[Tensor, "*m d"], noise: Float[Tensor, "*m e"], temperature: float = 1.0
    ) -> Float[Tensor, "*m c"]:
        """Return tokens in float32 for conditions and their noise."""
        noise = noise.to(weight_of(self.noise).dtype)
        shifts = self.tempered == "shifts"
        x, drawn = self.condition(cond), self.noise(noise if shifts else temperature * noise)
        activated = functional.silu(drawn)
        layers: Any = zip(self.norms, self.mlps, strict=True)
        for norm, mlp in layers:
            factor, shift, gate = norm.vectors(activated)
            shift = temperature * shift if shifts else shift
            x = x + gate * mlp(norm.modulate(x, factor, shift))
        return self.out(self.norm(x, drawn)[0]).float()

    def loss(
        self,
        target: Float[Tensor, "m c"],
        cond: Float[Tensor, "m d"],
        *,
        repeats: int = 1,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "r m"]:
        """Return the score of `repeats` pairs of draws; arguments and errors as in `TokenHead`."""
        draws = check_loss(self, target, cond, repeats, generator, like=weight_of(self.out))
        shape = (2, repeats, len(target))
        noise = uniform(*shape, self.noise_values, generator=draws, device=target.device) - 0.5
        one, two = self(cond.expand(*shape, -1), noise)
        apart = self.train_temperature * self._far(one, two)
        return self._far(one, target) + self._far(two, target) - apart

    def _far(self, a: Tensor, b: Tensor) -> Tensor:
        squared = (a - b.float()).square().sum(-1)
        return (squared + 1e-12) ** (self.alpha / 2)  # the root has no slope at 0

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
        """Draw in one pass; arguments as in `TokenHead`.

        Raises:
            ValueError: what does not fit, or a guidance with truncation, ceiling or over the frame.
        """
        guidance, uncond, source = check_sample(
            self, cond, uncond, guidance, noise, like=weight_of(self.out)
        )
        self.check_sample(guidance, temperature, steps)
        if uncond is not None:
            cond = guidance.combine(cond, uncond)
        shape = (*cond.shape[:2], self.noise_values)
        return self(cond, source.uniform(*shape) - 0.5, temperature)

    def check_sample(self, guidance: Guidance, temperature: float, steps: int | None) -> None:
        """Raise a ValueError unless `sample` takes these."""
        check_plain(guidance, temperature)
        check_one_pass(steps)
