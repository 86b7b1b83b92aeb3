"""Tracks: a digit's way and speed come out as it was drawn, noise or not."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recipes.moving_digits import (
    DIRECTIONS,
    SPEEDS,
    BouncingDigits,
    MovingDigits,
    bounced,
    direction_of,
    load_digits,
    render,
    sharpness,
    speed_of,
    track,
)
from recipes.moving_digits.judges.mass import FAINTEST, WIDEST, brightness, centres

PICTURES = load_digits("train").pictures
rows = st.integers(0, len(PICTURES) - 1)
starts = st.tuples(st.floats(-1.5, 1.5), st.floats(-1.5, 1.5)).map(torch.tensor)
noises = st.sampled_from([0.0, 10.0, 20.0])
seeds = st.integers(0, 2**31)


def noisy(frames, sigma, seed):
    """Return grey frames with noise of that many levels."""
    draws = torch.Generator().manual_seed(seed)
    noise = sigma * torch.randn(frames.shape[:-1], generator=draws)
    return (frames + noise[..., None]).clamp(0, 255).round().byte()


@given(rows, st.sampled_from(DIRECTIONS), st.floats(0.4, 1.0), starts, noises, seeds)
def test_a_digit_goes_the_way_and_at_the_speed_it_was_drawn(row, way, speed, start, sigma, seed):
    frames = noisy(render(PICTURES[row], way, speed, start=start), sigma, seed)
    assert direction_of(frames) == way
    # Noise that reaches over the floor draws the centre to the middle of the frame.
    assert speed_of(frames) == pytest.approx(speed, abs=0.03 + 0.1 * (sigma > 10))


@given(rows, starts, noises, seeds)
def test_what_stands_still_has_no_direction(row, start, sigma, seed):
    frames = noisy(render(PICTURES[row], None, 0, start=start), sigma, seed)
    assert direction_of(frames) is None
    assert speed_of(frames) < 0.1


@given(rows, st.sampled_from(DIRECTIONS), st.sampled_from(SPEEDS), starts)
def test_backwards_in_time_it_goes_the_other_way_as_fast(row, way, speed, start):
    frames = render(PICTURES[row], way, speed, start=start)
    opposite = DIRECTIONS[(DIRECTIONS.index(way) + 4) % 8]
    assert direction_of(frames.flip(0)) == opposite
    assert speed_of(frames.flip(0)) == pytest.approx(speed_of(frames), abs=1e-4)


@given(rows, st.sampled_from(DIRECTIONS), st.integers(8, 16), starts)
def test_eight_frames_are_enough_to_tell_direction_and_speed(row, way, count, start):
    frames = render(PICTURES[row], way, 0.4, start=start)[-count:]
    assert direction_of(frames) == way
    assert speed_of(frames) == pytest.approx(0.4, abs=0.05)


@given(rows, starts, st.integers(-9, 9), st.integers(-9, 9))
def test_the_track_moves_with_the_frame(row, start, down, right):
    frames = render(PICTURES[row], "up", 0.7, start=start)
    moved = torch.nn.functional.pad(frames, (0, 0, 10 + right, 10 - right, 10 + down, 10 - down))
    shift = torch.tensor([10.0 + down, 10.0 + right])
    torch.testing.assert_close(track(moved), track(frames) + shift, atol=1e-3, rtol=0)


def test_the_centre_of_one_bright_square_is_its_middle():
    frames = torch.zeros(1, 40, 50, 3, dtype=torch.uint8)
    frames[:, 10:15, 20:27] = 255
    assert track(frames).tolist() == [pytest.approx([12.0, 23.0], abs=1e-5)]


def test_the_directions_of_real_test_clips_are_right():
    dataset = MovingDigits("test", 500)
    clips = [dataset[i] for i in range(500)]
    right = sum(direction_of(clip.frames) == clip.direction for clip in clips)
    print(f"{right} of 500")
    assert right >= 495


def test_every_digit_of_the_data_is_bright_enough_and_narrow_enough_to_have_a_track():
    for split in ("train", "validation", "test"):
        grey = load_digits(split).pictures / 255
        blurred = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(grey, (1, 1, 1, 1)), 2, 1)
        assert not centres(blurred).isnan().any()
    assert FAINTEST < 17
    assert WIDEST > 10


def test_what_is_not_to_be_seen_is_lost_and_not_still():
    clip = render(PICTURES[0], "left", 0.7, start=torch.zeros(2))
    draws = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, clip.shape, generator=draws).byte()
    for frames in (torch.zeros_like(clip), torch.full_like(clip, 255), noise):
        assert track(frames).isnan().all()
        assert direction_of(frames) == "lost"
        assert math.isnan(speed_of(frames))
    clip[::2] = 0  # nine of 17
    assert direction_of(clip) == "lost"


def test_a_few_empty_frames_do_not_lose_the_track():
    clip = render(PICTURES[0], "left", 0.7, start=torch.zeros(2))
    clip[[0, 3, 4, 9, 10, 11, 16]] = 0
    assert direction_of(clip) == "left"
    assert speed_of(clip) == pytest.approx(0.7, abs=0.03)


def test_brightness_of_a_colour_is_the_mean_of_its_channels():
    frames = torch.zeros(1, 4, 4, 3, dtype=torch.uint8)
    frames[..., 0] = 90
    assert brightness(frames).mean() == pytest.approx(30 / 255)


@pytest.mark.parametrize("measure", [track, direction_of, speed_of])
def test_frames_that_are_no_pixels_are_refused(measure, refuses):
    with refuses("frames", "torch.float32"):
        measure(torch.zeros(2, 8, 8, 3))
    with refuses("frames", "(2, 8, 8, 1)"):
        measure(torch.zeros(2, 8, 8, 1, dtype=torch.uint8))


@pytest.mark.parametrize("measure", [direction_of, speed_of])
def test_one_frame_has_no_motion(measure, refuses):
    with refuses("frames", "at least 2"):
        measure(torch.zeros(1, 8, 8, 3, dtype=torch.uint8))


@pytest.mark.parametrize("index", range(20))
def test_a_digit_on_its_course_is_thrown_back_and_one_that_stays_at_the_wall_is_not(index):
    sample = BouncingDigits("test", 20, seed=5, frames=49)[index]
    frames, along = sample.frames, sample.speed if sample.direction else 0.0
    along *= 1 if sample.direction in ("up", "down", "left", "right") else math.sqrt(0.5)
    # A wall is 18 pixels from the middle, where the mass is within some 4 of that of the frame.
    surely, never = along * 38 > 22, along * 43 < 14
    stays = torch.cat([frames[:17], frames[16:17].expand(32, -1, -1, -1)])
    assert bounced(frames, 17) in ((True,) if surely else (None,) if never else (True, None))
    assert bounced(stays, 17) is (None if bounced(frames, 17) is None else False)
    assert bounced(frames[:17], 17) is None  # it met none yet


def test_what_stands_still_meets_no_wall():
    frames = render(PICTURES[0], None, 0, start=torch.zeros(2)).repeat(3, 1, 1, 1)
    assert bounced(frames, 17) is None


def test_black_frames_are_not_thrown_back_by_a_wall():
    assert bounced(torch.zeros(49, 64, 64, 3, dtype=torch.uint8), 17) is None


def test_sharpness_falls_as_strokes_blur_and_sees_neither_place_thickness_nor_brightness():
    frames = torch.zeros(5, 64, 64)
    frames[0, 10:38, 20:23] = 255
    frames[1, 30:58, 40:43] = 255
    frames[2, 10:38, 20:26] = 255
    frames[3, 10:38, 20:23] = 0.6 * 255
    blurred = torch.nn.functional.avg_pool2d(frames[:1, None], 3, 1, padding=1)[0]
    frames = torch.cat([frames, blurred])[..., None].expand(-1, -1, -1, 3).round().byte()
    there, moved, thick, dim, none, soft = sharpness(frames).tolist()
    assert there == moved == thick == pytest.approx(1)
    assert dim == pytest.approx(1, abs=0.01)
    assert math.isnan(none)
    assert soft < 0.5
