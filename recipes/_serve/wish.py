"""What a visitor asks for, the bounds of it, and what that is to a pipeline."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from contar._errors import bad, check_number, check_size, check_text
from contar._typing import Bool, Tensor, UInt8
from contar.generation import fast_changes
from contar.heads import DiffusionHead
from contar.tokenizers import VAETokenizer, longest_clip
from recipes.nova import NovaPipeline

OVERLAP = 2  # latent frames that a chunk of a video longer than learned begins with
# At most, of any pipeline: characters of a prompt; scale of guidance; tokens around a mask; seconds
# after a set, for the eyes, and of all of a result's.
PROMPT, GUIDANCE, GROW, PAUSE, PAUSES = 300, 20.0, 4, 1.0, 60.0


@dataclass(frozen=True)
class Bounds:
    """What a visitor may ask of a pipeline at most, and what is asked for if nothing is said."""

    frames: int  # of a result
    sets: int  # of a frame
    steps: int  # of a set, where the head draws by diffusion; else 0
    height: int  # of a frame, in pixels
    width: int
    usual: dict[str, Any]  # the pipeline's own defaults


@dataclass(frozen=True)
class Wish:
    """What a visitor asks for."""

    prompt: str
    frames: int  # of the result, given ones included
    sets: int  # in which a frame's tokens are drawn
    steps: int  # of diffusion for each set; not read where the head has none
    guidance: float
    seed: int
    fast: bool = False  # fewer steps and sets, of a solver of higher order
    grow: int = 1  # tokens by which a mask grows
    pause: float = 0.0  # seconds after each set


@dataclass(frozen=True)
class Given:
    """What a visitor brought, cut to the model's shape, and what is painted."""

    frames: UInt8[Tensor, "n h w 3"]
    mask: Bool[Tensor, "h w"] | None = None  # made anew in every frame; nothing goes on from them


def bounds_of(pipe: NovaPipeline, *, frames: int | None = None) -> Bounds:
    """Return what may be asked of a pipeline.

    Args:
        pipe: at work.
        frames: of a result at most; None is four times as many as it makes by itself.
    """
    model, pixels, usual = pipe.transformer, VAETokenizer(pipe.vae), pipe.config["defaults"]
    most = frames or 4 * usual["num_frames"]
    if model.motion is None:
        most = 1  # a model of images
    tokens = model.sizes.latent[0] * model.sizes.latent[1] // model.sizes.patch**2
    trained = pipe.scheduler.config.get("num_train_timesteps") or math.inf
    height, width = (side * pixels.space_stride for side in model.sizes.latent)
    return Bounds(
        frames=longest_clip(pixels, most),
        sets=min(tokens, max(64, usual["num_inference_steps"])),
        steps=min(int(min(trained, 100)), 100) if isinstance(model.head, DiffusionHead) else 0,
        height=height,
        width=width,
        usual=dict(usual),
    )


def check_wish(wish: Wish, bounds: Bounds) -> None:
    """Raise a ValueError that names what is beyond the bounds; the rest a pipeline refuses."""
    check_text("prompt", wish.prompt)
    if len(wish.prompt) > PROMPT:
        raise bad("prompt", f"{len(wish.prompt)} characters", f"at most {PROMPT}")
    counts = {"frames": (1, bounds.frames), "sets": (1, bounds.sets), "grow": (0, GROW)}
    counts |= {"steps": (1, bounds.steps)} if bounds.steps else {}
    for name, (least, most) in {**counts, "seed": (0, 2**63 - 1)}.items():
        check_size(name, getattr(wish, name), least, most)
    check_number("guidance", wish.guidance, 0, GUIDANCE)
    check_number("pause", wish.pause, 0, PAUSE)


def options(pipe: NovaPipeline, wish: Wish, given: Given | None) -> dict[str, Any]:
    """Return the arguments of `NovaPipeline.stream` beside the prompt, for a wish within bounds.

    A clip longer than learned is made in chunks of the learned length.

    Raises:
        ValueError: frames that the tokenizer cannot make, or `fast` where there is no such solver.
    """
    pixels, usual = VAETokenizer(pipe.vae), pipe.config["defaults"]
    latents, changes = pixels.latent_frames(wish.frames, "frames"), {}
    learned = pixels.latent_frames(usual["num_frames"])
    if latents > learned > OVERLAP:
        changes |= {"chunk": learned, "overlap": OVERLAP}
    diffusion = isinstance(pipe.transformer.head, DiffusionHead)
    if wish.fast:
        if not diffusion:
            raise bad("fast", True, "False: this model's head takes no solver")
        changes |= fast_changes(pipe.scheduler, wish.sets)
    found: dict[str, Any] = {
        "num_frames": wish.frames,
        "num_inference_steps": None if wish.fast else wish.sets,
        "num_diffusion_steps": wish.steps if diffusion and not wish.fast else None,
        "guidance_scale": wish.guidance,
        "generator": torch.Generator().manual_seed(wish.seed),
        "plan_changes": changes or None,
    }
    if given is None:
        return found
    if given.mask is not None and bool(given.mask.any()):
        clip = given.frames[: longest_clip(pixels, min(len(given.frames), wish.frames))]
        return {**found, "video": clip, "mask": given.mask, "grow": wish.grow}
    most = min(max(1, latents // 2), changes.get("chunk", latents))
    most = min(pixels.pixel_frames(most), len(given.frames))
    return {**found, "video": given.frames[-longest_clip(pixels, most) :]}
