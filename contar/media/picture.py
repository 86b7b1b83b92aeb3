"""Pictures, read into uint8 tensors and fitted to a size."""

import os

import numpy as np
import torch
from PIL import Image, ImageOps

from contar._errors import bad, check_count
from contar._typing import Tensor, UInt8
from contar.media.video import check_frames, file_at

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def to_rgb(picture: Image.Image) -> Image.Image:
    """Return a picture in RGB; transparent parts show white, 16 bits of grey become 8."""
    if picture.mode.startswith("I;16"):  # Pillow's own conversion clips at 255
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return picture.convert("RGB")


def read_image(path: str | os.PathLike[str], *, name: str = "path") -> UInt8[Tensor, "h w 3"]:
    """Return a picture as uint8 RGB [h, w, 3], turned as its EXIF data says.

    Transparent parts show white; 16 bits of grey become 8; of an animation the first picture comes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no picture that Pillow reads, is damaged, or has values without a range.
    """
    file = file_at(path, name)
    with file.open("rb") as stream:
        try:
            with Image.open(stream) as picture:
                turned = ImageOps.exif_transpose(picture)
        except _UNREADABLE as error:
            raise bad(name, str(file), "a picture that can be decoded") from error
    if turned.mode in ("I", "F"):
        raise bad(name, f"{file} of mode {turned.mode}", "8 or 16 bits a channel")
    return torch.from_numpy(np.array(to_rgb(turned)))


def fit_frames(
    frames: UInt8[Tensor, "t h w 3"], height: int, width: int
) -> UInt8[Tensor, "t height width 3"]:
    """Return frames of another size: scaled to cover it, the middle cut out.

    Raises:
        ValueError: other frames, or a side below 1.
    """
    pixels = check_frames(frames)
    size = (check_count("width", width), check_count("height", height))
    fitted = [ImageOps.fit(Image.fromarray(picture), size) for picture in pixels]
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in fitted]))
