"""NOVA's training on cached clips: what a batch holds, and its losses as a module."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from contar._typing import Float, Tensor
from contar.data.cache import Cache
from contar.diffusion import NoiseProcess
from contar.ordering import TrainingMask
from contar.training.draws import draw_step
from recipes import nova
from recipes.nova_model import Nova
from recipes.nova_sampling import UNSET


@dataclass(frozen=True)
class NovaBatch:
    """What a step needs, drawn already.

    Attributes:
        latents: [b, c, t, h, w].
        texts: states of the captions, one [l, e] for each sample; without a row where dropped.
        motion_flow: [b], `UNSET` where dropped; None for images.
        fps: [b]; None for images.
        hidden: [b * t, n], of the mask.
        visible_ids: [b * t, v], of the mask.
        noise: [r, m, values], as in `nova.training_losses`.
        index: [r, m], likewise.
    """

    latents: Float[Tensor, "b c t h w"]
    texts: tuple[Tensor, ...]
    motion_flow: Tensor | None
    fps: Tensor | None
    hidden: Tensor
    visible_ids: Tensor
    noise: Tensor
    index: Tensor

    def to(self, device: torch.device) -> "NovaBatch":
        """Return the batch on a device."""
        moved = {
            name: value.to(device)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved, texts=tuple(text.to(device) for text in self.texts))


class NovaObjective(nn.Module):
    """A NOVA as a function from batches to losses, for `contar.training.train`."""

    def __init__(self, model: Nova, *, repeats: int = 4) -> None:
        super().__init__()
        self.model, self.repeats = model, repeats

    def forward(self, batch: NovaBatch) -> dict[str, Tensor]:
        """Return "loss" and its parts, for first and later frames."""
        losses = nova.training_losses(
            self.model,
            batch.latents,
            batch.texts,
            motion_flow=None if batch.motion_flow is None else batch.motion_flow.tolist(),
            fps=None if batch.fps is None else batch.fps.tolist(),
            repeats=self.repeats,
            mask=TrainingMask(batch.hidden, batch.visible_ids),
            noise=batch.noise,
            index=batch.index,
        )
        if losses.later is None:
            return {"loss": losses.total}
        return {"loss": losses.total, "first": losses.first, "later": losses.later}


def batches_of(
    cache: Cache,
    sizes: nova.NovaConfig,
    *,
    seed: int,
    repeats: int,
    drop_text: float,
    drop_motion: float,
) -> Callable[[Sequence[int], int | str], tuple[NovaBatch]]:
    """Return the function from samples of a cache and a step to the step's batch.

    Args:
        cache: of `contar.training.caching.encode_clips`; read once, into memory.
        sizes: of the network; one of 1 frame takes each clip's first.
        seed: of all draws.
        repeats: of the head's draws for each hidden token.
        drop_text: share of the samples whose caption is left out.
        drop_motion: share of the samples whose motion score is left out.
    """
    process = NoiseProcess.from_config(sizes.scheduler)
    video = sizes.frames > 1
    samples = [cache[index] for index in range(len(cache))]

    def load(indices: Sequence[int], step: int | str) -> tuple[NovaBatch]:
        chosen = [samples[index] for index in indices]
        moments = torch.stack([torch.from_numpy(s.arrays["latents"]).float() for s in chosen])
        mean, deviation = moments.chunk(2, dim=1)
        if not video:
            mean, deviation = mean[:, :, :1], deviation[:, :, :1]
        draws = draw_step(
            seed,
            step,
            indices,
            latent=tuple(mean.shape[1:]),  # type: ignore[arg-type]
            patch=sizes.patch,
            repeats=repeats,
            process=process,
        )
        texts = [torch.from_numpy(s.arrays["text"]).float() for s in chosen]
        chance = draws.chance.tolist()
        kept = [
            text[:0] if c[0] < drop_text else text for text, c in zip(texts, chance, strict=True)
        ]
        flow = [
            UNSET if c[1] < drop_motion else s.facts["motion_flow"]
            for s, c in zip(chosen, chance, strict=True)
        ]
        batch = NovaBatch(
            latents=mean + deviation * draws.posterior,
            texts=tuple(kept),
            motion_flow=torch.tensor(flow) if video else None,
            fps=torch.tensor([float(s.facts["fps"]) for s in chosen]) if video else None,
            hidden=draws.mask.hidden,
            visible_ids=draws.mask.visible_ids,
            noise=draws.noise,
            index=draws.index,
        )
        return (batch,)

    return load


def load_parts(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Load the weights that a model shares with an earlier stage; return the names it does not."""
    own = model.state_dict()
    shared = {
        key: value for key, value in state.items() if key in own and own[key].shape == value.shape
    }
    model.load_state_dict(shared, strict=False)
    return sorted(set(own) - set(shared))
