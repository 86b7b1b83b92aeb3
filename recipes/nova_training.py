"""NOVA's training on cached clips: a stage, what its batches hold, its losses as a module."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from contar._errors import bad, check_count, check_instance, check_number, keep_plain
from contar._random import seeded
from contar._typing import Float, Tensor
from contar.data.cache import Cache
from contar.diffusion import NoiseProcess
from contar.heads import DiffusionHead, head_scheduler
from contar.media import save_gif, save_sheet
from contar.ordering import TrainingMask
from contar.tokenizers.vae import VAETokenizer
from contar.training import RunConfig, freeze, train
from contar.training.caching import check_samples, fingerprint
from contar.training.draws import draw_step
from recipes import nova
from recipes.nova_model import Nova
from recipes.nova_sampling import UNSET

_APART = ("run", "checkpoint")  # of a stage: kept elsewhere, or of no effect on any number


@dataclass(frozen=True)
class NovaStage:
    """A training of the network.

    Args:
        run: of the training.
        repeats: draws of the head for each hidden token.
        drop_text: share of samples whose caption is left out.
        drop_motion: share of samples whose motion score is left out.
        shares: least share of a frame's tokens that is hidden, and the standard deviation of the
            normal distribution with mean 1 that is cut there; as the papers have it, if left out.
        frozen: parts that stay as they are, by name.
        checkpoint: compute the towers' blocks again for their gradients, which saves memory.
    """

    run: RunConfig
    repeats: int = 4
    drop_text: float = 0.1
    drop_motion: float = 0.5
    shares: tuple[float, float] = (0.7, 0.25)
    frozen: tuple[str, ...] = ()
    checkpoint: bool = False

    def __post_init__(self) -> None:
        keep_plain(self)
        check_instance("run", self.run, RunConfig)
        check_count("repeats", self.repeats)
        check_number("drop_text", self.drop_text, 0, 1)
        check_number("drop_motion", self.drop_motion, 0, 1)
        if not isinstance(self.shares, tuple) or len(self.shares) != 2:
            raise bad("shares", self.shares, "(least share, deviation)")
        check_number("shares", self.shares[0], 0, 1)
        if check_number("shares", self.shares[1]) <= 0:
            raise bad("shares", self.shares, "a least share in [0, 1], a deviation above 0")
        check_instance("frozen", self.frozen, tuple)
        check_instance("checkpoint", self.checkpoint, bool)


@dataclass(frozen=True)
class NovaBatch:
    """What a step needs, drawn already.

    Attributes:
        latents: [b, c, t, h, w].
        texts: states of the captions, one [l, e] for each sample; without a row where dropped.
        motion_flow: [b], `UNSET` where dropped and for pictures; None for a network of images.
        fps: [b]; None for a network of images.
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

    def __init__(self, model: Nova, *, repeats: int = 4, checkpoint: bool = False) -> None:
        super().__init__()
        self.model, self.repeats, self.checkpoint = model, repeats, checkpoint

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
            checkpoint=self.checkpoint,
        )
        if losses.later is None:
            return {"loss": losses.total}
        return {"loss": losses.total, "first": losses.first, "later": losses.later}


def batches_of(
    cache: Cache, sizes: nova.NovaConfig, stage: NovaStage
) -> Callable[[Sequence[int], int | str], tuple[NovaBatch]]:
    """Return the function from samples of a cache and a step to the step's batch.

    Args:
        cache: of `contar.training.caching.encode_clips`, of clips of one shape; read once, into
            memory.
        sizes: of the network; one of 1 frame takes each clip's first.
        stage: which says what is drawn, and what is left out how often.

    Raises:
        ValueError: a sample of another kind; it is named.
    """
    process = NoiseProcess.from_config(head_scheduler(sizes.head))
    samples = check_samples(cache)
    video = sizes.frames > 1
    several = video and samples[0].arrays["latents"].shape[1] > 1

    def load(indices: Sequence[int], step: int | str) -> tuple[NovaBatch]:
        chosen = [samples[index] for index in indices]
        moments = torch.stack([torch.from_numpy(s.arrays["latents"]).float() for s in chosen])
        mean, deviation = moments.chunk(2, dim=1)
        if not video:
            mean, deviation = mean[:, :, :1], deviation[:, :, :1]
        draws = draw_step(
            stage.run.seed,
            step,
            indices,
            latent=tuple(mean.shape[1:]),  # type: ignore[arg-type]
            patch=sizes.patch,
            repeats=stage.repeats,
            process=process,
            shares=stage.shares,
        )
        texts = [torch.from_numpy(s.arrays["text"]).float() for s in chosen]
        chance = draws.chance.tolist()
        kept = [
            text[:0] if c[0] < stage.drop_text else text
            for text, c in zip(texts, chance, strict=True)
        ]
        flow = [
            s.facts["motion_flow"] if several and c[1] >= stage.drop_motion else UNSET
            for s, c in zip(chosen, chance, strict=True)
        ]
        batch = NovaBatch(
            latents=mean + deviation * draws.posterior,
            texts=tuple(kept),
            motion_flow=_numbers(flow) if video else None,
            fps=_numbers([s.facts["fps"] for s in chosen]) if video else None,
            hidden=draws.mask.hidden,
            visible_ids=draws.mask.visible_ids,
            noise=draws.noise,
            index=draws.index,
        )
        return (batch,)

    return load


def _numbers(values: Sequence[float]) -> Float[Tensor, " b"]:
    return torch.tensor([float(v) for v in values], dtype=torch.float32, device="cpu")


def quieten(model: Nova) -> None:
    """Set the head's outputs and the adapter's changes to 0, in place.

    A head that starts with large wrong predictions first teaches the network to be silent, and with
    it to ignore the text: after 600 steps of `moving-digits` the anchors of two digits' captions
    differed by 2.5%, with this start by 11%. An adapter that starts with the anchor itself does not
    disturb what an earlier stage has learned.
    """
    layers = [model.head.network.out] if isinstance(model.head, DiffusionHead) else []
    for layer in [*layers, *([] if model.adapter is None else [model.adapter.up])]:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)


def load_parts(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Load the weights that a model shares with an earlier stage; return the names it does not."""
    own = model.state_dict()
    shared = {
        key: value for key, value in state.items() if key in own and own[key].shape == value.shape
    }
    model.load_state_dict(shared, strict=False)
    return sorted(set(own) - set(shared))


def train_network(
    stage: NovaStage,
    pipe: nova.NovaPipeline,
    cache: Cache,
    out: Path,
    *,
    prompts: Sequence[str],
    resume: bool,
) -> nova.Nova:
    """Train the network of a pipeline on a cache; return the averaged one.

    The last 256 samples of the cache (a tenth, if that is less) are held out for validation. Of
    moving digits these share their handwriting with training; of one's own clips they are those of
    the last files by name.

    Args:
        stage: of the training.
        pipe: whose network is trained, and whose other parts make samples of it.
        cache: of `contar.training.caching.encode_clips`, made with the pipeline's parts.
        out: folder of the run.
        prompts: of the samples.
        resume: as in `contar.training.train`.

    Raises:
        ValueError: a cache of fewer than 2 samples, an unknown part to freeze, or as
            `contar.training.train`.
    """
    model = pipe.transformer
    if len(cache) < 2:
        raise bad("cache", f"{len(cache)} sample", "2 or more: one is held out")
    freeze(model, stage.frozen)
    held = min(256, len(cache) // 10 or 1)
    count = len(cache) - held
    load = batches_of(cache, model.sizes, stage)
    names = ("vae", "scheduler", "text_encoder", "tokenizer")
    parts: dict[str, Any] = {name: pipe.components[name] for name in names}
    stride = VAETokenizer(pipe.vae).time_stride

    def sample(objective: Any, step: int) -> None:
        shown = nova.NovaPipeline(objective.model, **parts, defaults=pipe.config["defaults"])
        shown.to(objective.model.device)
        shown.set_progress_bar_config(disable=True)
        frames = shown(list(prompts), generator=seeded(0, "sheet"), output_type="pt").frames
        clips, name = frames.transpose(1, 2), f"samples-{step:06d}"
        save_sheet(clips[:, :, ::stride], out / f"{name}.png", labels=list(prompts))
        if clips.shape[2] > 1:
            save_gif(clips, out / f"{name}.gif", fps=pipe.config["defaults"]["fps"])

    trained: Any = train(
        NovaObjective(model, repeats=stage.repeats, checkpoint=stage.checkpoint),
        load,
        stage.run,
        out,
        count=count,
        resume=resume,
        described={
            **{name: value for name, value in asdict(stage).items() if name not in _APART},
            "cache": {**cache.made_with, "samples": len(cache), "content": cache.fingerprint},
            "start": fingerprint(model),
        },
        validate=[range(a, min(a + 64, len(cache))) for a in range(count, len(cache), 64)],
        load_validation=load,
        sample=sample,
    )
    return trained.model.eval()
