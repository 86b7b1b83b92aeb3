"""MeanFlow as a token head: a flow's mean velocity, for draws in 1 to 4 steps."""

from typing import Any, Unpack

import torch

from contar._errors import check_number
from contar._layers import weight_of
from contar._random import normal, uniform
from contar._typing import Float, Tensor
from contar.heads._few_steps import FewStepHead, with_slope
from contar.heads.diffusion_mlp import NetworkOptions
from contar.heads.protocol import check_loss


class MeanFlowHead(FewStepHead):
    """A network of the mean velocity u(x_t, r, t) between two times of a flow.

    With x_t = (1 - t) x + t noise and v = noise - x, it learns

        u = v - (t - r) d/dt u(x_t, r, t),      x_r = x_t - (t - r) u(x_t, r, t)

    so that one step goes from noise to token. Along the path x_t moves with the network's own
    velocity u(x_t, t, t): in the mean over all tokens that is noise - x, of which a single one
    would only add its chance to what is learned. Take it where a flow's quality is wanted in a few
    steps, for a training step of about twice the cost. Temperature multiplies the noise that it
    starts from. Guidance combines mean velocities, which is a flow's guidance in the limit of many
    steps; the paper trains guidance in instead.

    Source: Geng et al. 2025, arXiv 2505.13447, algorithms 1 and 2; table 1 for the shares. The own
    velocity: Geng et al. 2025, arXiv 2512.02012.

    Args:
        steps: of a draw.
        spans: share of training samples with r < t; the others learn v.
        uniform: share of the pairs of times that are drawn evenly (the paper's is 0); the others
            are the sigmoid of a normal number of mean -0.4 and deviation 1.
        power: of the weight 1 / (mean squared error + 0.001)^power; 0 learns the density. What the
            paper's 1 does to tokens: docs/heads.md.
        time_scale: factor of the times that the network is given, along which a slope is learned,
            so that their embedding has to be smooth.

    Raises:
        ValueError: a number outside its range.
    """

    def __init__(
        self,
        token_dim: int,
        cond_dim: int,
        *,
        width: int,
        depth: int,
        steps: int = 1,
        spans: float = 0.25,
        uniform: float = 0.5,
        power: float = 0.0,
        time_scale: float = 1.0,
        **network: Unpack[NetworkOptions],
    ) -> None:
        sizes: Any = {"width": width, "depth": depth, **network}
        super().__init__(token_dim, cond_dim, steps, time_scale, **sizes)
        self.span = self.second_time()
        self.spans = check_number("spans", spans, 0, 1)
        self.uniform = check_number("uniform", uniform, 0, 1)
        self.power = check_number("power", power, 0)

    def velocity(
        self,
        x: Float[Tensor, "*m c"],
        r: Float[Tensor, "*m2"],
        t: Float[Tensor, "*m2"],
        condition: Float[Tensor, "*m d"],
    ) -> Float[Tensor, "*m c"]:
        """Return u(x, r, t) in float32, for projected conditions (`self.network.condition(z)`)."""
        scale = self.time_scale
        return self.network(x, scale * t, condition + self.span(scale * (t - r)))

    def mean_velocity(self, x: Tensor, start: float, end: float, condition: Tensor) -> Tensor:
        """Return u(x, end, start, condition)."""
        rows = len(x) if x.ndim == 2 else 1  # a time each where a density is computed
        t, r = (x.new_full((rows,), time) for time in (start, end))
        return self.velocity(x, r, t, condition)

    def loss(
        self,
        target: Float[Tensor, "m c"],
        cond: Float[Tensor, "m d"],
        *,
        repeats: int = 1,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "r m"]:
        """Return the weighted squared error of u; arguments and errors as in `TokenHead`."""
        weight = weight_of(self.network.token)
        draws = check_loss(self, target, cond, repeats, generator, like=weight)
        shape, device = (repeats, len(target)), target.device
        options: Any = {"generator": draws, "device": device}
        noise = normal(*shape, self.token_dim, **options)
        times = (normal(2, *shape, **options) - 0.4).sigmoid()
        if self.uniform:
            evenly = uniform(1, *shape, **options) < self.uniform
            times = torch.where(evenly, uniform(2, *shape, **options), times)
        t, r = times.amax(0), times.amin(0)
        spanned = uniform(*shape, **options) < self.spans
        r = torch.where(spanned, r, t)
        clean = target.float().expand(*shape, -1)
        velocity = noise - clean
        noisy = clean + t[..., None] * velocity
        condition = self.network.condition(cond).expand(*shape, -1)
        slope = torch.zeros_like(velocity)  # where r is t it counts for nothing
        slope[spanned] = self._slope(*(y[spanned] for y in (noisy, r, t, condition)))
        goal = velocity - (t - r)[..., None] * slope
        error = (self.velocity(noisy, r, t, condition) - goal).square().mean(-1)
        return error / (error.detach() + 1e-3) ** self.power

    @torch.no_grad()
    def _slope(self, x: Tensor, r: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """Return d/dt u(x, r, t) where x moves with the network's velocity."""
        along = (self.velocity(x, t, t, condition), torch.ones_like(t))
        return with_slope(lambda x, t: self.velocity(x, r, t, condition), (x, t), along)[1]
