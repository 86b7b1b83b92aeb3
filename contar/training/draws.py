"""What a training step draws: each sample's share from seed, step and its index alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from contar._random import keyed_normal, keyed_uniform, keys, seeded
from contar._typing import Float, Int, Tensor
from contar.diffusion import NoiseProcess, TimeLaw
from contar.ordering import TrainingMask, truncated_normal_mask


@dataclass(frozen=True)
class Draws:
    """The random numbers of some samples in one step; they do not depend on the rest of the batch.

    Attributes:
        mask: hidden tokens of each frame, b * t rows; equally many in all, drawn for the step.
        noise: [r, m, c], of the m hidden tokens in the order of `mask.hidden`; None where nothing
            noises them.
        index: [r, m], of training timesteps; None likewise.
        posterior: [b, c, t, h, w], noise for the draw of latents.
        context: [b, c, t, h, w], noise for what the temporal tower sees.
        chance: [b, 5], uniform numbers: for dropping text and motion score, for the level of the
            noise in the context, and two for where a window begins.
    """

    mask: TrainingMask
    noise: Float[Tensor, "r m d"] | None
    index: Int[Tensor, "r m"] | None
    posterior: Float[Tensor, "b c t h w"]
    context: Float[Tensor, "b c t h w"]
    chance: Float[Tensor, "b five"]


def draw_step(
    seed: int,
    step: int | str,
    indices: Sequence[int] | Int[Tensor, " b"],
    *,
    latent: tuple[int, int, int, int],
    patch: int,
    repeats: int,
    process: NoiseProcess | None,
    shares: tuple[float, float] = (0.7, 0.25),
    distribution: TimeLaw | None = None,
    logit: tuple[float, float] = (0.0, 1.0),
) -> Draws:
    """Draw for the samples `indices` in a step, on the device where the process, or they, are.

    So a batch may be split over processes and accumulated in parts, and a run that is taken up
    again draws what it would have drawn.

    Args:
        seed: of the run.
        step: of the run, or a name.
        indices: of the samples in the data set.
        latent: (channels, frames, height, width).
        patch: side of a token.
        repeats: draws of noise and timestep for each hidden token.
        process: that noises tokens; None for a head that learns by none, and draws by itself.
        shares: least share of the tokens that is hidden, and the standard deviation, of the
            truncated normal distribution with mean 1 that the step's share is drawn from.
        distribution: of the timesteps' indices, as in `NoiseProcess.draw_indices`.
        logit: likewise.
    """
    channels, frames, height, width = latent
    tokens, values = height * width // patch**2, channels * patch**2
    (low, std), once = shares, seeded(seed, step, "share")
    share = truncated_normal_mask(1, tokens, low=low, std=std, generator=once)
    visible = share.visible_ids.shape[1]
    hidden = frames * (tokens - visible)

    like = indices if process is None else process.alpha
    device = like.device if isinstance(like, Tensor) else torch.device("cpu")

    def of(name: str) -> Tensor:
        return keys(seed, step, name, index=indices, device=device)

    order = keyed_uniform(of("order"), frames, tokens).flatten(0, 1).argsort(dim=1)
    covered = torch.ones_like(order, dtype=torch.bool).scatter(1, order[:, :visible], False)
    noise, places = None, None
    if process is not None:
        noise = keyed_normal(of("noise"), repeats, hidden, values).transpose(0, 1).flatten(1, 2)
        chance = keyed_uniform(of("timestep"), repeats, hidden)
        index = process.place(chance, distribution=distribution, logit=logit)
        places = index.transpose(0, 1).flatten(1)
    return Draws(
        mask=TrainingMask(covered, order[:, :visible]),
        noise=noise,
        index=places,
        posterior=keyed_normal(of("posterior"), *latent),
        context=keyed_normal(of("context"), *latent),
        chance=keyed_uniform(of("chance"), 5),
    )
