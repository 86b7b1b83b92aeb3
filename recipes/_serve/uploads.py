"""What a visitor sends: a picture's or a clip's file, and a painted mask, bounded and read."""

import base64
import binascii
import io
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from contar._errors import bad
from contar._typing import Bool, Tensor, UInt8
from contar.media import fit_frames, open_video, read_image
from recipes._serve.wish import Bounds

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
CLIPS = (".mp4", ".mov", ".webm", ".mkv", ".avi", ".gif")
MOST_PIXELS = 4096 * 4096  # of a picture or a frame
MOST_SECONDS = 60.0  # of a clip
_PAINTED = "data:image/png;base64,"


def read_upload(path: str | Path, bounds: Bounds) -> UInt8[Tensor, "n h w 3"]:
    """Return the frames of a file, cut to the model's shape: a picture's one, or a clip's last.

    Of a clip as many are returned as a result may have, at the model's rate. A large picture is
    refused before it is decoded, a clip of large frames once its first is.

    Raises:
        ValueError: a file of another kind, a damaged one, or one beyond the bounds.
        ImportError: a clip, and av is not installed.
    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in PICTURES + CLIPS:
        raise bad("file", file.name, "one that ends in " + ", ".join(PICTURES + CLIPS))
    try:
        if suffix in PICTURES:
            with Image.open(file, formats=_FORMATS) as picture:
                _check_size(picture.width * picture.height)
            frames = read_image(file, name="file")[None]
        else:
            frames = _clip(file, bounds)
    except FileNotFoundError as error:  # another sent the same one, which was removed when read
        raise bad("file", file.name, "one that is still here: send it again") from error
    except Image.DecompressionBombError as error:
        raise bad("file", "too many pixels", f"at most {MOST_PIXELS}") from error
    except (ValueError, OSError, SyntaxError) as error:
        text = str(error).replace(str(file), file.name)  # the server's folders are its own
        if text.startswith("file: "):
            raise ValueError(text) from error
        raise bad("file", file.name, "a picture that can be decoded") from error
    return fit_frames(frames, bounds.height, bounds.width)


def _clip(file: Path, bounds: Bounds) -> UInt8[Tensor, "n h w 3"]:
    """Return the last frames of a clip."""
    video, rate = open_video(file, "file"), bounds.usual["fps"]
    for _, first in islice(video.frames(), 1):
        _check_size(first.width * first.height * float(max(video.aspect, 1 / video.aspect)))
    kept: list[np.ndarray] = []
    for number, picture in enumerate(video.pictures(rate)):
        if number > MOST_SECONDS * rate:
            raise bad("file", f"more than {MOST_SECONDS:g} s", f"at most {MOST_SECONDS:g} s")
        small = fit_frames(torch.from_numpy(picture.copy())[None], bounds.height, bounds.width)
        kept = [*kept, small[0].numpy()][-bounds.frames :]
    return torch.from_numpy(np.stack(kept))


def _check_size(pixels: float) -> None:
    if pixels > MOST_PIXELS:
        raise bad("file", f"{pixels:.0f} pixels a frame", f"at most {MOST_PIXELS}")


def read_mask(painted: str, height: int, width: int) -> Bool[Tensor, "h w"]:
    """Return where a canvas is painted: its PNG of the frame's size as a data URL, "" for nothing.

    Raises:
        ValueError: no such URL, a picture of another size, or one that is damaged.
    """
    if not painted:
        return torch.zeros(height, width, dtype=torch.bool, device="cpu")
    if not painted.startswith(_PAINTED) or len(painted) > 8 * height * width + 4096:
        raise bad("mask", f"{painted[:24]}…", f"a PNG of {height} x {width} pixels as a data URL")
    try:
        content = base64.b64decode(painted.removeprefix(_PAINTED), validate=True)
        picture = Image.open(io.BytesIO(content), formats=["PNG"])
        if picture.size != (width, height):
            got = f"{picture.height} x {picture.width} pixels"
            raise bad("mask", got, f"{height} x {width}, as a frame")
        alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    except (OSError, SyntaxError, binascii.Error, Image.DecompressionBombError) as error:
        raise bad("mask", "a damaged picture", "a PNG as a data URL") from error
    return torch.from_numpy(alpha > 127)
