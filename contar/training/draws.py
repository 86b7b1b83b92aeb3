"""What a training step draws: each sample's share from seed, step and its index alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from contar._random import normal, seeded, uniform
from contar._typing import Float, Int, Tensor
from contar.diffusion import NoiseProcess
from contar.ordering import TrainingMask, mask_by_order, random_order, truncated_normal_mask


@dataclass(frozen=True)
class Draws:
    """The random numbers of some samples in one step; they do not depend on the rest of the batch.

    Attributes:
        mask: hidden tokens of each frame, b * t rows; equally many in all, drawn for the step.
        noise: [r, m, c], of the m hidden tokens in the order of `mask.hidden`.
        index: [r, m], of training timesteps.
        posterior: [b, c, t, h, w], noise for the draw of latents.
        chance: [b, 2], uniform numbers, for dropping text and motion score.
    """

    mask: TrainingMask
    noise: Float[Tensor, "r m d"]
    index: Int[Tensor, "r m"]
    posterior: Float[Tensor, "b c t h w"]
    chance: Float[Tensor, "b two"]


def draw_step(
    seed: int,
    step: int | str,
    indices: Sequence[int],
    *,
    latent: tuple[int, int, int, int],
    patch: int,
    repeats: int,
    process: NoiseProcess,
    shares: tuple[float, float] = (0.7, 0.25),
) -> Draws:
    """Draw for the samples `indices` in a step, on the CPU.

    So a batch may be split over processes and accumulated in parts, and a run that is taken up
    again draws what it would have drawn.

    Args:
        seed: of the run.
        step: of the run, or a name.
        indices: of the samples in the data set.
        latent: (channels, frames, height, width).
        patch: side of a token.
        repeats: draws of noise and timestep for each hidden token.
        process: that noises tokens.
        shares: least share of the tokens that is hidden, and the standard deviation, of the
            truncated normal distribution with mean 1 that the step's share is drawn from.
    """
    channels, frames, height, width = latent
    tokens, values = height * width // patch**2, channels * patch**2
    generators = [seeded(seed, step, index) for index in indices]
    low, std = shares
    share = truncated_normal_mask(
        1, tokens, low=low, std=std, generator=seeded(seed, step, "share")
    )
    visible = share.visible_ids.new_full((len(indices) * frames,), share.visible_ids.shape[1])
    rows = [generator for generator in generators for _ in range(frames)]
    mask = mask_by_order(random_order(len(rows), tokens, generator=rows), visible)
    shape, count = (repeats, frames * tokens), len(indices)
    noise = torch.cat([normal(*shape, values, generator=g) for g in generators], dim=1)
    index = torch.cat([process.draw_indices(*shape, generator=g) for g in generators], dim=1)
    hidden = mask.hidden.flatten()
    return Draws(
        mask=mask,
        noise=noise[:, hidden],
        index=index[:, hidden],
        posterior=normal(count, *latent, generator=generators),
        chance=uniform(count, 2, generator=generators),
    )
