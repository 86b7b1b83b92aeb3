"""A token's way from noise by a solver: what is predicted in each step, under guidance."""

from collections.abc import Callable, Sequence

import torch

from contar._errors import bad, check_tensor
from contar._typing import Float, Tensor
from contar.conditioning import Guidance
from contar.heads.diffusion_mlp import DiffusionMLP
from contar.heads.protocol import Noise


class GuidedSteps:
    """The predictions of one draw, which a solver asks for in the order of its timesteps.

    For each of these the network is given another number, `seen`; `for_solver` makes what the
    solver goes by, of a prediction, its tokens and the timestep.
    """

    def __init__(
        self,
        network: DiffusionMLP,
        cond: Float[Tensor, "b n d"],
        uncond: Float[Tensor, "b n d"] | None,
        guidance: Guidance,
        timesteps: Sequence[float],
        seen: Sequence[float],
        for_solver: Callable[[Tensor, Tensor, float], Tensor],
    ) -> None:
        self.network, self.guidance, self.for_solver = network, guidance, for_solver
        self.batch, self.count, _ = cond.shape
        condition = network.condition(cond if uncond is None else torch.cat([cond, uncond]))
        guided = [guidance.applies(timestep) for timestep in timesteps]
        self.modulations = network.in_steps(condition, seen, guided, self.batch)

    def __call__(self, x: Float[Tensor, "b m c"], timestep: float) -> Float[Tensor, "b m c2"]:
        """Return what the solver goes by; of tokens behind the first n, they themselves."""
        guided = self.guidance.applies(timestep)
        others = x[:, self.count :]
        tokens = torch.cat([x[:, : self.count]] * (1 + guided))
        outputs = self.network.denoise(tokens, next(self.modulations))
        prediction, log_variance = outputs.tensor_split([x.shape[-1]], dim=-1)
        prediction = self.for_solver(prediction, tokens, timestep)
        if guided and self.guidance.renorm_over == "frame":
            halves = (torch.cat([half, others], dim=1) for half in prediction.chunk(2))
            prediction = self.guidance.combine(*halves)
        else:
            if guided:
                prediction = self.guidance.combine(*prediction.chunk(2))
            prediction = torch.cat([prediction, others], dim=1)
        if not log_variance.shape[-1]:
            return prediction
        log_variance = torch.cat([log_variance[: self.batch], torch.zeros_like(others)], dim=1)
        return torch.cat([prediction, log_variance], dim=-1)


def tokens_with_noise(frame: int | None, count: int, guidance: Guidance) -> int:
    """Return how many tokens noise is drawn for: those that are predicted, or the whole frame's.

    Raises:
        ValueError: a renormalisation over the frame without its tokens, or too few of them.
    """
    if frame is None:
        if guidance.scale > 1 > guidance.renorm and guidance.renorm_over == "frame":
            raise bad("frame", None, "the tokens of the frame, over which is renormalised")
        return count
    if frame < count:
        raise bad("frame", frame, f"at least the {count} predicted tokens")
    return frame


def normal_noise(source: Noise, shape: tuple[int, int, int]) -> Float[Tensor, "b m c"]:
    """Return float32 noise of a source; a ValueError for what one of its own kind makes of it."""
    noise = source.normal(*shape)
    if noise.shape != shape or not noise.is_floating_point():
        check_tensor("noise", noise, shape, "[b, m, token_dim]")
    return noise.float()
