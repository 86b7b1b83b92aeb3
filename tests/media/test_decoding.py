"""Frames are chosen by their times and come as a player shows them; a cut file is refused."""

import ctypes
import gc
from fractions import Fraction

import numpy as np
import pytest
import torch
from films import film, greys, seconds

from contar.media import decoding, glance_video, motion_score, open_video, read_tail, read_video
from contar.media.decoding import _at_rate

# A second of 60 frames, then 2 frames a second.
VARYING = [i / 60 for i in range(60)] + [1 + i / 2 for i in range(10)]
EVEN = [i / 30 for i in range(60)]


def noise(frames: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, 64, 64, 3)).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_frames_of_a_varying_rate_are_those_shown_at_the_asked_times(tmp_path, suffix):
    video = open_video(film(tmp_path / f"a{suffix}", greys(VARYING), VARYING))
    found = seconds([*video.pictures(8.0)])
    asked = np.arange(len(found)) / 8
    shown = [max(t for t in VARYING if t <= time + 0.01) for time in asked]
    assert len(found) == 45  # 0 to 5.5 seconds
    assert np.abs(found - shown).max() < 0.06


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_the_rate_of_a_varying_one_is_the_mean_of_its_times(tmp_path, suffix):
    _, rate = read_video(film(tmp_path / f"a{suffix}", greys(VARYING), VARYING))
    assert rate == pytest.approx(69 / 5.5, rel=1e-3)


@pytest.mark.parametrize("frames", [None, 1, 7])
def test_a_browsers_recording_that_says_1000_frames_a_second_has_its_own_rate(tmp_path, frames):
    path = film(tmp_path / "a.webm", greys(EVEN), EVEN, rate=1000)
    found, rate = read_video(path, frames=frames)
    assert len(found) == frames or 60
    assert rate == pytest.approx(30, rel=1e-3)


def test_the_tail_of_a_browsers_recording_is_chosen_by_time(tmp_path, refuses):
    path = film(tmp_path / "a.webm", greys(EVEN), EVEN, rate=1000)
    found = seconds(read_tail(path, 5, fps=8))
    assert np.abs(found - (EVEN[-1] - np.arange(4, -1, -1) / 8)).max() < 0.06
    with refuses("path", "60 frames", "at least 80"):  # not 501
        read_tail(path, 22, fps=8)


def test_the_tail_of_a_varying_rate_is_chosen_by_time(tmp_path):
    path = film(tmp_path / "a.mp4", greys(VARYING), VARYING)
    found = seconds(read_tail(path, 4, fps=1))
    assert np.abs(found - [2.5, 3.5, 4.5, 5.5]).max() < 0.06


def test_frames_before_the_first_are_not_missed_where_times_begin_late(tmp_path):
    late = [3 + t for t in EVEN]
    for suffix in (".ts", ".mkv"):
        path = film(tmp_path / f"a{suffix}", greys(EVEN), late)
        found = seconds([*open_video(path).pictures(10.0)])
        assert np.abs(found - np.arange(20) / 10).max() < 0.07, suffix


def test_the_nearest_of_even_frames_is_chosen_each_once():
    frames = [(i / 25, i) for i in range(250)]
    assert [*_at_rate(frames, 25)] == [*range(250)]
    assert [*_at_rate(frames, 8)] == [int(i * 25 / 8 + 0.5) for i in range(80)]
    assert [*_at_rate(frames, 12.5)] == [*range(0, 250, 2)]


def test_times_rounded_to_milliseconds_skip_and_repeat_no_frame():
    frames = [(round(i / 30, 3), i) for i in range(1000)]
    assert [*_at_rate(frames, 30, late=0.001)] == [*range(1000)]


def test_a_steady_motion_scores_alike_at_even_and_varying_times(tmp_path):
    """What moves 60 pixels a second scores 60 over the mean rate, however the frames are spread."""
    draws = torch.Generator().manual_seed(0)
    spots = torch.rand(1, 1, 26, 60, generator=draws)
    texture = torch.nn.functional.interpolate(spots, scale_factor=5, mode="bicubic")[0, 0]
    texture = (255 * texture.clamp(0, 1)).byte()
    times = [0, 1 / 60, 2 / 60, 3 / 60, 4 / 60, 8 / 60, 12 / 60]
    views = [texture[:128, round(60 * t) : round(60 * t) + 128] for t in times]
    frames = torch.stack(views)[..., None].expand(-1, -1, -1, 3).numpy()
    path = film(tmp_path / "a.mkv", frames, times)
    _, rate = read_video(path)
    assert rate == pytest.approx(30, rel=0.02)
    assert motion_score(path) == pytest.approx(60 / rate, rel=0.1)


def test_a_phones_upright_video_stands_upright(tmp_path):
    frames = noise(3) // 8
    frames[:, :16] = 255  # above
    for suffix in (".mp4", ".mov", ".mkv"):
        for angle, bright in ((90, np.s_[:, :16]), (-90, np.s_[:, -16:]), (180, np.s_[-16:])):
            path = film(tmp_path / f"a{suffix}", frames[:, :, :48], EVEN[:3], turn=angle)
            found, _ = read_video(path)
            size = (64, 48) if angle == 180 else (48, 64)
            assert found.shape == (3, *size, 3)
            assert found[0].numpy()[bright].mean() > 200, (suffix, angle)
            assert found.float().mean() < 120


@pytest.mark.parametrize(
    ("matrix", "bright"),
    [
        ((-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30), np.s_[:16, -16:]),  # mirrored
        ((65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30), np.s_[-16:, :16]),
        ((0, 65536, 0, 65536, 0, 0, 0, 0, 1 << 30), np.s_[:16, :16]),  # over the diagonal
        ((0, -65536, 0, -65536, 0, 0, 0, 0, 1 << 30), np.s_[-16:, -16:]),
    ],
)
def test_a_mirrored_video_is_shown_mirrored(tmp_path, matrix, bright):
    frames = np.zeros((2, 64, 64, 3), np.uint8)
    frames[:, :16, :16] = 255
    found, _ = read_video(film(tmp_path / "a.mp4", frames, EVEN[:2], turn=matrix))
    assert found[0].numpy()[bright].mean() > 200
    assert found[0].float().mean() < 40


def test_a_tail_and_a_part_are_turned_too(tmp_path):
    path = film(tmp_path / "a.mp4", noise(5)[:, :, :32], EVEN[:5], turn=90)
    whole, _ = read_video(path)
    assert read_tail(path, 2, fps=30).equal(whole[-2:])
    assert read_video(path, start=2, frames=2)[0].equal(whole[2:4])


def test_another_angle_than_quarters_is_refused(tmp_path, refuses):
    path = film(tmp_path / "a.mp4", noise(2), EVEN[:2], turn=30)
    with refuses("path", "a.mp4", "quarters"):
        read_video(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".avi"])
def test_a_disc_stored_38_wide_and_64_high_is_round(tmp_path, suffix):
    y, x = np.mgrid[:96, :57]
    disc = ((y - 47.5) / 32) ** 2 + ((x - 28) / 19) ** 2 < 1
    frames = np.repeat((disc * 255).astype(np.uint8)[None, :, :, None], 3, 3)
    frames = np.repeat(frames[:, :, :56], 2, 0)
    path = film(tmp_path / f"a{suffix}", frames, [0, 0.04], pixel=Fraction(32, 19))
    found, _ = read_video(path)
    white = found[0, :, :, 0] > 127
    high, wide = int(white.any(1).sum()), int(white.any(0).sum())
    assert found.shape[1] == 96
    assert high == pytest.approx(64, abs=2)
    assert wide == pytest.approx(64, abs=3)


def test_pixels_higher_than_wide_make_a_higher_picture(tmp_path):
    path = film(tmp_path / "a.mp4", noise(2), [0, 0.04], pixel=Fraction(1, 2))
    assert read_video(path)[0].shape == (2, 128, 64, 3)


def test_pixels_that_are_lines_are_refused(tmp_path, refuses):
    path = film(tmp_path / "a.avi", noise(2), [0, 0.04], pixel=Fraction(30, 1))
    with refuses("path", "a.avi", "16 times"):
        read_video(path)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".mp4", {"movflags": "+faststart"}),
        (".mp4", {}),
        (".mp4", {"movflags": "frag_keyframe+empty_moov"}),
        (".mov", {"movflags": "+faststart"}),
        (".mkv", {}),
        (".webm", {}),
        (".webm", {"live": "1"}),
        (".avi", {}),
        (".flv", {}),
        (".ogv", {}),
        (".ts", {}),
        (".gif", {}),
    ],
)
def test_a_video_with_sound_that_is_cut_off_is_refused(tmp_path, refuses, suffix, options):
    times = [i / 25 for i in range(50)]
    sound = suffix != ".gif"
    whole = film(tmp_path / f"whole{suffix}", noise(50), times, sound=sound, options=options)
    assert len(read_video(whole)[0]) == 50
    glance_video(whole)
    content = whole.read_bytes()
    path = tmp_path / f"cut{suffix}"
    for share in (0.3, 0.5, 0.507, 0.9, 0.999):
        # The last part of an .mp4 may be an index; between packets of a .ts nothing shows.
        end = min(int(share * len(content)), len(content) - 3000 * (suffix == ".mp4") - 100)
        path.write_bytes(content[: end // 188 * 188 - 50])
        for call in (read_video, lambda path: read_video(path, frames=1), glance_video):
            with refuses("path", str(path), "video file"):
                call(path)
        with refuses("name", str(path)):
            read_tail(path, 2, fps=25, name="name")


def test_what_follows_a_whole_video_in_its_file_is_no_cut(tmp_path):
    for suffix in (".mp4", ".mkv", ".avi"):
        path = film(tmp_path / f"a{suffix}", noise(5), [i / 25 for i in range(5)], sound=True)
        path.write_bytes(path.read_bytes() + b"\0" * 100)
        assert len(read_video(path)[0]) == 5, suffix


def test_a_glance_at_a_file_opens_no_decoder(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", noise(5), EVEN[:5], sound=True)
    monkeypatch.setattr(decoding, "open_video", lambda *given: pytest.fail("opened"))
    glance_video(path)


class Heap(ctypes.Structure):
    """What glibc's mallinfo2 tells."""

    _fields_ = [(f"unread{i}", ctypes.c_size_t) for i in range(7)]
    _fields_ += [("used", ctypes.c_size_t), ("free", ctypes.c_size_t), ("top", ctypes.c_size_t)]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="tells what glibc holds")
def test_videos_that_are_left_early_leave_nothing_in_memory(tmp_path):
    told = ctypes.CDLL(None).mallinfo2
    told.restype = Heap
    video, used = open_video(film(tmp_path / "a.mp4", greys(EVEN[:4]), EVEN[:4])), []
    for number in range(401):
        frames = video.frames()
        next(frames)
        frames.close()
        if number in (200, 400):
            gc.collect()
            used.append(told().used)
    assert used[1] - used[0] < 100 * 144  # bytes of what a packet holds, of half of the videos


def test_a_frame_is_let_go_of_once_its_picture_is_taken(tmp_path):
    path = film(tmp_path / "a.mp4", greys(EVEN[:4]), EVEN[:4])
    gc.collect()
    gc.disable()
    try:
        assert len(read_video(path)[0]) == 4
        assert not any(type(each).__name__ == "VideoFrame" for each in gc.get_objects())
    finally:
        gc.enable()
