"""Clips on one page: a contact sheet (PNG), and side by side as one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from contar._errors import bad, check_count, check_instance, check_size
from contar._typing import Float, Tensor, UInt8
from contar.media.lettering import Words, lay_out
from contar.media.video import check_output, write_video

_GAP = 4  # pixels between pictures


def _pictures(frames: Tensor, least: int) -> np.ndarray:
    """Return frames as uint8 [b, t, h, w, 3], small ones enlarged by a whole factor."""
    if frames.ndim != 5 or frames.shape[1] not in (1, 3) or 0 in frames.shape:
        raise bad("frames", tuple(frames.shape), "shape [b, 1 or 3, t, h, w], each at least 1")
    check_size("least", least)
    values = frames.detach().float().cpu()
    if not bool(((values >= 0) & (values <= 1)).all()):
        raise bad("frames", f"[{values.min():.3g}, {values.max():.3g}]", "values in [0, 1]")
    pixels = (values * 255).round().byte().permute(0, 2, 3, 4, 1).numpy()
    factor = max(1, -(-least // max(pixels.shape[2:4])))
    pixels = pixels.repeat(factor, axis=2).repeat(factor, axis=3)
    return np.broadcast_to(pixels, (*pixels.shape[:-1], 3))


def _check_words(name: str, texts: Sequence[str], count: int) -> None:
    if isinstance(texts, str) or len(texts) not in (0, count):
        raise bad(name, texts if isinstance(texts, str) else [*texts], f"none or {count} words")
    for text in texts:
        check_instance(name, text, str)


def save_sheet(
    frames: Float[Tensor, "b c t h w"],
    path: Path | str,
    *,
    labels: Sequence[str] = (),
    columns: Sequence[str] = (),
    least: int = 64,
) -> Path:
    """Write clips as one picture, a row a clip and a column a frame; return its path.

    Args:
        frames: [b, c, t, h, w] in [0, 1], one or three channels.
        path: of the PNG, ends in .png; the file appears whole, or not at all.
        labels: words before each row, or none. Letters that no font here has stand as their codes,
            as [U+4E03].
        columns: words above each column, or none.
        least: pixels that a frame's longer side gets at least.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: another shape, values outside [0, 1], another number of labels or columns, some
            that are no words, or a path that does not end in .png, or that no file can have.
    """
    if Path(path).suffix.lower() != ".png":
        raise bad("path", str(path), "a file that ends in .png")
    check_output(path)
    pixels = _pictures(frames, least)
    rows, count, height, width, _ = pixels.shape
    _check_words("labels", labels, rows)
    _check_words("columns", columns, count)
    before = _beside(labels, height)
    above = [lay_out(text, _letters(height), width) for text in columns]
    margin = _GAP + max((words.width + 2 * _GAP for words in before), default=0)
    top = _GAP + max((words.height + _GAP for words in above), default=0)
    step = _GAP + max(height, *(words.height for words in before), 0)
    sheet = Image.new("RGB", (margin + count * (width + _GAP), top + rows * step), "white")
    draw = ImageDraw.Draw(sheet)
    for column, words in enumerate(above):
        words.draw(draw, margin + column * (width + _GAP), _GAP)
    for row, words in enumerate(before):
        words.draw(draw, _GAP, top + row * step + (height - words.height) // 2)
    for row, column in np.ndindex(rows, count):
        picture = Image.fromarray(np.ascontiguousarray(pixels[row, column]))
        sheet.paste(picture, (margin + column * (width + _GAP), top + row * step))
    return write_video(np.array(sheet)[None], path)


def side_by_side(
    frames: Float[Tensor, "b c t h w"],
    *,
    labels: Sequence[str] = (),
    columns: int | None = None,
    least: int = 64,
) -> UInt8[np.ndarray, "t h2 w2 3"]:
    """Return clips as one, beside one another, each under its words; `write_video` takes it.

    Args:
        frames: [b, c, t, h, w] in [0, 1], one or three channels.
        labels: words above each clip, or none, as in `save_sheet`.
        columns: clips in a row; None is all.
        least: pixels that a frame's longer side gets at least.

    Raises:
        ValueError: another shape, values outside [0, 1], another number of labels or some that are
            no words, or columns that are no count.
    """
    pixels = _pictures(frames, least)
    count, length, height, width, _ = pixels.shape
    across = count if columns is None else min(count, check_count("columns", columns))
    _check_words("labels", labels, count)
    above = [lay_out(text, _letters(height), width) for text in labels]
    gap = _GAP if labels else 0
    top = max((words.height + gap for words in above), default=0)
    rows, step = -(-count // across), height + top + gap
    size = (across * (width + gap) + gap, rows * step + gap)
    page = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(page)
    places = [(gap + n % across * (width + gap), gap + n // across * step) for n in range(count)]
    for words, (x, y) in zip(above, places, strict=False):
        words.draw(draw, x, y)
    shown = np.repeat(np.asarray(page)[None], length, axis=0)
    for clip, (x, y) in zip(pixels, places, strict=True):
        shown[:, y + top : y + top + height, x : x + width] = clip
    return shown


def _letters(height: int) -> int:
    """Return the size of letters beside pictures of a height, both in pixels."""
    return max(12, min(16, height // 8))


def _beside(labels: Sequence[str], height: int) -> list[Words]:
    """Return labels as narrow as lets them stand beside pictures of a height, up to a bound."""
    size, found = _letters(height), []
    for width in range(14 * size, 50 * size, 4 * size):
        found = [lay_out(label, size, width) for label in labels]
        if all(words.height <= height for words in found):
            break
    return found
