"""A flow map as a token head: jumps between two times of a flow, learned from itself."""

from typing import Any, Unpack

import torch
from torch import nn
from torch.func import functional_call

from contar._errors import bad, check_instance, check_number, check_size, check_tensor
from contar._layers import in_single, weight_of
from contar._random import normal, uniform
from contar._typing import Float, Tensor
from contar.diffusion import TimeLaw, check_law, draw_times
from contar.heads._few_steps import FewStepHead, with_slope
from contar.heads.diffusion_mlp import NetworkOptions
from contar.heads.protocol import check_loss


class FlowMapHead(FewStepHead):
    """A network of the jumps of a flow: where a state at time s will be at time t.

    Times run from 0, the noise, to 1, the token, as in the paper; other heads count the other way.
    With x_t = (1 - t) noise + t token and the jump X_st(x) = x + (t - s) v_st(x) it learns

        v_tt(x_t) = token - noise        and        d/dt X_st(x_s) = v_tt(X_st(x_s))

    the flow itself and, from it, its jumps. Take it where a token is wanted in 1 to 4 passes, or
    where a flow is to be distilled. Temperature multiplies the noise that it starts from (that of
    Pocket TTS is the noise's variance, so this one squared). Guidance combines velocities, which
    is a flow's guidance in the limit of many steps.

    Source: Lagrangian self-distillation (Boffi et al. 2025, arXiv 2505.18825); the shares, the law
    of times, the weighting and the gradient through the target's input are those of Pocket TTS.
    There all draws of a step learn jumps or none do.

    Args:
        steps: of a draw.
        share: of the draws that learn jumps, at four times the cost of the others; their loss is
            divided by it.
        diagonal: weight of the flow's own loss; that of the jumps is 1 - diagonal.
        draws: law of the times, as in `draw_times`.
        logit: mean and deviation of a logit-normal law.
        weighting: width of the MLP that learns the logarithm w(s, t) of a loss's weight: a loss l
            becomes l exp(w) - w, which is least where exp(-w) is its mean; 0 leaves it as it is.
            It begins as 0 in all its layers, as in Pocket TTS, so that only the last bias learns:
            one weight for all.
        through_target: whether a jump also learns to end where the flow's velocity suits it (the
            paper's target is a constant).
        time_scale: factor of the times that the network is given.

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
        share: float = 0.25,
        diagonal: float = 0.75,
        draws: TimeLaw = "logit_normal",
        logit: tuple[float, float] = (0.4, 1.0),
        weighting: int = 32,
        through_target: bool = True,
        time_scale: float = 1.0,
        **network: Unpack[NetworkOptions],
    ) -> None:
        sizes: Any = {"width": width, "depth": depth, "fused": False, **network}
        super().__init__(token_dim, cond_dim, steps, time_scale, **sizes)
        self.end = self.second_time()
        self.share = check_number("share", share, 0, 1)
        self.diagonal = check_number("diagonal", diagonal, 0, 1)
        check_law(draws, logit, "draws")
        self.draws: TimeLaw = draws
        self.logit = logit
        check_instance("through_target", through_target, bool)
        self.through_target = through_target
        self.weighting = _weighting(weighting) if check_size("weighting", weighting, 0) else None

    def forward(
        self,
        x: Float[Tensor, "*m c"],
        start: Float[Tensor, "*m2"],
        end: Float[Tensor, "*m2"],
        condition: Float[Tensor, "*m d"],
    ) -> Float[Tensor, "*m c"]:
        """Return v_st(x) for times s and t and projected conditions (`self.network.condition(z)`).

        It is in float32, or in float64 where the weights are.
        """
        net, scale = self.network, self.time_scale
        time = (net.time(scale * start) + self.end(scale * end)) / 2
        return in_single(net.predict(x, net.modulations(condition, time)))

    def mean_velocity(self, x: Tensor, start: float, end: float, condition: Tensor) -> Tensor:
        """Return -v of the same way, whose times run from 0 to 1, in float32."""
        times = (x.new_full((1,), 1 - time) for time in (start, end))
        return -self(x, *times, condition).float()

    def loss(
        self,
        target: Float[Tensor, "m c"],
        cond: Float[Tensor, "m d"],
        *,
        repeats: int = 1,
        generator: torch.Generator | None = None,
        noise: Float[Tensor, "r m c"] | None = None,
        times: Float[Tensor, "3 r m"] | None = None,
    ) -> Float[Tensor, "r m"]:
        """Return the weighted losses of the flow and of its jumps; arguments as in `TokenHead`.

        Args:
            target: as in `TokenHead`, as is what follows.
            cond: likewise.
            repeats: likewise.
            generator: draws the noise, then the times, then which draws learn jumps.
            noise: [repeats, m, token_dim], instead of a draw.
            times: [3, repeats, m] in [0, 1], instead of a draw: that of the flow's own loss, then
                the two of a jump, in any order.

        Raises:
            ValueError: what does not fit.
        """
        weight = weight_of(self.network.token)
        draws = check_loss(self, target, cond, repeats, generator, like=weight)
        shape, device = (repeats, len(target)), target.device
        if noise is None:
            noise = normal(*shape, self.token_dim, generator=draws, device=device)
        check_tensor("noise", noise, (*shape, self.token_dim), "[repeats, m, token_dim]")
        if times is None:
            times = draw_times(
                3, *shape, law=self.draws, logit=self.logit, generator=draws, device=device
            )
        else:
            check_tensor("times", times, (3, *shape), "[3, repeats, m]")
            _check_times(times)
        token = in_single(target).expand(*shape, -1)
        noise, times = noise.to(token.dtype), times.to(token.dtype)
        condition = self.network.condition(cond).expand(*shape, -1)
        loss = self.diagonal * self._flow_loss(token, noise, times[0], condition)
        if self.share == 0 or self.diagonal == 1:
            return loss
        chosen = uniform(*shape, generator=draws, device=device) < self.share
        start, end = times[1:].amin(0), times[1:].amax(0)
        jumping = (x[chosen] for x in (token, noise, start, end, condition))
        factor = (1 - self.diagonal) / self.share
        return loss.masked_scatter(chosen, loss[chosen] + factor * self._jump_loss(*jumping))

    def _flow_loss(self, token: Tensor, noise: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        x = noise + time[..., None] * (token - noise)
        velocity = self(x, time, time, condition)
        return self._weighted((velocity - (token - noise)).square().mean(-1), time, time)

    def _jump_loss(
        self, token: Tensor, noise: Tensor, start: Tensor, end: Tensor, condition: Tensor
    ) -> Tensor:
        x, span = noise + start[..., None] * (token - noise), (end - start)[..., None]
        velocity, slope = with_slope(
            lambda end: self(x, start, end, condition), (end,), (torch.ones_like(end),)
        )
        moved = velocity + span * slope  # d/dt of the jump's end
        reached = x + span * velocity
        constant = {name: weight.detach() for name, weight in self.named_parameters()}
        inputs = (reached if self.through_target else reached.detach(), end, end)
        goal = functional_call(self, constant, (*inputs, condition.detach()))
        return self._weighted((moved - goal).square().mean(-1), start, end)

    def _weighted(self, loss: Tensor, start: Tensor, end: Tensor) -> Tensor:
        if self.weighting is None:
            return loss
        pair = torch.stack([start, end], dim=-1).to(weight_of(self.weighting[0]).dtype)
        log_weight = in_single(self.weighting(pair).squeeze(-1))
        return loss * log_weight.exp() - log_weight


def _weighting(width: int) -> nn.Sequential:
    """Return an MLP from two times to a logarithm, all of it 0."""
    layers = [layer for i in range(3) for layer in (nn.Linear(width if i else 2, width), nn.ReLU())]
    weighting = nn.Sequential(*layers, nn.Linear(width, 1))
    for parameter in weighting.parameters():
        nn.init.zeros_(parameter)
    return weighting


def _check_times(times: Tensor) -> None:
    """Raise a ValueError for times outside [0, 1]; those of a GPU, which would wait, are kept."""
    if times.device.type != "cpu" or torch.compiler.is_compiling() or not times.numel():
        return
    low, high = (float(bound) for bound in times.aminmax())  # both NaN where one is
    if not 0 <= low <= high <= 1:
        raise bad("times", f"numbers from {low} to {high}", "numbers in [0, 1]")
