"""Contact sheets and animations."""

import numpy as np
import pytest
import torch
from PIL import Image

from contar.media import save_gif, save_sheet


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


def test_an_animation_has_one_picture_a_frame_at_the_asked_rate(tmp_path):
    path = save_gif(clips(frames=5), tmp_path / "clip.gif", fps=4)
    with Image.open(path) as gif:
        assert getattr(gif, "n_frames", 1) == 5
        assert gif.info["duration"] == 250
        assert gif.size == (2 * 48, 64)  # 8 x 6 enlarged by 8, two clips side by side


@pytest.mark.parametrize(
    "frames", [torch.zeros(1, 2, 1, 4, 4), torch.zeros(3, 4, 4), torch.full((1, 1, 1, 4, 4), 1.5),
               torch.full((1, 1, 1, 4, 4), float("nan"))]
)  # fmt: skip
def test_frames_of_another_shape_or_range_are_refused(tmp_path, refuses, frames):
    with refuses("frames"):
        save_sheet(frames, tmp_path / "a.png")
    with refuses("frames"):
        save_gif(frames, tmp_path / "a.gif")
    assert not list(tmp_path.iterdir())


def test_labels_and_rates_that_do_not_fit_are_refused(tmp_path, refuses):
    with refuses("labels", "2 words"):
        save_sheet(clips(), tmp_path / "a.png", labels=["one"])
    for fps in (0, -1, float("nan"), 1000):
        with refuses("fps"):
            save_gif(clips(), tmp_path / "a.gif", fps=fps)


def test_an_animation_is_a_gif_and_nothing_else(tmp_path, refuses):
    with refuses("path", "a.mp4"):
        save_gif(clips(), tmp_path / "a.mp4")
    assert not list(tmp_path.iterdir())
