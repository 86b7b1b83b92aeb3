"""The density of tokens under a flow, by its differential equation."""

import math
from collections.abc import Callable
from typing import Any

import torch

from contar._errors import DEEPEST, check_instance, check_size, check_tensor
from contar._random import check_generator, integers
from contar._typing import Tensor
from contar.heads.protocol import TokenHead


def flow_log_density(
    head: TokenHead,
    x: Tensor,
    cond: Tensor,
    velocity: Callable[[Tensor, Tensor, float], Tensor],
    *,
    like: Tensor,
    steps: int,
    probes: int,
    generator: torch.Generator | None,
    first: float = 0.0,
) -> Tensor:
    """Return log p(x | cond) [...] in nats, for x [..., token_dim] and cond [..., cond_dim].

    log p(x_0) is that of the noise at the end of the path from x_0, and the divergence of the
    velocity along it (Chen et al. 2018, arXiv 1806.07366, eq. 8). Path and divergence are solved
    by steps of Runge and Kutta's fourth order.

    Args:
        head: whose tokens x are.
        x: tokens.
        cond: their conditions.
        velocity: dx/dt from (x, cond, t), both [m, ...], where t is 0 at tokens and 1 at noise.
        like: a weight of the head.
        steps: as in `DiffusionHead.log_density`, as is what follows; the estimate is Hutchinson's
            (Grathwohl et al. 2018, arXiv 1810.01367).
        probes: likewise.
        generator: likewise.
        first: t of the tokens.
    """
    check_tensor("x", x, (..., head.token_dim), "[..., token_dim]")
    shape = (*x.shape[:-1], head.cond_dim)
    check_tensor("cond", cond, shape, "[..., cond_dim]", like=like)
    check_size("steps", steps, 1, DEEPEST)
    check_size("probes", probes, 0)
    if generator is not None:
        check_instance("generator", generator, torch.Generator)
    with torch.inference_mode(False), torch.enable_grad():
        state = x.detach().clone().reshape(-1, head.token_dim).float()
        given = cond.detach().clone().reshape(-1, head.cond_dim)
        signs = torch.eye(head.token_dim, device=x.device)[:, None]
        if probes:
            draws = check_generator(generator, 1, x.device)
            drawn = integers(2, probes, *state.shape, generator=draws, device=x.device)  # type: ignore[arg-type]
            signs = 2.0 * drawn - 1

        def slopes(state: Tensor, t: float) -> tuple[Tensor, Tensor]:
            state = state.detach().requires_grad_()
            moved = velocity(state, given, t)
            along: Any = (
                (torch.autograd.grad((moved * e).sum(), state, retain_graph=True)[0] * e).sum(-1)
                for e in signs
            )
            return moved.detach(), torch.stack([*along]).sum(0) / max(1, probes)

        step, gained = (1 - first) / steps, torch.zeros(len(state), device=x.device)
        for i in range(steps):
            moved, diverged = _runge_kutta(slopes, state, first + i * step, step)
            state, gained = state + step * moved, gained + step * diverged
    noise = -0.5 * (state.square() + math.log(2 * math.pi)).sum(-1)
    return (noise + gained).reshape(x.shape[:-1])


def _runge_kutta(
    slopes: Callable[[Tensor, float], tuple[Tensor, Tensor]], state: Tensor, t: float, step: float
) -> list[Tensor]:
    """Return the mean slopes of a step from time t, of fourth order; the first is the state's."""
    ends: list[tuple[Tensor, Tensor]] = []
    for share in (0.0, 0.5, 0.5, 1.0):
        at = state + share * step * ends[-1][0] if ends else state
        ends.append(slopes(at, t + share * step))
    return [(a + 2 * b + 2 * c + d) / 6 for a, b, c, d in zip(*ends, strict=True)]
