"""NOVA's training on cached clips: a stage, what its batches hold, its losses as a module."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from contar._errors import bad, check_count, check_instance, check_number, keep_plain
from contar._random import seeded
from contar._typing import Bool, Float, Int, Tensor
from contar.data import Cache
from contar.diffusion import NoiseProcess
from contar.heads import DiffusionHead, head_law, head_scheduler
from contar.media import save_sheet, side_by_side, write_video
from contar.ordering import TrainingMask
from contar.tokenizers import VAETokenizer
from contar.training import Latents, RunConfig, draw_step, fingerprint, freeze, processes, train
from recipes import nova
from recipes._nova.motion import UNSET
from recipes._nova.network import Nova
from recipes._nova.step import read_noise
from recipes._shared.headed import check_named

_APART = ("run", "checkpoint", "from_disk")  # kept elsewhere, or of no effect on any number


@dataclass(frozen=True)
class NovaStage:
    """A training of the network.

    Args:
        run: of the training.
        repeats: draws of the head for each hidden token. Those of a diffusion or a flow are each
            sample's own; another head draws for a batch, or a process's part of it, at once.
        drop_text: share of samples whose caption is left out.
        drop_motion: share of samples whose motion score is left out.
        shares: least share of a frame's tokens that is hidden, and the standard deviation of the
            normal distribution with mean 1 that is cut there; as the papers have it, if left out.
        context_noise: least and largest deviation of the noise on what the temporal tower sees.
        frames: latent frames of a sample, cut from its clip; None is the whole clip.
        later: share of samples that are cut from later in their clip than its beginning; their
            first frame is shown and not learned.
        frozen: parts that stay as they are, by name.
        checkpoint: compute the towers' blocks again for their gradients, which saves memory.
        from_disk: read a step's samples when it comes, each process its own, instead of the whole
            cache into memory at the beginning.
    """

    run: RunConfig
    repeats: int = 4
    drop_text: float = 0.1
    drop_motion: float = 0.5
    shares: tuple[float, float] = (0.7, 0.25)
    context_noise: tuple[float, float] = (0.0, 0.0)
    frames: int | None = None
    later: float = 0.0
    frozen: tuple[str, ...] = ()
    checkpoint: bool = False
    from_disk: bool = False

    def __post_init__(self) -> None:
        keep_plain(self)
        kinds = {"run": RunConfig, "frozen": tuple, "checkpoint": bool, "from_disk": bool}
        for name, kind in kinds.items():
            check_instance(name, getattr(self, name), kind)
        check_count("repeats", self.repeats)
        for name in ("drop_text", "drop_motion"):
            check_number(name, getattr(self, name), 0, 1)
        if not isinstance(self.shares, tuple) or len(self.shares) != 2:
            raise bad("shares", self.shares, "(least share, deviation)")
        check_number("shares", self.shares[0], 0, 1)
        if check_number("shares", self.shares[1]) <= 0:
            raise bad("shares", self.shares, "a least share in [0, 1], a deviation above 0")
        if not isinstance(self.context_noise, tuple):
            raise bad("context_noise", self.context_noise, "(least, largest)")
        read_noise(self.context_noise)
        if self.frames is not None:
            check_count("frames", self.frames)
        if check_number("later", self.later, 0, 1) and self.frames is None:
            raise bad("later", self.later, "0 where samples are whole clips (frames=None)")


@dataclass(frozen=True)
class NovaBatch:
    """What a step needs, drawn already; what `nova.training_losses` takes is as there."""

    latents: Float[Tensor, "b c t h w"]
    texts: Float[Tensor, "b l e"]  # states of the captions
    lengths: Int[Tensor, " b"]  # tokens of each; 0 where it was left out
    motion_flow: Float[Tensor, " b"] | None  # `UNSET` where dropped and of pictures
    fps: Float[Tensor, " b"] | None
    hidden: Bool[Tensor, "b2 n"]  # of the mask
    visible_ids: Int[Tensor, "b2 v"]  # of the mask
    noise: Float[Tensor, "r m d"] | None  # of a diffusion or a flow, as `index`
    index: Int[Tensor, "r m"] | None
    seed: int  # of what another head draws
    seen: Float[Tensor, "b c t2 h w"] | None = None
    given: Int[Tensor, " b"] | None = None

    def to(self, device: torch.device) -> "NovaBatch":
        """Return the batch on a device."""
        tensors = {name: x for name, x in vars(self).items() if isinstance(x, Tensor)}
        return replace(self, **{name: x.to(device) for name, x in tensors.items()})


class NovaObjective(nn.Module):
    """A NOVA as a function from batches to losses, for `contar.training.train`."""

    def __init__(self, model: Nova, *, repeats: int = 4, checkpoint: bool = False) -> None:
        super().__init__()
        self.model, self.repeats, self.checkpoint = model, repeats, checkpoint

    def forward(self, batch: NovaBatch) -> dict[str, Tensor]:
        """Return "loss" and its parts, for first and later frames."""
        drawn: dict[str, Any] = {"generator": torch.Generator().manual_seed(batch.seed)}
        if isinstance(self.model.head, DiffusionHead):
            drawn |= {"noise": batch.noise, "index": batch.index}
        losses = nova.training_losses(
            self.model, batch.latents, **self.given(batch), **drawn, repeats=self.repeats,
            seen=batch.seen, given=batch.given, checkpoint=self.checkpoint,
        )  # fmt: skip
        if losses.later is None:
            return {"loss": losses.total}
        return {"loss": losses.total, "first": losses.first, "later": losses.later}

    def given(self, batch: NovaBatch) -> dict[str, Any]:
        """Return what a batch says of its clips, and the mask, as arguments of a step."""
        return {
            "prompt_embeds": self._padded(batch.texts, batch.lengths),
            "motion_flow": _numbers(batch.motion_flow),
            "fps": _numbers(batch.fps),
            "mask": TrainingMask(batch.hidden, batch.visible_ids),
        }

    def _padded(self, texts: Tensor, lengths: Tensor) -> Float[Tensor, "b length e"]:
        """Return texts filled up with the model's stored rows, all at once."""
        text = self.model.text
        texts = functional.pad(texts, (0, 0, 0, text.length - texts.shape[1]))
        said = torch.arange(text.length, device=texts.device) < lengths[:, None]
        return torch.where(said[..., None], texts, text.padding[: text.length])


def _numbers(values: Tensor | None) -> Tensor | list[float] | None:
    """Return numbers as they are looked at, or those of a GPU as they are: it does not wait."""
    return values if values is None or values.is_cuda else values.tolist()


class Batches:
    """The function from samples of a cache and a step to the step's batch.

    Args:
        data: of `contar.training.encode_clips`, of clips of one shape, read once, into memory, or
            by each step, as the stage says; or what was read already.
        sizes: of the network; one of 1 frame takes each clip's first.
        stage: which says what is drawn, and what is left out how often.
        device: on which batches are made; None is the CPU, or where the data are.

    Raises:
        ValueError: a sample of another kind; it is named, from disk by the step that reads it. Or
            a stage that reads from disk, with data that were read already.
    """

    def __init__(
        self,
        data: Cache | Latents,
        sizes: nova.NovaConfig,
        stage: NovaStage,
        device: torch.device | str | None = None,
    ) -> None:
        if stage.from_disk and not isinstance(data, Cache):
            raise bad("from_disk", True, "False for latents that were read already")
        self.cache = data if stage.from_disk and isinstance(data, Cache) else None
        if isinstance(data, Cache):  # but an example, where each step reads its own
            data = Latents.of(data, None if self.cache is None else [0])
        self.data = data if device is None else data.to(device)
        self.device, self.video = self.data.moments.device, sizes.frames > 1
        self.sizes, self.stage = sizes, stage
        self.process, self.timesteps = None, (None, (0.0, 1.0))
        if sizes.head["name"] in ("diffusion", "flow"):
            self.process = NoiseProcess.on(head_scheduler(sizes.head), self.device)
            self.timesteps = head_law(sizes.head)
        frames = data.moments.shape[2]
        self.several = self.video and frames > 1
        self.count = (stage.frames or frames) if self.video else 1  # frames of a sample
        if self.count > frames:
            raise bad("frames", self.count, f"at most the {frames} of the cached clips")
        if stage.later and self.several and self.count == 1:
            raise bad("later", stage.later, "0 where samples are single frames")
        self.later = stage.later if self.several else 0.0
        self.all_begin = not self.several or (not self.later and bool(data.begins.all()))

    def __call__(self, indices: Sequence[int], step: int | str) -> tuple[NovaBatch]:
        stage = self.stage
        index = torch.tensor(list(indices), device="cpu").to(self.device, non_blocking=True)
        data, rows = self.data, index
        if self.cache is not None:
            data = Latents.of(self.cache, indices).to(self.device)
            rows = torch.arange(len(index), device=self.device)
        _, channels, _, height, width = data.moments.shape
        draws = draw_step(
            stage.run.seed, step, index, latent=(channels // 2, self.count, height, width),
            patch=self.sizes.patch, repeats=stage.repeats, process=self.process,
            shares=stage.shares, distribution=self.timesteps[0], logit=self.timesteps[1],
        )  # fmt: skip
        no_text, no_motion, level, is_later, place = draws.chance.unbind(1)
        moments, first = self._cut(data.moments[rows], is_later, place)
        mean, deviation = moments.float().chunk(2, dim=1)
        latents = mean + deviation * draws.posterior
        seen, given, flow = None, None, None
        low, high = stage.context_noise
        if high and self.count > 1:
            level = low + (high - low) * level[:, None, None, None, None]
            seen = (latents + level * draws.context)[:, :, :-1]
        if not self.all_begin:
            given = ((first > 0) | ~data.begins[rows]).long()
        if self.video:
            flow = data.motion_flow[rows].nan_to_num(nan=UNSET)
            kept = (no_motion > stage.drop_motion) & self.several
            flow = torch.where(kept, flow, UNSET)
        text = data.text_of[rows]
        batch = NovaBatch(
            latents=latents,
            texts=data.texts[text].float(),
            lengths=torch.where(no_text <= stage.drop_text, 0, data.lengths[text]),
            motion_flow=flow,
            fps=data.fps[rows] if self.video else None,
            hidden=draws.mask.hidden,
            visible_ids=draws.mask.visible_ids,
            noise=draws.noise,
            index=draws.index,
            seed=seeded(stage.run.seed, step, "head", *indices).initial_seed(),
            seen=seen,
            given=given,
        )
        return (batch,)

    def _cut(self, moments: Tensor, is_later: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Return the moments of so many frames of each clip, and the first of them in it."""
        first, count = torch.zeros(len(moments), dtype=torch.int64, device=self.device), self.count
        frames = moments.shape[2]
        if count == frames:
            return moments, first
        places = (1 + place * (frames - count)).long().clamp(max=frames - count)
        first = places * (is_later <= self.later)
        window = first[:, None] + torch.arange(count, device=self.device)
        window = window[:, None, :, None, None].expand(-1, moments.shape[1], -1, *moments.shape[3:])
        return moments.gather(2, window), first


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


def described(stage: Any, cache: Cache | Latents, model: Nova) -> dict[str, Any]:
    """Return what a run of a stage began with; it is taken up again with nothing else."""
    return {
        **{name: value for name, value in asdict(stage).items() if name not in _APART},
        "cache": {**cache.made_with, "samples": len(cache), "content": cache.fingerprint},
        "start": fingerprint(model),
    }


def validation(run: RunConfig, first: int, last: int) -> list[range]:
    """Return the batches of samples held out: of 64, or as many as a process has at once."""
    size = max(1, min(64, run.batch // (processes().num_processes * run.parts)))
    return [range(start, min(start + size, last)) for start in range(first, last, size)]


def train_network(
    stage: NovaStage,
    pipe: nova.NovaPipeline,
    cache: Cache | Latents,
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
        cache: made with the pipeline's parts, as in `Batches`.
        out, resume: as in `contar.training.train`.
        prompts: of the samples.

    Raises:
        ValueError: a cache of fewer than 2 samples, another head than the config names, an unknown
            part to freeze, or as `contar.training.train`.
    """
    model = pipe.transformer
    if len(cache) < 2:
        raise bad("cache", f"{len(cache)} sample", "2 or more: one is held out")
    check_named(model.head, model.sizes.head)  # or it could not be saved in the end
    freeze(model, stage.frozen)
    count = len(cache) - min(256, len(cache) // 10 or 1)
    load = Batches(cache, model.sizes, stage, processes().device)
    names = ("vae", "scheduler", "text_encoder", "tokenizer")
    parts: dict[str, Any] = {name: pipe.components[name] for name in names}
    defaults, stride = pipe.config["defaults"], VAETokenizer(pipe.vae).time_stride

    def sample(objective: Any, step: int) -> None:
        shown = nova.NovaPipeline(objective.model, **parts, defaults=defaults)
        shown.to(objective.model.device)
        shown.set_progress_bar_config(disable=True)
        frames = shown(list(prompts), generator=seeded(0, "sheet"), output_type="pt").frames
        clips, file = frames.transpose(1, 2), out / f"samples-{step:06d}"
        save_sheet(clips[:, :, ::stride], f"{file}.png", labels=list(prompts))
        if clips.shape[2] > 1:
            write_video(side_by_side(clips), f"{file}.gif", fps=min(50, defaults["fps"]))

    trained: Any = train(
        NovaObjective(model, repeats=stage.repeats, checkpoint=stage.checkpoint),
        load,
        stage.run,
        out,
        count=count,
        resume=resume,
        described=described(stage, cache, model),
        validate=validation(stage.run, count, len(cache)),
        load_validation=load,
        sample=sample,
    )
    return trained.model.eval()
