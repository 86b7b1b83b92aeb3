"""Pixels as files and people see them, uint8, and as networks do, from -1 to 1."""

import torch

from contar._errors import bad, check_shape
from contar._typing import Float, Tensor, UInt8


def frames_to_pixels(frames: UInt8[Tensor, "*b t h w c"]) -> Float[Tensor, "*b c t h w"]:
    """Return frames as float32 in [-1, 1], channels before time: as a video tokenizer takes them.

    pixel = frame / 127.5 - 1
    """
    return frames.movedim(-1, -4).float() / 127.5 - 1


def pixels_to_frames(pixels: Float[Tensor, "*b c t h w"]) -> UInt8[Tensor, "*b t h w c"]:
    """Return pixels in [-1, 1] as uint8, rounded, channels last; what lies outside is cut off."""
    return pixels.movedim(-4, -1).mul(127.5).add(127.5).clamp(0, 255).round().byte()


def check_pixels(name: str, frames: object, axes: str) -> Tensor:
    """Return frames.

    Args:
        name: the argument.
        frames: what came.
        axes: that it must have, as in "[n, h, w, 3]".

    Raises:
        ValueError: no uint8 tensor of that many axes, the last of 3, or one without pixels.
    """
    if not isinstance(frames, Tensor):
        raise bad(name, type(frames).__name__, f"a uint8 tensor {axes}")
    if frames.dtype != torch.uint8:
        raise bad(name, frames.dtype, "uint8")
    check_shape(name, frames.shape, (*[None] * axes.count(","), 3), axes)
    if 0 in frames.shape[1:]:
        raise bad(name, tuple(frames.shape), f"{axes}, h and w at least 1")
    return frames
