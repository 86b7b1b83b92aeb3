"""A mixture of Gaussians as a token head: a density in closed form."""

import math

import torch
from torch import nn
from torch.nn import functional

from contar._errors import check_number, check_size, check_tensor
from contar._layers import Mlp
from contar._random import Generators
from contar._typing import Float, Tensor
from contar.conditioning import Guidance
from contar.heads.protocol import Noise, check_loss, check_one_pass, check_plain, check_sample


class MixtureHead(nn.Module):
    """Gaussians with diagonal covariances, their weights, means and deviations from the condition.

    Take it where a likelihood is wanted, or a draw in one cheap pass, and the values of a token
    are few or nearly independent given the component. Temperature multiplies the deviations.
    Guidance draws from p(x|z) (p(x|z) / p(x))^(scale - 1): of `candidates` drawn from p(x|z) one is
    taken with that ratio as weight, which at temperature 1 is exact as their number grows.

    Source: GIVT (Tschannen et al. 2023, arXiv 2312.02116), whose guidance draws by rejection.

    Args:
        components: Gaussians.
        width: of the network; 0 is one linear layer, as in GIVT.
        least: deviation that a component has at least: about the step between values that have
            few, whose likelihood would grow without end (docs/heads.md).
        candidates: of a guided draw.

    Raises:
        ValueError: a number outside its range.
    """

    def __init__(
        self,
        token_dim: int,
        cond_dim: int,
        *,
        components: int = 16,
        width: int = 0,
        least: float = 0.05,
        candidates: int = 64,
    ) -> None:
        super().__init__()
        self.token_dim = check_size("token_dim", token_dim)
        self.cond_dim = check_size("cond_dim", cond_dim)
        self.components = check_size("components", components)
        self.least = check_number("least", least, 1e-9)
        self.candidates = check_size("candidates", candidates)
        outputs = components * (1 + 2 * token_dim)
        self.net = (
            Mlp(cond_dim, width, outputs)
            if check_size("width", width, 0)
            else nn.Linear(cond_dim, outputs)
        )
        self.means = nn.Parameter(torch.randn(components, token_dim))  # or all would learn the same

    def parameters_of(
        self, cond: Float[Tensor, "*m d"]
    ) -> tuple[Float[Tensor, "*m k"], Float[Tensor, "*m k c"], Float[Tensor, "*m k c"]]:
        """Return log-weights, means and deviations of the components, in float32."""
        out = self.net(cond).float().unflatten(-1, (self.components, -1))
        logits, means, raw = out.split([1, self.token_dim, self.token_dim], dim=-1)
        deviations = functional.softplus(raw) + self.least
        return logits.squeeze(-1).log_softmax(-1), means + self.means.float(), deviations

    def log_density(
        self, x: Float[Tensor, "*m c"], cond: Float[Tensor, "*m d"]
    ) -> Float[Tensor, "*m"]:
        """Return log p(x | condition), in nats.

        Args:
            x: [..., token_dim].
            cond: [..., cond_dim].

        Raises:
            ValueError: what does not fit.
        """
        check_tensor("x", x, (..., self.token_dim), "[..., token_dim]")
        shape = (*x.shape[:-1], self.cond_dim)
        check_tensor("cond", cond, shape, "[..., cond_dim]", like=self.means)
        return _log_density(x, *self.parameters_of(cond))

    def loss(
        self,
        target: Float[Tensor, "m c"],
        cond: Float[Tensor, "m d"],
        *,
        repeats: int = 1,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "r m"]:
        """Return -log p(target | condition) / token_dim, in one row; all else as in `TokenHead`."""
        check_loss(self, target, cond, repeats, generator, like=self.means)
        return -self.log_density(target.float(), cond)[None] / self.token_dim

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
        """Draw a component, then the token; arguments as in `TokenHead`.

        Raises:
            ValueError: what does not fit, or a guidance with truncation, ceiling or
                renormalisation.
        """
        guidance, uncond, source = check_sample(
            self, cond, uncond, guidance, noise, like=self.means
        )
        self.check_sample(guidance, temperature, steps)
        batch, count, _ = cond.shape
        shape = (batch, count, 1 if uncond is None else self.candidates)

        def gumbel(*sizes: int) -> Tensor:  # the largest of log-weights plus these is a draw
            drawn = source.uniform(*sizes)
            return -(-drawn.clamp_min(1e-30).log()).log()

        mixture = self.parameters_of(cond)
        weights, means, deviations = mixture
        chosen = (weights[:, :, None] + gumbel(*shape, self.components)).argmax(-1)
        ids = chosen[..., None].expand(-1, -1, -1, self.token_dim)
        eps = source.normal(*shape, self.token_dim)
        x = means.gather(2, ids) + temperature * deviations.gather(2, ids) * eps
        if uncond is None:
            return x[:, :, 0]
        others = self.parameters_of(uncond)
        ratio, against = (_log_density(x, *(y[:, :, None] for y in p)) for p in (mixture, others))
        ratio = ratio - against
        best = ((guidance.scale - 1) * ratio + gumbel(*shape)).argmax(-1)
        return x.gather(2, best[..., None, None].expand(-1, -1, 1, self.token_dim))[:, :, 0]

    def check_sample(self, guidance: Guidance, temperature: float, steps: int | None) -> None:
        """Raise a ValueError unless `sample` takes these."""
        check_plain(guidance, temperature, renorm=False)
        check_one_pass(steps)


def _log_density(x: Tensor, weights: Tensor, means: Tensor, deviations: Tensor) -> Tensor:
    scaled = (x[..., None, :] - means) / deviations
    logs = -0.5 * scaled.square() - deviations.log() - 0.5 * math.log(2 * math.pi)
    return (weights + logs.sum(-1)).logsumexp(-1)
