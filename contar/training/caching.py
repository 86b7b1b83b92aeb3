"""Clips to what a step needs of them: latents, states of their captions, motion score."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from contar._typing import Tensor, UInt8
from contar.conditioning import encode_texts
from contar.data.cache import Sample
from contar.media import motion_score
from contar.tokenizers.vae import VAETokenizer


class Clip(NamedTuple):
    """A clip with its caption and frame rate."""

    frames: UInt8[Tensor, "t h w 3"]
    caption: str
    fps: float


def fingerprint(model: nn.Module) -> str:
    """Return a short name that another config or other weights would not have."""
    config: Any = getattr(model, "config", {})
    config = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    plain = {key: value for key, value in config.items() if not key.startswith("_")}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def encode_clips(
    clips: Iterable[Clip],
    tokenizer: VAETokenizer,
    text_tokenizer: Any,
    text_encoder: Any,
    *,
    length: int,
    batch: int = 32,
) -> Iterator[Sample]:
    """Yield for each clip "latents" (mean and deviation, scaled), "text", and its facts.

    Args:
        clips: of one size and length.
        tokenizer: of pixels.
        text_tokenizer: of transformers.
        text_encoder: of transformers.
        length: most tokens of a caption.
        batch: captions that are encoded together.

    Yields:
        arrays "latents" [2c, t, h, w] and "text" [l, e], float16; facts caption, fps, and
        motion_flow, None for a clip of one frame.

    Raises:
        ValueError: clips that the tokenizer does not take.
    """
    waiting: list[Clip] = []
    for clip in clips:
        waiting.append(clip)
        if len(waiting) == batch:
            yield from _encode(waiting, tokenizer, text_tokenizer, text_encoder, length)
            waiting = []
    if waiting:
        yield from _encode(waiting, tokenizer, text_tokenizer, text_encoder, length)


def _encode(
    clips: list[Clip], tokenizer: VAETokenizer, words: Any, encoder: Any, length: int
) -> Iterator[Sample]:
    texts = encode_texts([clip.caption for clip in clips], words, encoder, length=length)
    for clip, text in zip(clips, texts, strict=True):
        pixels = clip.frames.permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        mean, deviation = tokenizer.posterior(pixels)
        latents = torch.cat([mean, deviation], dim=1)[0]
        score = motion_score(clip.frames) if len(clip.frames) > 1 else None
        yield Sample(
            {"latents": _half(latents), "text": _half(text)},
            {"caption": clip.caption, "fps": clip.fps, "motion_flow": score},
        )


def _half(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy().astype(np.float16)
