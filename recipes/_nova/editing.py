"""Masks of pixels: what of a clip is given, what is made anew, and how the two are joined."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from contar._errors import bad, check_count, check_shape, check_size
from contar._typing import Bool, Float, Tensor
from contar.media import to_rgb
from contar.tokenizers import VAETokenizer
from recipes._nova.settings import Settings, check_kept

Canvas = tuple[int, int, int, int]  # pixels added at the top, right, bottom and left


@dataclass(frozen=True)
class Edit:
    """A clip of which some is made anew.

    Attributes:
        clip: [b, 3, n, h, w] in [-1, 1], what is given, one clip for all prompts or each.
        keep: [t, rows, columns], tokens that are given, of all latent frames to be.
        share: [n, h, w] in [0, 1], of what is made in each pixel: 1 where the mask is white, 0
            farther from there than the mask has grown.
    """

    clip: Float[Tensor, "b 3 n h w"]
    keep: Bool[Tensor, "t h2 w2"]
    share: Float[Tensor, "n h w"]

    def blend(
        self, made: Float[Tensor, "b2 t h w 3"], first: int = 0
    ) -> Float[Tensor, "b2 t h w 3"]:
        """Return frames joined with what was given, which far from the mask comes back exactly.

        Args:
            made: values from 0 to 255.
            first: number of their first frame.
        """
        given = ((self.clip + 1) * 127.5).round().permute(0, 2, 3, 4, 1)
        given = given.repeat_interleave(len(made) // len(given), dim=0)
        given, share = given[:, first:], self.share[first : first + made.shape[1], ..., None]
        count = min(made.shape[1], given.shape[1])
        given, share = (x.to(made.device) for x in (given[:, :count], share))
        return torch.cat([given.lerp(made[:, :count], share), made[:, count:]], dim=1)


def read_canvas(canvas: Any, height: int, width: int) -> Canvas:
    """Return how many pixels are added on each side; None is no canvas.

    Raises:
        ValueError: not four counts, or no pixel left for what is given.
    """
    if canvas is None:
        return 0, 0, 0, 0
    if not isinstance(canvas, Sequence) or isinstance(canvas, str | bytes) or len(canvas) != 4:
        raise bad("canvas", canvas, "(top, right, bottom, left) in pixels")
    top, right, bottom, left = (check_count("canvas", side, 0) for side in canvas)
    if top + bottom >= height or left + right >= width:
        raise bad("canvas", canvas, f"less than the result's {height} x {width} pixels")
    return top, right, bottom, left


def read_edit(
    clip: Float[Tensor, "b 3 n h w"] | None,
    mask: Any,
    canvas: Canvas,
    tokenizer: VAETokenizer,
    settings: Settings,
    grow: int = 1,
) -> Edit | None:
    """Return what a mask and a canvas make of a clip; None if there is neither.

    A token is made anew if one of its pixels is white, in any frame of its latent frame, and with
    it those around it, since a tokenizer's latents know a little of what is beside them. In pixels,
    what is made and what is given fade into each other there. What the canvas adds is white, and
    holds the nearest given pixels when the clip is encoded.

    Args:
        clip: that was given, smaller by the canvas than the result.
        mask: uint8 or bool [h, w] or [n, h, w], or a picture or several: white (above 127, True)
            is made anew.
        canvas: of `read_canvas`.
        tokenizer: of the clip.
        settings: of the result.
        grow: tokens that are made anew on each side of a white one.

    Raises:
        ValueError: no clip; a mask of another size, dtype or number of frames; nothing white; a
            frame that is made wholly anew before one that is given.
    """
    check_size("grow", grow, 0, max(settings.grid))
    if mask is None and not any(canvas):
        return None
    if clip is None:
        name = "canvas" if mask is None else "mask"
        raise bad(name, f"a {name}", "None without an image or a video")
    white = torch.zeros(clip.shape[2:], dtype=torch.bool, device="cpu")
    if mask is not None:
        white = _read_mask(mask, tuple(white.shape))
    top, right, bottom, left = canvas
    white = functional.pad(white, (left, right, top, bottom), value=True)
    if not white.any():
        raise bad("mask", "no white pixel", "some white: what is to be made anew")
    sides = (left, right, top, bottom)
    clip = functional.pad(clip.flatten(0, 1), (*sides, 0, 0), mode="replicate").unflatten(
        0, (-1, 3)
    )

    count, stride = tokenizer.latent_frames(white.shape[0]), tokenizer.time_stride
    before = count * stride - white.shape[0]  # that the first latent frame has fewer
    white = torch.cat([white[:1].expand(before, -1, -1), white])
    white = white.unflatten(0, (count, stride)).any(1).float()[:, None]
    side = settings.model.sizes.patch * tokenizer.space_stride
    anew = functional.max_pool2d(white, side)
    anew = _around(functional.max_pool2d, anew, grow)
    keep = functional.pad(anew[:, 0] == 0, (0, 0, 0, 0, 0, settings.plan.frames - count))
    check_kept("mask", settings, keep)
    share = _around(functional.max_pool2d, white, grow * side // 2)
    share = _around(functional.avg_pool2d, share, grow * side // 2, count_include_pad=False)[:, 0]
    return Edit(clip, keep, share.repeat_interleave(stride, dim=0)[before:])


def _around(pool: Any, x: Tensor, reach: int, **options: Any) -> Tensor:
    """Pool over what is within reach on each side, first along columns, then along rows."""
    x = pool(x, (2 * reach + 1, 1), stride=1, padding=(reach, 0), **options)
    return pool(x, (1, 2 * reach + 1), stride=1, padding=(0, reach), **options)


def _read_mask(mask: Any, shape: tuple[int, ...]) -> Bool[Tensor, "n h w"]:
    """Return where a mask is white, for each of the given frames."""
    several = isinstance(mask, Sequence) and not isinstance(mask, str)
    pictures: list[Any] = [*mask] if several else [mask]
    if pictures and all(isinstance(picture, Image.Image) for picture in pictures):
        arrays = [np.asarray(to_rgb(one, name="mask").convert("L")) for one in pictures]
        if len({array.shape for array in arrays}) == 1:
            mask = np.stack(arrays) if several else arrays[0]
    if not isinstance(mask, np.ndarray | Tensor):
        raise bad("mask", type(mask).__name__, "uint8 or bool pixels, or pictures of one size")
    if str(mask.dtype).removeprefix("torch.") not in ("uint8", "bool"):
        raise bad("mask", str(mask.dtype), "uint8 or bool")
    array = mask if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask, order="C"))
    one = array.ndim == 2
    axes = "[h, w]" if one else "[n, h, w]"
    check_shape("mask", array.shape, shape[1:] if one else shape, f"{axes}, as what is given")
    white = array.cpu() if array.dtype == torch.bool else array.cpu() > 127
    return white.expand(shape)
