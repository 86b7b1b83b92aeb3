"""Clips to what a step needs of them: latents, states of their captions, motion score."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from contar._errors import bad, check_choice, check_count, check_number, check_text
from contar._typing import Tensor, UInt8
from contar.conditioning import encode_texts
from contar.data import Cache, CaptionedFile, Sample
from contar.media import (
    fit_frames,
    frames_to_pixels,
    glance_image,
    glance_video,
    motion_score,
    open_video,
    read_image,
)
from contar.tokenizers import VAETokenizer


class Clip(NamedTuple):
    """A clip with its caption and frame rate."""

    frames: UInt8[Tensor, "t h w 3"]
    caption: str
    fps: float


def read_clips(
    files: Sequence[CaptionedFile], *, frames: int, fps: float, height: int, width: int
) -> Iterator[Clip]:
    """Return clips of one size and length from captioned files, one after the other.

    A video is cut into as many clips as it has room for, one after the other, of frames chosen by
    their times; of one at a lower mean rate than `fps` the clips have that rate, and say so. Of a
    video asked for clips of 1 frame, the first is taken. The files are only glanced at before the
    first clip; each is read when its clips are asked for, one clip at a time.

    Args:
        files: of `contar.data.captioned_files`.
        frames: of a clip; 1 makes pictures.
        fps: frames per second.
        height: in pixels; what a file has more is cut off evenly.
        width: in pixels, likewise.

    Raises:
        FileNotFoundError: a file that is gone.
        ValueError: a number outside its range, a picture where clips of several frames are asked
            for, or a file that is no video or picture or is cut off; the file is named, and nothing
            is returned. A file that is damaged and a video that is too short are named when their
            clips are asked for.
    """
    frames, fps = check_count("frames", frames), check_number("fps", fps, 0.01)
    size = (check_count("height", height), check_count("width", width))
    for file in files:
        if frames > 1 and not file.is_video:
            raise bad("frames", f"{frames} of the picture {file.path}", "1, or a folder of videos")
    for file in files:
        (glance_video if file.is_video else glance_image)(file.path, name=str(file.path))
    return _clips(files, frames, fps, size)


def _clips(
    files: Sequence[CaptionedFile], frames: int, fps: float, size: tuple[int, int]
) -> Iterator[Clip]:
    for file in files:
        if file.is_video:
            video = open_video(file.path, str(file.path))
            rate = min(fps, video.rate)
            pictures = video.pictures(rate)
        else:
            rate = fps
            pictures = iter([read_image(file.path, name=str(file.path)).numpy()])
        pictures = islice(pictures, 1 if frames == 1 else None)
        count = 0
        while chosen := list(islice(pictures, frames)):
            count += len(chosen)
            if len(chosen) == frames:
                whole = torch.from_numpy(np.stack(chosen))
                yield Clip(fit_frames(whole, *size), file.caption, rate)
        if count < frames:
            got = f"{count} frames at {fps:g} per second"
            raise bad(str(file.path), got, f"at least {frames}")


def fingerprint(model: nn.Module) -> str:
    """Return a short name that another config or other weights would not have."""
    config: Any = getattr(model, "config", {})
    config = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    hidden = ("_", "transformers_version")  # no part of the model
    plain = {key: value for key, value in config.items() if not key.startswith(hidden)}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def encode_clips(
    clips: Iterable[Clip],
    tokenizer: VAETokenizer,
    text_tokenizer: Any,
    text_encoder: Any,
    *,
    length: int,
    batch: int = 32,
    precision: Literal["no", "bf16"] = "no",
) -> Iterator[Sample]:
    """Yield for each clip "latents" (mean and deviation, scaled), "text", and its facts.

    Args:
        clips: of one size and length.
        tokenizer: of pixels.
        text_tokenizer: of transformers.
        text_encoder: of transformers.
        length: most tokens of a caption.
        batch: captions that are encoded together.
        precision: in which the tokenizer computes; "bf16" is several times as fast where the
            hardware knows it. What it rounds is small beside what training draws from the posterior
            unless the posterior is narrow: a hundredth of a latent's size.

    Yields:
        arrays "latents" [2c, t, h, w] and "text" [l, e], float16, or float32 where a value is
        beyond float16; facts caption, fps, and motion_flow, None for a clip of one frame.

    Raises:
        ValueError: clips that the tokenizer does not take, a batch below 1, an unknown precision,
            or latents or text states that are not finite (the clip is named by its caption).
    """
    check_choice("precision", precision, ("no", "bf16"))
    remaining = iter(clips)
    while together := list(islice(remaining, check_count("batch", batch))):
        captions = [clip.caption for clip in together]
        texts = encode_texts(captions, text_tokenizer, text_encoder, length=length)
        for clip, text in zip(together, texts, strict=True):
            pixels = frames_to_pixels(clip.frames[None].to(tokenizer.vae.device))
            with torch.autocast(pixels.device.type, torch.bfloat16, enabled=precision == "bf16"):
                latents = torch.cat(tokenizer.posterior(pixels), dim=1)[0]
            score = motion_score(clip.frames) if len(clip.frames) > 1 else None
            fps = check_number("clips.fps", clip.fps, 0)
            yield Sample(
                {"latents": _stored(latents, "latents", clip), "text": _stored(text, "text", clip)},
                {"caption": clip.caption, "fps": fps, "motion_flow": score},
            )
        together = []  # its pixels go before the next are read


def _stored(tensor: Tensor, name: str, clip: Clip) -> np.ndarray:
    """Return finite values in float16, or in float32 where one is too large for it."""
    values = tensor.float().cpu().numpy()
    if not np.isfinite(values).all():
        raise bad("clips", f"{name} with NaN or infinity of {clip.caption!r}", "finite values")
    fits = np.abs(values).max(initial=0) <= np.finfo(np.float16).max
    return values.astype(np.float16 if fits else np.float32)


def check_samples(
    cache: Cache, count: int | None = None, *, rows: Sequence[int] | None = None
) -> list[Sample]:
    """Return the samples of a cache, its first ones or those at `rows`, once each is seen to be one
    of clips.

    Raises:
        ValueError: a sample that `encode_clips` would not make, or of another shape than the first;
            it is named.
    """
    rows = range(len(cache))[:count] if rows is None else rows
    samples, first = [cache[index] for index in rows], cache[0]
    for index, sample in zip(rows, samples, strict=True):
        if wrong := _wrong(sample, first):
            raise bad("cache", f"{wrong} in {cache.where(index)}", "samples of encode_clips")
    return samples


def _wrong(sample: Sample, first: Sample) -> str:
    """Return what a sample lacks, or nothing."""
    for name, axes in (("latents", 4), ("text", 2)):
        array, model = sample.arrays.get(name), first.arrays.get(name)
        if array is None or array.dtype.kind != "f" or array.ndim != axes:
            return f"no {name} of {axes} axes"
        fixed = slice(0 if name == "latents" else 1, None)
        if model is not None and array.shape[fixed] != model.shape[fixed]:
            return f"{name} of shape {array.shape} beside {model.shape}"
        if not np.isfinite(array).all():
            return f"{name} with NaN or infinity"
    latents = sample.arrays["latents"]
    if not latents.size or latents.shape[0] % 2:
        return f"latents of shape {latents.shape}"
    try:
        check_text("caption", sample.facts.get("caption"))
        check_number("fps", sample.facts.get("fps"), 0)
        flow = sample.facts.get("motion_flow")
        if flow is not None or latents.shape[1] > 1:
            check_number("motion_flow", flow)
    except ValueError as error:
        return f"a wrong fact ({error})"
    return ""
