"""Pictures, read into uint8 tensors and fitted to a size."""

import os

import numpy as np
import torch
from PIL import Image, ImageOps

from contar._errors import bad, check_count
from contar._typing import Tensor, UInt8
from contar.media.decoding import file_at
from contar.media.video import check_frames

_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
# By name: Pillow would hand PostScript, under any suffix, to Ghostscript, which runs it.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
# Of PNG, JPEG, WebP, GIF, BMP and TIFF.
_BEGINNINGS = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")


def to_rgb(picture: Image.Image, *, name: str = "picture", what: str = "a picture") -> Image.Image:
    """Return a picture in RGB, turned as its EXIF data says.

    Transparent parts show white; 16 bits of grey become 8.

    Args:
        picture: that may not be decoded yet.
        name: of the argument, for errors.
        what: came, for errors.

    Raises:
        ValueError: it is damaged, or has values without a range.
    """
    try:
        turned = ImageOps.exif_transpose(picture)
    except _UNREADABLE as error:
        raise bad(name, what, "a picture that can be decoded") from error
    if turned.mode in ("I", "F"):
        raise bad(name, f"{what} of mode {turned.mode}", "8 or 16 bits a channel")
    if turned.mode.startswith("I;16"):  # Pillow's own conversion clips at 255
        turned = Image.fromarray((np.asarray(turned) >> 8).astype(np.uint8))
    if turned.has_transparency_data:
        white = Image.new("RGBA", turned.size, "white")
        turned = Image.alpha_composite(white, turned.convert("RGBA"))
    return turned.convert("RGB")


def read_image(path: str | os.PathLike[str], *, name: str = "path") -> UInt8[Tensor, "h w 3"]:
    """Return a picture as uint8 RGB [h, w, 3], turned as its EXIF data says.

    Transparent parts show white; 16 bits of grey become 8; of an animation the first picture comes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no PNG, JPEG, WebP, BMP, GIF or TIFF, is damaged, or has values without a
            range.
    """
    file = file_at(path, name)
    with file.open("rb") as stream:
        try:
            picture = Image.open(stream, formats=_FORMATS)
        except _UNREADABLE as error:
            raise bad(name, str(file), "a picture that can be decoded") from error
        with picture:
            return torch.from_numpy(np.array(to_rgb(picture, name=name, what=str(file))))


def glance_image(path: str | os.PathLike[str], *, name: str = "path") -> None:
    """Raise what `read_image` would, as far as a look at the first bytes shows it.

    Raises:
        FileNotFoundError, ValueError: as `read_image`.
    """
    file = file_at(path, name)
    with file.open("rb") as stream:
        known = stream.read(16).startswith(_BEGINNINGS)
    if not known:
        read_image(file, name=name)


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
