"""Training of the small video tokenizer on clips."""

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from contar._defaults import fixed_defaults
from contar._errors import bad, check_number, keep_plain
from contar._files import read_json
from contar._random import keyed_normal, keys, seeded_weights
from contar.cpu import speed_up
from contar.media import frames_to_pixels, save_sheet
from contar.tokenizers import CausalVAE, VAETokenizer
from contar.training.caching import fingerprint
from contar.training.config import RunConfig
from contar.training.distributed import processes
from contar.training.loop import train
from contar.training.saves import check_own, complete_saves

_WEIGHTS = ("kl", "absolute", "bright")


@dataclass(frozen=True)
class VaeStage:
    """The tokenizer's training.

    Args:
        widths: of its levels, with random weights; None goes on from a given tokenizer.
        kl: weight of the divergence from a standard normal, for a latent value.
        absolute: weight of the absolute error beside the squared one, for sharp edges.
        bright: weight of a place that is white in some frame of its clip, beyond that of a black
            one, which is 1; for strokes that would be lost in so much black.
        run: of the training.
    """

    widths: tuple[int, int, int] | None = (32, 64, 96)
    kl: float = 1e-4
    absolute: float = 0.0
    bright: float = 0.0
    run: RunConfig = field(
        default_factory=lambda: RunConfig(
            steps=2500, batch=8, learning_rate=2e-3, weight_decay=1e-4, betas=(0.9, 0.99),
            precision="bf16",
        )
    )  # fmt: skip

    def __post_init__(self) -> None:
        keep_plain(self)
        for name in _WEIGHTS:
            check_number(name, getattr(self, name), 0)


@runtime_checkable
class Clips(Protocol):
    """Clips by number, each with `frames`, uint8 [t, h, w, 3], all of one shape."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


@runtime_checkable
class PixelClips(Clips, Protocol):
    """Clips that are drawn many at once, on any device."""

    def pixels(self, indices: Sequence[int], device: torch.device | str, /) -> Tensor:
        """Return clips [b, 3, t, h, w] in [-1, 1]."""
        ...


class VaeObjective(nn.Module):
    """An autoencoder as a function from pixels and noise to losses."""

    def __init__(self, vae: CausalVAE, stage: VaeStage) -> None:
        super().__init__()
        self.vae, self.stage = vae, stage

    def forward(self, pixels: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Return "loss", the squared error of a value, and the divergence of a latent value."""
        posterior: Any = self.vae.encode(pixels, return_dict=False)[0]
        mean, log_variance = posterior.mean.float(), posterior.logvar.float()
        latents = mean + (0.5 * log_variance).exp() * noise
        decoded: Any = self.vae.decode(latents.to(posterior.mean.dtype), return_dict=False)[0]
        off = decoded.float() - pixels
        error = off.square().mean()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        plain = not (self.stage.absolute or self.stage.bright)
        loss = error if plain else self._weighted(off, pixels)
        return {"loss": loss + self.stage.kl * divergence, "error": error, "kl": divergence}

    def _weighted(self, off: Tensor, pixels: Tensor) -> Tensor:
        each = off.square() + self.stage.absolute * off.abs()
        white = (pixels.amax((1, 2)).clamp(-1, 1) + 1) / 2
        white = functional.max_pool2d(white[:, None], 3, stride=1, padding=1)[:, :, None]
        weight = 1 + self.stage.bright * white
        # Each clip by its own weights, so that a loss is the same however a batch is split.
        return (each * weight / weight.mean((1, 2, 3, 4), keepdim=True)).mean()


def _pixels(clips: Clips, indices: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    if isinstance(clips, PixelClips):  # all at once, and where they are wanted
        return clips.pixels(indices, device)
    return frames_to_pixels(torch.stack([clips[index].frames for index in indices])).to(device)


def train_vae(
    stage: VaeStage,
    clips: Clips,
    held: Clips,
    out: Path,
    *,
    start: object = None,
    resume: bool = False,
) -> CausalVAE:
    """Train a tokenizer and measure its latents; return it, saved to `out / "model"`.

    A run that is resumed after its end keeps what was measured: sums in another order, of another
    number of threads, would make it another tokenizer than the one that made a cache.

    Args:
        stage: of the training.
        clips: to train on.
        held: for validation and samples.
        out: folder of the run.
        start: whose sizes and weights are taken where the stage gives no widths.
        resume: as in `contar.training.train`.

    Raises:
        ValueError: neither widths nor a tokenizer to start from, a folder `model` in `out` that
            this run did not make, or as `contar.training.train`.
    """
    vae = _first(stage, start)
    load = partial(_load, stage.run.seed, vae.config["latent_channels"])

    def sample(objective: Any, step: int) -> None:
        _save_samples(objective.vae, held, out / f"samples-{step:06d}.png")

    ends = b"".join(clips[index].frames.numpy().tobytes() for index in (0, len(clips) - 1))
    check_own(out, ("model",), out)
    saved = out / "model" / "config.json"
    measured = read_json(saved) if complete_saves(out) and saved.exists() else {}
    trained: Any = train(
        VaeObjective(vae, stage),
        partial(load, clips),
        stage.run,
        out,
        count=len(clips),
        resume=resume,
        described={
            **{name: getattr(stage, name) for name in ("widths", *_WEIGHTS)},
            "clips": [len(clips), *clips[0].frames.shape, hashlib.sha256(ends).hexdigest()[:16]],
            "start": fingerprint(vae),
        },
        validate=[range(a, min(a + 8, len(held))) for a in range(0, len(held), 8)],
        load_validation=partial(load, held),
        sample=sample,
    )
    vae = trained.vae.eval()
    for name in ("latents_mean", "latents_std"):  # not those of `start`
        vae.register_to_config(**{name: measured.get(name)})
    if not measured:
        vae.register_to_config(**_measure(vae, clips))
    if processes().is_main_process:
        vae.save_pretrained(out / "model")
    return vae


def _measure(vae: CausalVAE, clips: Clips) -> dict[str, list[float]]:
    """Return mean and deviation of each channel of a tokenizer's latents, of up to 256 clips."""
    few = [_pixels(clips, [index], vae.device) for index in range(min(256, len(clips)))]
    latents = torch.cat([VAETokenizer(vae).encode(pixels) for pixels in few])
    mean, deviation = latents.mean((0, 2, 3, 4)), latents.std((0, 2, 3, 4))
    return {"latents_mean": mean.tolist(), "latents_std": deviation.tolist()}


def _save_samples(vae: CausalVAE, held: Clips, file: Path) -> None:
    """Save a sheet of clips and what the tokenizer makes of them."""
    pixels, tokenizer = _pixels(held, range(min(4, len(held))), vae.device), VAETokenizer(vae)
    again = tokenizer.decode(tokenizer.encode(pixels))
    both = torch.stack([pixels, again], dim=1).flatten(0, 1)[:, :, ::4]
    save_sheet((both.clamp(-1, 1) + 1) / 2, file, labels=["clip", "decoded"] * len(pixels))


def _first(stage: VaeStage, start: object) -> CausalVAE:
    """Return the tokenizer that a stage begins with."""
    if stage.widths is None:
        if isinstance(start, CausalVAE):
            return deepcopy(start)
        raise bad("widths", None, f"three widths, or a CausalVAE to start from: {type(start)}")
    with seeded_weights(stage.run.seed), fixed_defaults():
        return speed_up(CausalVAE(widths=stage.widths))


def _load(
    seed: int, channels: int, clips: Clips, indices: Sequence[int], step: int | str
) -> tuple[Tensor, Tensor]:
    """Return clips of a step, and the draws of their posteriors."""
    device = processes().device
    pixels = _pixels(clips, indices, device)
    times, height, width = (pixels.shape[2] + 3) // 4, *(x // 8 for x in pixels.shape[3:])
    key = keys(seed, step, "posterior", index=indices, device=device)
    return pixels, keyed_normal(key, channels, times, height, width)
