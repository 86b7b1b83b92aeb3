"""Training on one's own clips: a pipeline's tokenizer, then its network, go on with them.

`contar train tokenizer --folder CLIPS --model MODEL --out A`, then `contar cache CLIPS --model
A/model --out CACHE`, then `contar train cached --cache CACHE --model A/model --out B`; the first is
left out where MODEL's tokenizer brings the clips back well.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from contar._errors import bad
from contar.data import Cache, CaptionedFile, Sample, captioned_files, write_cache
from contar.tokenizers import CausalVAE, VAETokenizer
from contar.training import (
    Clip,
    RunConfig,
    VaeStage,
    check_own,
    check_samples,
    encode_clips,
    fingerprint,
    one_run,
    processes,
    read_clips,
    train_vae,
)
from recipes import nova
from recipes._nova.distilling import HeadStage, train_head
from recipes._nova.training import NovaStage, train_network
from recipes.moving_digits import SHARES

__all__ = [
    "CHANNELS",
    "CachedRecipe",
    "NovaStage",
    "TokenizerRecipe",
    "clip_size",
    "clips_of",
    "encoder_of",
    "made_with",
    "make_cache",
    "train_cached",
    "train_tokenizer",
]

CHANNELS = 4
"""Of a latent of `CausalVAE`, where nothing else is said."""


@dataclass(frozen=True)
class TokenizerRecipe:
    """A training of a pipeline's tokenizer on a folder of clips.

    Args:
        folder: of captioned videos, as `contar.data.captioned_files` reads it.
        model: the pipeline.
        frames: of a clip, 1 for pictures; None is the model's default.
        fps: frames per second, likewise.
        stage: the training.
    """

    folder: Path
    model: str = "moving-digits"
    frames: int | None = None
    fps: float | None = None
    stage: VaeStage = field(
        default_factory=lambda: VaeStage(
            widths=None, run=RunConfig(batch=8, learning_rate=1e-3, precision="bf16")
        )
    )


@dataclass(frozen=True)
class CachedRecipe:
    """A training on a cache.

    Args:
        cache: folder that `contar cache` made.
        model: the pipeline that it was made with, and whose weights the network starts from.
        stage: the training.
        skip_corrupted: train on what is whole, instead of refusing a damaged cache.
    """

    cache: Path
    model: str = "moving-digits"
    stage: NovaStage = field(
        default_factory=lambda: NovaStage(
            RunConfig(steps=1000, batch=16, learning_rate=2e-4), shares=SHARES
        )
    )
    skip_corrupted: bool = False


@dataclass(frozen=True)
class HeadRecipe:
    """A head in few passes for a pipeline, learned from its own on a cache's conditions.

    Args:
        cache: folder that `contar cache` made with the pipeline.
        model: the pipeline; its network stays as it is, but for the head.
        head: kind of the new head: one that begins from normal noise.
        steps: passes in which it draws a token.
        width: of its network; that of the trained head, if left out.
        depth: likewise.
        stage: the training.
    """

    cache: Path
    model: str = "moving-digits"
    head: str = "mean_flow"
    steps: int = 1
    width: int | None = None
    depth: int | None = None
    stage: HeadStage = field(
        default_factory=lambda: HeadStage(RunConfig(steps=2000, batch=16), shares=SHARES)
    )


def made_with(pipe: nova.NovaPipeline) -> dict[str, str]:
    """Return fingerprints of a pipeline's tokenizer and text encoder, which a cache remembers.

    Raises:
        ValueError: it has no text encoder.
    """
    if pipe.text_encoder is None:
        raise bad("model", "a pipeline without a text encoder", "one with all its parts")
    return {
        "tokenizer": fingerprint(pipe.vae),
        "text_encoder": fingerprint(pipe.text_encoder),
    }


def clips_of(
    folder: Path, pipe: nova.NovaPipeline, *, frames: int | None = None, fps: float | None = None
) -> Iterator[Clip]:
    """Return the clips of a folder in a pipeline's size, as `make_cache` takes them."""
    return read_clips(captioned_files(folder), **clip_size(pipe, frames=frames, fps=fps))


def clip_size(
    pipe: nova.NovaPipeline, *, frames: int | None = None, fps: float | None = None
) -> dict[str, Any]:
    """Return frames, rate, height and width of a pipeline's clips, as `read_clips` takes them.

    Args:
        pipe: whose frames give the size.
        frames: of a clip, 1 for pictures; None is the pipeline's default.
        fps: frames per second, likewise.

    Raises:
        ValueError: a number of frames that the tokenizer does not take.
    """
    defaults, tokenizer = pipe.config["defaults"], VAETokenizer(pipe.vae)
    count = defaults["num_frames"] if frames is None else frames
    tokenizer.latent_frames(count, "frames")
    height, width = (side * tokenizer.space_stride for side in pipe.transformer.sizes.latent)
    rate = defaults["fps"] if fps is None else fps
    return {"frames": count, "fps": rate, "height": height, "width": width}


def encoder_of(pipe: nova.NovaPipeline, size: Mapping[str, Any]) -> Callable[..., Iterator[Sample]]:
    """Return what makes samples of a captioned file, each by itself, as `encode_shards` takes it.

    Args:
        pipe: whose tokenizer and text encoder are taken.
        size: of `clip_size`.
    """

    def encode(file: CaptionedFile) -> Iterator[Sample]:
        return _encoded(read_clips([file], **size), pipe, batch=1)

    return encode


def make_cache(
    folder: Path,
    pipe: nova.NovaPipeline,
    out: Path,
    *,
    frames: int | None = None,
    fps: float | None = None,
) -> Cache:
    """Encode a folder of captioned videos or pictures with a pipeline's tokenizer and text encoder.

    Args:
        folder: as `contar.data.captioned_files` reads it.
        pipe: whose frames give the size of the clips.
        out: folder of the cache, to be made.
        frames: as in `clip_size`.
        fps: likewise.

    Raises:
        FileNotFoundError, ValueError: as `captioned_files`, `read_clips` and `write_cache`, or a
            number of frames that the tokenizer does not take; no cache is left then.
    """
    samples = _encoded(clips_of(folder, pipe, frames=frames, fps=fps), pipe)
    shown = (sample for sample in tqdm(samples, desc="cache", unit="clip"))
    write_cache(shown, out, made_with={"data": Path(folder).name, **made_with(pipe)})
    return Cache(out)


def _encoded(clips: Iterable[Clip], pipe: nova.NovaPipeline, batch: int = 32) -> Iterator[Sample]:
    parts = (VAETokenizer(pipe.vae), pipe.tokenizer, pipe.text_encoder)
    return encode_clips(clips, *parts, length=pipe.transformer.sizes.text_length, batch=batch)


def train_tokenizer(recipe: TokenizerRecipe, out: Path, *, resume: bool = False) -> Path:
    """Train the tokenizer; return the folder of the pipeline, whose network does not know it yet.

    The last 32 clips (a tenth, if that is less) are held out.

    Args:
        recipe: of the training.
        out: folder of the run.
        resume: go on where the run in `out` ended.

    Raises:
        FileNotFoundError, ValueError: as `make_cache` and `contar.training.train`, fewer than 2
            clips, or a folder `model` in `out` that this run did not make.
    """
    pipe = nova.from_pretrained(recipe.model, dtype=torch.float32)
    if recipe.stage.widths is None and not isinstance(pipe.vae, CausalVAE):
        raise bad("model", f"one with {type(pipe.vae).__name__}", "one with CausalVAE, or widths")
    if recipe.stage.widths is not None and pipe.transformer.sizes.channels != CHANNELS:
        got = f"one of {pipe.transformer.sizes.channels} latent channels"
        raise bad("model", got, f"{CHANNELS} for a new tokenizer")
    clips = list(clips_of(recipe.folder, pipe, frames=recipe.frames, fps=recipe.fps))
    if len(clips) < 2:
        raise bad("folder", f"{len(clips)} clip", "2 or more: one is held out")
    held = min(32, len(clips) // 10 or 1)
    with _own_run(out, "tokenizer") as place:
        parts = (recipe.stage, clips[:-held], clips[-held:], place)
        vae = train_vae(*parts, start=pipe.vae, resume=resume)
        return _save(pipe, out / "model", vae=vae)


def train_cached(recipe: CachedRecipe, out: Path, *, resume: bool = False) -> Path:
    """Train on the cache; return the folder of the pipeline.

    `out` and `resume` as in `train_tokenizer`.

    Raises:
        FileNotFoundError: no such cache or pipeline.
        ValueError: a cache that is damaged or made with another tokenizer or text encoder, a folder
            `model` in `out` that this run did not make, or as `contar.training.train`.
    """
    pipe = nova.from_pretrained(recipe.model, dtype=torch.float32)
    state = processes()
    turn = (0, 1) if recipe.skip_corrupted else (state.process_index, state.num_processes)
    options: dict[str, Any] = {"skip_corrupted": recipe.skip_corrupted, "turn": turn}
    cache = Cache(recipe.cache, made_with=made_with(pipe), **options)
    first = check_samples(cache, 4)
    latents = first[0].arrays["latents"].shape[1] if pipe.transformer.motion is not None else 1
    frames, fps = VAETokenizer(pipe.vae).pixel_frames(latents), first[0].facts["fps"]
    made_of = {"num_frames": frames, "fps": fps}
    prompts = list(dict.fromkeys(sample.facts["caption"] for sample in first))
    pipe.register_to_config(defaults={**pipe.config["defaults"], **made_of})
    with _own_run(out, "network") as place:
        network = train_network(recipe.stage, pipe, cache, place, prompts=prompts, resume=resume)
        return _save(pipe, out / "model", transformer=network)


def train_fast_head(recipe: HeadRecipe, out: Path, *, resume: bool = False) -> Path:
    """Train a head in few passes; return the folder of the pipeline that draws with it.

    Its guidance is 1, the head has learned that of the trained one, and its temperature, from whole
    noise. `out` and `resume` as in `train_tokenizer`.

    Raises:
        FileNotFoundError, ValueError: as `train_cached` and `contar.training.distill_head`.
    """
    if recipe.head in ("energy", "mixture"):
        allowed = "one that begins from normal noise, as mean_flow or flow_map"
        raise bad("head", recipe.head, allowed)
    pipe = nova.from_pretrained(recipe.model, dtype=torch.float32)
    cache = Cache(recipe.cache, made_with=made_with(pipe))
    check_samples(cache, 4)
    head = {"name": recipe.head, "steps": recipe.steps}
    sizes = {"width": recipe.width, "depth": recipe.depth}
    head |= {name: size for name, size in sizes.items() if size is not None}
    with _own_run(out, "head") as place:
        network = train_head(recipe.stage, head, pipe, cache, place, resume=resume)
        unguided = {"guidance_scale": 1.0, "guidance_renorm": 1.0, "temperature": 1.0}
        unguided["num_diffusion_steps"] = recipe.steps
        pipe.register_to_config(defaults={**pipe.config["defaults"], **unguided})
        return _save(pipe, out / "model", transformer=network)


@contextmanager
def _own_run(out: Path, name: str) -> Iterator[Path]:
    """Give the folder of a training, once nobody else works in `out` or made the model there."""
    with one_run(out):
        check_own(out, ("model",), out / name)
        yield out / name


def _save(pipe: nova.NovaPipeline, folder: Path, **changed: Any) -> Path:
    kept = {name: pipe.config[name] for name in ("defaults", "text_package")}
    if processes().is_main_process:
        nova.NovaPipeline(**{**pipe.components, **kept, **changed}).save_pretrained(folder)
    return folder
