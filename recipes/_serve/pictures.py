"""What a browser shows: tokens as they come, frames, videos; all as data URLs, none as a file."""

import base64
import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from contar._typing import Float, Int, Tensor, UInt8
from contar.generation import Progress
from contar.media import write_video
from contar.tokenizers import unpatchify

GIVEN, TO_COME = -1, -2  # in place of a set's number
_KINDS = {".png": "image/png", ".mp4": "video/mp4", ".gif": "image/gif"}
_SIDE = 384  # of a picture of tokens, about
_SCALE = 4.0  # standard deviations of a latent from black to white
_EMPTY, _MOST = (128, 128, 136), 400 * 400  # colour of what is to come; pixels of a PNG
_NEW, _OLD = (255, 120, 30), (70, 110, 190)  # as in the pages' pictures: orange new, blue known


def sets_of(before: Int[Tensor, " n"] | None, now: Progress) -> Int[Tensor, " n"]:
    """Return which set each token of the first sample came with, `before` those of a set earlier.

    What stands in the frame and was in no set is `GIVEN`, what does not is `TO_COME`.
    """
    if before is None or now.set == 0:
        before = torch.where(now.tokens[0].any(dim=1), GIVEN, TO_COME)
    return before.scatter(0, now.current[0], now.set)


def draw_tokens(
    tokens: Float[Tensor, "n c"], sets: Int[Tensor, " n"], grid: tuple[int, int], patch: int
) -> Image.Image:
    """Return a frame's tokens as a picture: three channels of the latent as red, green and blue.

    Tokens of the last set have a frame in orange, those before in blue, given ones none; where
    there is room, each has the number of its set, from 1. What is to come is grey.

    Args:
        tokens: of the frame so far.
        sets: of `sets_of`.
        grid: rows and columns of tokens.
        patch: latent pixels a side of a token.
    """
    latent = unpatchify(tokens, grid, patch)
    three = latent[torch.arange(3).clamp(max=len(latent) - 1)]
    colours = (three / _SCALE + 0.5).clamp(0, 1).mul(255).byte().permute(1, 2, 0).numpy()
    scale = max(1, _SIDE // max(colours.shape[:2]))
    side = scale * patch
    picture = Image.fromarray(colours).resize(
        (grid[1] * side, grid[0] * side), Image.Resampling.NEAREST
    )
    pen, last = ImageDraw.Draw(picture), int(sets.max())
    for place, number in enumerate(sets.tolist()):
        top, left = (axis * side for axis in divmod(place, grid[1]))
        box = (left, top, left + side - 1, top + side - 1)
        if number == TO_COME:
            pen.rectangle(box, fill=_EMPTY, outline=(150, 150, 158))
        elif number >= 0:
            width = max(1, side // (16 if number == last else 40))
            pen.rectangle(box, outline=_NEW if number == last else _OLD, width=width)
            if side >= 40:
                pen.text(
                    (left + side // 10, top + side // 12), str(number + 1), font_size=side / 4,
                    fill="white", stroke_width=2, stroke_fill="black",
                )  # fmt: skip
    return picture


def picture_url(picture: Image.Image | UInt8[np.ndarray, "h w 3"]) -> str:
    """Return a picture as a data URL: PNG if it is small, else JPEG."""
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    kind = "PNG" if image.width * image.height <= _MOST else "JPEG"
    stream = io.BytesIO()
    image.save(stream, format=kind)
    return _url(f"image/{kind.lower()}", stream.getvalue())


def thumbnail_url(frame: UInt8[np.ndarray, "h w 3"], side: int = 96) -> str:
    """Return a small picture of a frame, at most `side` wide and high, as a data URL."""
    picture = Image.fromarray(frame)
    picture.thumbnail((side, side))
    return picture_url(picture)


def film_suffix(frames: UInt8[np.ndarray, "t h w 3"]) -> str:
    """Return how the file of what was made ends: .png of one frame, .mp4, or .gif without av."""
    if len(frames) == 1:
        return ".png"
    try:
        import av  # noqa: F401
    except ImportError:  # or one that does not load
        return ".gif"
    return ".mp4"


def film_url(frames: UInt8[np.ndarray, "t h w 3"], fps: float, suffix: str) -> str:
    """Return a data URL of a file that ends so; a .gif has 50 frames a second at most."""
    rate = min(fps, 50) if suffix == ".gif" else fps
    with tempfile.TemporaryDirectory() as folder:  # gone at once, with what is in it
        file = write_video(frames, Path(folder) / f"made{suffix}", fps=rate)
        return _url(_KINDS[suffix], file.read_bytes())


def _url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
