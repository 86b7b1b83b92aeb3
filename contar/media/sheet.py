"""Clips as a contact sheet (PNG) and as an animation (GIF)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from contar._errors import bad, check_number
from contar._typing import Float, Tensor
from contar.media.video import write_video


def _pictures(frames: Tensor, least: int) -> np.ndarray:
    """Return frames as uint8 [b, t, h, w, 3], small ones enlarged by a whole factor."""
    if frames.ndim != 5 or frames.shape[1] not in (1, 3):
        raise bad("frames", tuple(frames.shape), "shape [b, 1 or 3, t, h, w]")
    values = frames.detach().float().cpu()
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise bad("frames", f"[{values.min():.3g}, {values.max():.3g}]", "values in [0, 1]")
    pixels = (values * 255).round().byte().permute(0, 2, 3, 4, 1).numpy()
    factor = max(1, -(-least // max(pixels.shape[2:4])))
    pixels = pixels.repeat(factor, axis=2).repeat(factor, axis=3)
    return np.broadcast_to(pixels, (*pixels.shape[:-1], 3))


def save_sheet(
    frames: Float[Tensor, "b c t h w"],
    path: Path | str,
    *,
    labels: Sequence[str] = (),
    least: int = 64,
) -> Path:
    """Write clips as one picture, a row a clip and a column a frame; return its path.

    Args:
        frames: [b, c, t, h, w] in [0, 1], one or three channels.
        path: of the PNG.
        labels: a word for each row, or none.
        least: pixels that a frame's longer side gets at least.

    Raises:
        ValueError: another shape, values outside [0, 1], or another number of labels.
    """
    pixels = _pictures(frames, least)
    rows, columns, height, width, _ = pixels.shape
    if labels and len(labels) != rows:
        raise bad("labels", list(labels), f"none or {rows} words")
    gap, margin = 4, 8 + 8 * max(map(len, labels)) if labels else 4
    size = (margin + columns * (width + gap), gap + rows * (height + gap))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for row in range(rows):
        top = gap + row * (height + gap)
        if labels:
            draw.text((4, top + height // 2 - 6), labels[row], fill="black")
        for column in range(columns):
            picture = Image.fromarray(np.ascontiguousarray(pixels[row, column]))
            sheet.paste(picture, (margin + column * (width + gap), top))
    sheet.save(path)
    return Path(path)


def save_gif(
    frames: Float[Tensor, "b c t h w"], path: Path | str, *, fps: float = 12.0, least: int = 64
) -> Path:
    """Write clips side by side as an animation that repeats; return its path.

    Args:
        frames: [b, c, t, h, w] in [0, 1], one or three channels.
        path: of the GIF, ends in .gif.
        fps: frames per second, above 0 and at most 50.
        least: pixels that a frame's longer side gets at least.

    Raises:
        ValueError: another shape, values outside [0, 1], another frame rate, a path that
            does not end in .gif, or as `write_video`.
    """
    check_number("fps", fps, 0.01, 50)
    if Path(path).suffix.lower() != ".gif":
        raise bad("path", str(path), "a file that ends in .gif")
    joined = np.concatenate(list(_pictures(frames, least)), axis=2)
    return write_video(joined, path, fps=fps)
