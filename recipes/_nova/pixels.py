"""Pixels that a pipeline is given: which come back, which are made anew; and those that it made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from contar._errors import bad, check_count, check_finite, check_shape, check_size
from contar._typing import Bool, Float, Tensor, UInt8
from contar.media import to_rgb
from contar.tokenizers import Tokenizer, VAETokenizer
from recipes._nova.settings import Settings, check_kept

Pixels = np.ndarray | Tensor | Image.Image | Sequence[Image.Image]
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
        """Return frames, from 0 to 255 and from number `first` on, joined with what was given."""
        given = ((self.clip + 1) * 127.5).round().permute(0, 2, 3, 4, 1)
        given = given.repeat_interleave(len(made) // len(given), dim=0)
        given, share = given[:, first:], self.share[first : first + made.shape[1], ..., None]
        count = min(made.shape[1], given.shape[1])
        given, share = (x.to(made.device) for x in (given[:, :count], share))
        return torch.cat([given.lerp(made[:, :count], share), made[:, count:]], dim=1)


def read_given(
    settings: Settings,
    tokenizer: VAETokenizer,
    prompts: int,
    frames: int,
    *,
    image: Any,
    video: Any,
    mask: Any,
    canvas: Any,
    grow: int,
) -> tuple[Float[Tensor, "b 3 n h w"] | None, Edit | None]:
    """Return given first frames, in [-1, 1], and what of them is given, if not all.

    Raises:
        ValueError: as `read_clip` and `read_edit`, a canvas that is not four counts or leaves no
            pixel for what is given; or more frames than a chunk has.
    """
    height, width = (side * tokenizer.space_stride for side in settings.latent)
    top, right, bottom, left = 0, 0, 0, 0
    if canvas is not None:
        if not isinstance(canvas, Sequence) or isinstance(canvas, str | bytes) or len(canvas) != 4:
            raise bad("canvas", canvas, "(top, right, bottom, left) in pixels")
        top, right, bottom, left = (check_count("canvas", side, 0) for side in canvas)
    if top + bottom >= height or left + right >= width:
        raise bad("canvas", canvas, f"less than the result's {height} x {width} pixels")
    size = height - top - bottom, width - right - left
    clip = read_clip(image, video, size, tokenizer, frames, prompts)
    edit = read_edit(clip, mask, (top, right, bottom, left), tokenizer, settings, grow)
    if edit is not None:
        return edit.clip, edit
    chunk = settings.plan.chunk
    if clip is not None and chunk and tokenizer.latent_frames(clip.shape[2]) > chunk:
        most = tokenizer.pixel_frames(chunk)
        raise bad("video", f"{clip.shape[2]} frames", f"at most {most}, those of a chunk")
    return clip, None


def read_clip(
    image: Any, video: Any, size: tuple[int, int], tokenizer: Tokenizer, frames: int, prompts: int
) -> Float[Tensor, "b 3 n h w"] | None:
    """Return given first frames as pixels in [-1, 1], one clip for all prompts or each; or None.

    An image is uint8 [h, w, 3] or a picture, turned as its EXIF data says, or one for each prompt;
    a video uint8 [n, h, w, 3] or pictures, or uint8 [b, n, h, w, 3], one for each prompt.

    Raises:
        ValueError: both; another size, dtype, number of channels or of clips; a damaged picture or
            one of 32 bits; frames that the tokenizer does not take, or more than will be made.
    """
    if image is not None and video is not None:
        raise bad("video", "a video and an image", "one of the two")
    name, given = ("image", image) if video is None else ("video", video)
    if given is None:
        return None
    if name == "video" and isinstance(given, Image.Image):
        given = [given]
    array = _read_array(name, given, ("uint8",))
    shape, axes = (*size, 3), "h, w, 3"
    if name == "video":
        shape, axes = (None, *shape), f"n, {axes}"
    if one := array.ndim == len(shape):
        check_shape(name, array.shape, shape, f"[{axes}]")
    else:
        check_shape(name, array.shape, (prompts, *shape), f"[b, {axes}]")
    array = array[None] if one else array
    array = array[:, None] if name == "image" else array
    tokenizer.latent_frames(array.shape[1], f"{name}.frames")
    if array.shape[1] > frames:
        raise bad(name, f"{array.shape[1]} frames", f"at most num_frames={frames}")
    return ((array.float() - 127.5) / 127.5).permute(0, 4, 1, 2, 3)


def _read_array(name: str, given: Any, dtypes: Sequence[str], mode: str = "RGB") -> Tensor:
    """Return pixels of one of the dtypes, or pictures of one size in a mode of PIL, as a tensor."""
    several = isinstance(given, Sequence) and not isinstance(given, str)
    pictures: list[Any] = [*given] if several else [given]
    if pictures and all(isinstance(picture, Image.Image) for picture in pictures):
        arrays = [np.asarray(to_rgb(one, name=name).convert(mode)) for one in pictures]
        if len({array.shape for array in arrays}) == 1:
            given = np.stack(arrays) if several else arrays[0]
    allowed = " or ".join(dtypes)
    if not isinstance(given, np.ndarray | Tensor):
        raise bad(name, type(given).__name__, f"{allowed} pixels, or pictures of one size")
    if str(given.dtype).removeprefix("torch.") not in dtypes:
        raise bad(name, str(given.dtype), allowed)
    # Copied, because torch takes no array that is read-only or runs backwards.
    return given if isinstance(given, Tensor) else torch.from_numpy(np.array(given, order="C"))


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

    A mask is uint8 or bool [h, w] or [n, h, w], or a picture or several, white above 127 or True.
    It grows by so many tokens on each side.

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
    sides = (left, right, top, bottom)
    white = functional.pad(white, sides, value=True)
    if not white.any():
        raise bad("mask", "no white pixel", "some white: what is to be made anew")
    clip = functional.pad(clip.flatten(0, 1), (*sides, 0, 0), mode="replicate")
    clip = clip.unflatten(0, (-1, 3))

    count, stride = tokenizer.latent_frames(white.shape[0]), tokenizer.time_stride
    before = count * stride - white.shape[0]  # that the first latent frame has fewer
    white = torch.cat([white[:1].expand(before, -1, -1), white])
    white = white.unflatten(0, (count, stride)).any(1).float()[:, None]
    side = settings.model.sizes.patch * tokenizer.space_stride
    anew = _around(functional.max_pool2d, functional.max_pool2d(white, side), grow)
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
    array = _read_array("mask", mask, ("uint8", "bool"), mode="L").cpu()
    one = array.ndim == 2
    axes = "[h, w]" if one else "[n, h, w]"
    check_shape("mask", array.shape, shape[1:] if one else shape, f"{axes}, as what is given")
    return (array if array.dtype == torch.bool else array > 127).expand(shape)


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
