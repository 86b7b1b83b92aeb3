"""Contact sheets and animations."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from contar.media import lettering, save_sheet, sheet, side_by_side


def clips(count=2, channels=3, frames=3, height=8, width=6):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, channels, frames, height, width, generator=generator)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sheet_holds_every_pixel_of_every_frame(tmp_path, channels):
    frames = clips(channels=channels)
    path = save_sheet(frames, tmp_path / "sheet.png", least=8)
    pixels = np.asarray(Image.open(path))
    for row in range(2):
        for column in range(3):
            top, left = 4 + row * (8 + 4), 4 + column * (6 + 4)
            found = pixels[top : top + 8, left : left + 6].astype(int)
            wanted = (frames[row, :, column] * 255).round().permute(1, 2, 0).numpy().astype(int)
            assert (found == wanted).all()


@pytest.mark.parametrize(
    "frames", [torch.zeros(1, 2, 1, 4, 4), torch.zeros(3, 4, 4), torch.full((1, 1, 1, 4, 4), 1.5),
               torch.full((1, 1, 1, 4, 4), float("nan"))]
)  # fmt: skip
def test_frames_of_another_shape_or_range_are_refused(tmp_path, refuses, frames):
    with refuses("frames"):
        save_sheet(frames, tmp_path / "a.png")
    with refuses("frames"):
        side_by_side(frames)
    assert not list(tmp_path.iterdir())


def test_words_stand_before_rows_and_above_columns_and_cover_no_picture(tmp_path):
    labels = ["a seven that goes quickly down and to the right, and then " * 3, "a 0"]
    frames = clips(height=64, width=64)
    path = save_sheet(frames, tmp_path / "a.png", labels=labels, columns=["1", "2", "the last"])
    with Image.open(path) as picture:
        page = np.asarray(picture).astype(int)
    wanted = (frames * 255).round().permute(0, 2, 3, 4, 1).numpy().astype(int)
    left = page.shape[1] - 3 * (64 + 4)
    tops = [
        y
        for y in range(page.shape[0] - 63)
        if (page[y : y + 64, left : left + 64] == wanted[0, 0]).all()
        or (page[y : y + 64, left : left + 64] == wanted[1, 0]).all()
    ]
    assert len(tops) == 2
    for row, top in enumerate(tops):
        for column in range(3):
            x = left + column * (64 + 4)
            assert (page[top : top + 64, x : x + 64] == wanted[row, column]).all()
        assert page[top : top + 64, :left].min() < 50  # its words
    assert page[: tops[0], left:].min() < 50  # those of the columns
    assert (page[:, left - 8 : left] == 255).all()


def test_clips_side_by_side_are_each_under_their_words():
    frames = clips(count=3, height=64, width=64)
    labels = ["one", "the second, of which more is to be said", "three"]
    shown = side_by_side(frames, labels=labels, columns=2)
    wanted = (frames * 255).round().byte().permute(0, 2, 3, 4, 1).numpy()
    assert shown.shape[0] == 3
    assert shown.shape[2] == 4 + 2 * (64 + 4)
    step = (shown.shape[1] - 4) // 2
    for n, (x, y) in enumerate([(4, 4), (72, 4), (4, 4 + step)]):
        top = y + step - 4 - 64
        assert (shown[:, top : top + 64, x : x + 64] == wanted[n]).all()
        assert shown[:, y:top, x : x + 64].min() < 50
    assert (side_by_side(frames)[0] == np.concatenate(wanted[:, 0], axis=1)).all()
    assert side_by_side(clips(frames=5)).shape == (5, 64, 2 * 48, 3)  # 8 x 6 enlarged by 8


def drawn(text: str, width: int = 400) -> str:
    """Return what is drawn of a text, line by line."""
    words = lettering.lay_out(text, 16, width)
    return "\n".join("".join(piece for piece, _ in line) for line in words.lines)


def picture_of(text: str) -> bytes:
    page = Image.new("RGB", (400, 40), "white")
    lettering.lay_out(text, 16, 400).draw(ImageDraw.Draw(page), 0, 0)
    return page.tobytes()


def test_words_in_other_scripts_are_drawn_in_a_font_that_has_them():
    pytest.importorskip("matplotlib")  # which brings DejaVu along
    texts = ["семь влево", "επτά αριστερά", "sept à gauche", "ոչ", "семь вправо"]
    assert [drawn(text) for text in texts] == texts
    assert len({picture_of(text) for text in texts}) == len(texts)


def test_a_letter_that_no_font_has_is_drawn_as_its_code(monkeypatch):
    latin = lettering.ImageFont.load_default(16)
    monkeypatch.setattr(lettering, "_fonts", lambda size: (latin,))
    lettering._place.cache_clear()
    assert drawn("七向 left") == "[U+4E03 U+5411] left"
    assert drawn("a\udcff\x07b") == "a[U+DCFF U+0007]b"
    assert "?" not in drawn("সাত 😀")
    assert drawn("why?\n now") == "why? now"
    assert picture_of("七") != picture_of("向")
    lettering._place.cache_clear()


def test_lines_are_as_wide_as_allowed_and_keep_every_word():
    text = "a handwritten nine gliding downwards, averyveryverylongwordthatfitsnowhere"
    lines = drawn(text, 100).split("\n")
    assert "".join("".join(lines).split()) == "".join(text.split())
    words = lettering.lay_out(text, 16, 100)
    assert len(lines) > 4
    assert words.width <= 100
    assert words.height == len(lines) * words.step
    assert drawn("") == ""


def test_labels_and_columns_that_do_not_fit_are_refused(tmp_path, refuses):
    with refuses("labels", "2 words"):
        save_sheet(clips(), tmp_path / "a.png", labels=["one"])
    with refuses("columns", "3 words"):
        save_sheet(clips(), tmp_path / "a.png", columns=["one"])
    with refuses("labels", "2 words"):
        side_by_side(clips(), labels=["one"])
    with refuses("columns"):
        side_by_side(clips(), columns=0)


def test_what_cannot_be_drawn_or_written_is_refused_before_it_is_drawn(
    tmp_path, refuses, monkeypatch
):
    with refuses("frames", "at least 1"):
        side_by_side(clips(count=0))
    wrong: list[dict[str, Any]]
    wrong = [{"labels": [3, 4]}, {"labels": "ab"}, {"columns": "abc"}, {"least": -3}]
    for changes in wrong:
        with refuses(*changes):
            save_sheet(clips(), tmp_path / "a.png", **changes)
    monkeypatch.setattr(sheet, "_pictures", None)
    with refuses("path", "a.xyz", ".png"):
        save_sheet(clips(), tmp_path / "a.xyz")
    with pytest.raises(FileNotFoundError, match="path: no folder"):
        save_sheet(clips(), tmp_path / "none" / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_sheet_that_cannot_be_written_whole_leaves_the_one_that_was_there(tmp_path, monkeypatch):
    before = save_sheet(clips(), tmp_path / "a.png").read_bytes()

    def full(image, file, **_):
        Path(file).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space"):
        save_sheet(clips(), tmp_path / "a.png", least=8)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]
