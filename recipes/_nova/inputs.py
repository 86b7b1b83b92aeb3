"""What a person gives a pipeline, checked; and what a person gets, made of latents."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from contar._errors import (
    bad,
    check_choice,
    check_count,
    check_finite,
    check_instance,
    check_number,
    check_shape,
    check_text,
)
from contar._typing import Float, Tensor, UInt8
from contar.conditioning import Guidance
from contar.generation import GenerationPlan
from contar.heads import DiffusionHead, check_plan
from contar.media import to_rgb
from contar.tokenizers import Tokenizer
from recipes._nova.editing import Canvas, Edit
from recipes._nova.network import Nova
from recipes._nova.settings import Settings, read_plan

Pixels = np.ndarray | Tensor | Image.Image | Sequence[Image.Image]


def read_grid(model: Nova, height: int | None, width: int | None, stride: int) -> tuple[int, int]:
    """Return the latent grid of frames of so many pixels; None is the model's own.

    Raises:
        ValueError: a side that stride and patches do not divide.
    """
    latent, unit = model.sizes.latent, 2 * model.sizes.patch * stride
    sides = []
    for name, side, own in (("height", height, latent[0]), ("width", width, latent[1])):
        side = own * stride if side is None else check_count(name, side)
        if side % unit:
            raise bad(name, side, f"a multiple of {unit}")
        sides.append(side // stride)
    return sides[0], sides[1]


def read_settings(
    model: Nova,
    scheduler: Any,
    grid: tuple[int, int],
    tokenizer: Tokenizer,
    values: Mapping[str, Any],
    *,
    start: float | None,
    truncation: float,
    flow_shift: float | None,
    changes: Mapping[str, Any] | None,
) -> Settings:
    """Return what a call's numbers mean for a model.

    Args:
        model: the network.
        scheduler: of the pipeline, for a diffusion head.
        grid: of the latent frames.
        tokenizer: that makes the frames.
        values: what the pipeline's defaults name, all said.
        start: `min_guidance_scale` of the call.
        truncation: `guidance_trunc` of the call.
        flow_shift: of the call.
        changes: `plan_changes` of the call.

    Raises:
        ValueError: a number outside its range, by the name that a call has for it.
    """
    frames = tokenizer.latent_frames(values["num_frames"])
    if model.motion is None and frames > 1:
        raise bad("num_frames", values["num_frames"], "1: this model makes images")
    tokens, steps, config = grid[0] * grid[1] // model.sizes.patch**2, None, None
    sets = _count("num_inference_steps", values, tokens, "tokens of a frame")
    if isinstance(model.head, DiffusionHead):  # another takes its own steps
        config = {**scheduler.config, "_class_name": type(scheduler).__name__}
        trained = config.get("num_train_timesteps") or math.inf
        steps = _count("num_diffusion_steps", values, trained, "it was trained with")
    elif values["num_diffusion_steps"] is not None:
        steps = check_count("num_diffusion_steps", values["num_diffusion_steps"])
        check_plan(model.head, Guidance(), 1.0, steps, "num_diffusion_steps")
    scale, renorm = values["guidance_scale"], values["guidance_renorm"]
    check_number("guidance_scale", scale, 0)
    if start is not None:
        check_number("min_guidance_scale", start, 0)
    check_number("guidance_trunc", truncation, 0)
    check_number("guidance_renorm", renorm, 0, 1)
    options: Any = {"start": start, "truncation": truncation, "renorm": renorm}
    plan = GenerationPlan(
        frames=frames,
        sets=sets,
        diffusion_steps=steps,
        guidance=Guidance(scale, renorm_over="frame", **options),
        scheduler=config,
        flow_shift=flow_shift,
        grid=grid,
    )
    return read_plan(model, _changed(plan, changes))


def _changed(plan: GenerationPlan, changes: Mapping[str, Any] | None) -> GenerationPlan:
    """Return a plan with other values of the fields that are named."""
    if changes is None:
        return plan
    check_instance("plan_changes", changes, Mapping)
    names = {field.name for field in fields(GenerationPlan)} - {"frames", "grid"}
    for name in changes:
        check_choice("plan_changes", name, tuple(sorted(names)))
    return replace(plan, **changes)


def _count(name: str, values: Mapping[str, Any], most: float, what: str) -> int:
    count = check_count(name, values[name])
    if count > most:
        raise bad(name, count, f"at most the {most} {what}")
    return count


def read_clip(
    image: Any,
    video: Any,
    grid: tuple[int, int],
    tokenizer: Tokenizer,
    frames: int,
    prompts: int,
    canvas: Canvas,
) -> Float[Tensor, "b 3 n h w"] | None:
    """Return given first frames as pixels in [-1, 1], one clip for all prompts or each; or None.

    Args:
        image: uint8 [h, w, 3] or a picture, turned as its EXIF data says, or one for each prompt.
        video: uint8 [n, h, w, 3] or pictures, or uint8 [b, n, h, w, 3], one for each prompt.
        grid: of a latent frame.
        tokenizer: that will take them.
        frames: how many there will be in all.
        prompts: how many there are.
        canvas: by which they are smaller.

    Raises:
        ValueError: both; another size, dtype, number of channels or of clips; a damaged picture or
            one of 32 bits; frames that the tokenizer does not take, or more than will be made.
    """
    if image is not None and video is not None:
        raise bad("video", "a video and an image", "one of the two")
    name, given = ("image", image) if video is None else ("video", video)
    if given is None:
        return None
    several = isinstance(given, Sequence) and not isinstance(given, str)
    pictures: list[Any] = [*given] if several else [given]
    if pictures and all(isinstance(p, Image.Image) for p in pictures):
        arrays = [np.asarray(to_rgb(picture, name=name)) for picture in pictures]
        if len({array.shape for array in arrays}) == 1:
            given = arrays[0] if name == "image" and not several else np.stack(arrays)
    if not isinstance(given, np.ndarray | Tensor):
        raise bad(name, type(given).__name__, "uint8 pixels, or pictures of one size")
    if str(given.dtype).removeprefix("torch.") != "uint8":
        raise bad(name, str(given.dtype), "uint8")
    # Copied, because torch takes no array that is read-only or runs backwards.
    array = given if isinstance(given, Tensor) else torch.from_numpy(np.array(given, order="C"))
    height, width = (side * tokenizer.space_stride for side in grid)
    top, right, bottom, left = canvas
    height, width = height - top - bottom, width - right - left
    if name == "image":
        one = array.ndim == 3
        allowed = (height, width, 3) if one else (prompts, height, width, 3)
        check_shape(name, array.shape, allowed, "[h, w, 3]" if one else "[b, h, w, 3]")
        array = array[None, None] if one else array[:, None]
    else:
        one = array.ndim == 4
        allowed = (None, height, width, 3) if one else (prompts, None, height, width, 3)
        check_shape(name, array.shape, allowed, "[n, h, w, 3]" if one else "[b, n, h, w, 3]")
        array = array[None] if one else array
    tokenizer.latent_frames(array.shape[1], f"{name}.frames")
    if array.shape[1] > frames:
        raise bad(name, f"{array.shape[1]} frames", f"at most num_frames={frames}")
    return ((array.float() - 127.5) / 127.5).permute(0, 4, 1, 2, 3)


def read_texts(name: str, prompt: Any, embeds: Any) -> list[str] | Any | None:
    """Return texts, or the states of texts as they came; None if neither is given.

    Raises:
        ValueError: both, no text in a list, or something that is no text or has lone surrogates.
    """
    if prompt is not None and embeds is not None:
        raise bad(f"{name}_embeds", f"embeddings and a {name}", "one of the two")
    if embeds is not None:
        return embeds
    if prompt is None:
        return None
    texts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(texts, Sequence) or not texts:
        raise bad(name, prompt, "a text, or at least one in a list")
    return [check_text(name, text) for text in texts]


def show(
    latents: Float[Tensor, "b c t h w"],
    tokenizer: Tokenizer,
    output_type: str,
    edit: Edit | None = None,
) -> Any:
    """Return latents as what `NovaOutput` says for an output type, joined with what an edit gives.

    Raises:
        ValueError: NaN or infinite pixels, which no integer stands for.
    """
    if output_type == "latent":
        return latents
    pixels = tokenizer.decode(latents)
    if output_type == "pt":
        check_finite("pixels", pixels)
        shown = ((pixels.transpose(1, 2) + 1) / 2).clamp(0, 1)
        if edit is None:
            return shown
        return (edit.blend(shown.movedim(2, -1) * 255) / 255).movedim(-1, 2)
    array = frames_of(pixels, edit)
    if output_type == "np":
        return array
    return [[Image.fromarray(frame) for frame in clip] for clip in array]


def frames_of(
    pixels: Float[Tensor, "b 3 t h w"], edit: Edit | None = None, first: int = 0
) -> UInt8[np.ndarray, "b t h w 3"]:
    """Return pixels in [-1, 1] as frames, from number `first` on; errors as `show`."""
    check_finite("pixels", pixels)
    # Cut off, not rounded, as released code does.
    frames = pixels.mul(127.5).add(127.5).clamp(0, 255).byte().permute(0, 2, 3, 4, 1)
    if edit is not None:
        frames = edit.blend(frames.float(), first).round().byte()
    return frames.cpu().numpy()
