"""Clips to what a step needs of them: latents, states of their captions, motion score."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from contar._errors import bad, check_choice, check_count, check_number
from contar._typing import Tensor, UInt8
from contar.conditioning import encode_texts
from contar.data.cache import Sample
from contar.data.captioned import CaptionedFile
from contar.media import fit_frames, motion_score, read_image, read_video
from contar.tokenizers.vae import VAETokenizer


class Clip(NamedTuple):
    """A clip with its caption and frame rate."""

    frames: UInt8[Tensor, "t h w 3"]
    caption: str
    fps: float


def read_clips(
    files: Sequence[CaptionedFile], *, frames: int, fps: float, height: int, width: int
) -> Iterator[Clip]:
    """Return clips of one size and length from captioned files, one after the other.

    A video is cut into as many clips as it has room for, one after the other; of one at a lower
    rate than `fps` every frame is taken, and the clip says that rate. Of a video asked for clips of
    1 frame, the first is taken. Each video is decoded whole, into memory, at its own size.

    Args:
        files: of `contar.data.captioned.captioned_files`.
        frames: of a clip; 1 makes pictures.
        fps: frames per second.
        height: in pixels; what a file has more is cut off evenly.
        width: in pixels, likewise.

    Raises:
        FileNotFoundError: a file that is gone.
        ValueError: a number outside its range, a picture where clips of several frames are asked
            for, or a file that cannot be read; the file is named, and nothing is returned. A video
            that is too short is named when its clips are asked for.
    """
    check_count("frames", frames)
    check_number("fps", fps, 0.01)
    for file in files:
        if frames > 1 and not file.is_video:
            raise bad("frames", f"{frames} of the picture {file.path}", "1, or a folder of videos")
    for file in files:
        _read(file, 1, fps)
    return _clips(files, frames, fps, (height, width))


def _read(
    file: CaptionedFile, frames: int | None, fps: float
) -> tuple[UInt8[Tensor, "t h w 3"], float]:
    """Return the first frames of a file, or all, and its rate, `fps` for a picture."""
    if file.is_video:
        return read_video(file.path, frames=frames, name=str(file.path))
    return read_image(file.path, name=str(file.path))[None], fps


def _clips(
    files: Sequence[CaptionedFile], frames: int, fps: float, size: tuple[int, int]
) -> Iterator[Clip]:
    for file in files:
        whole, rate = _read(file, 1 if frames == 1 else None, fps)
        step = max(rate / fps, 1.0)
        places = [round(i * step) for i in range(int((len(whole) - 1) / step) + 1)]
        if len(places) < frames:
            got = f"{len(places)} frames at {fps:g} per second"
            raise bad(str(file.path), got, f"at least {frames}")
        for first in range(0, len(places) - frames + 1, frames):
            chosen = whole[places[first : first + frames]]
            yield Clip(fit_frames(chosen, *size), file.caption, rate / step)


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
        arrays "latents" [2c, t, h, w] and "text" [l, e], float16; facts caption, fps, and
        motion_flow, None for a clip of one frame.

    Raises:
        ValueError: clips that the tokenizer does not take, or an unknown precision.
    """
    check_choice("precision", precision, ("no", "bf16"))
    parts = (tokenizer, text_tokenizer, text_encoder, length, precision == "bf16")
    waiting: list[Clip] = []
    for clip in clips:
        waiting.append(clip)
        if len(waiting) == batch:
            yield from _encode(waiting, *parts)
            waiting = []
    if waiting:
        yield from _encode(waiting, *parts)


def _encode(
    clips: list[Clip], tokenizer: VAETokenizer, words: Any, encoder: Any, length: int, fast: bool
) -> Iterator[Sample]:
    texts = encode_texts([clip.caption for clip in clips], words, encoder, length=length)
    for clip, text in zip(clips, texts, strict=True):
        pixels = clip.frames.permute(3, 0, 1, 2)[None].to(tokenizer.vae.device) / 127.5 - 1
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=fast):
            mean, deviation = tokenizer.posterior(pixels)
        latents = torch.cat([mean, deviation], dim=1)[0]
        score = motion_score(clip.frames) if len(clip.frames) > 1 else None
        yield Sample(
            {"latents": _half(latents), "text": _half(text)},
            {"caption": clip.caption, "fps": clip.fps, "motion_flow": score},
        )


def _half(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy().astype(np.float16)
