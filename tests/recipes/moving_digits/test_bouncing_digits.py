"""Bouncing digits: drawn many at once, sharp, thrown back by walls, their captions true."""

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.moving_digits import DIRECTIONS, SPEEDS, BouncingDigits, Split, load_digits
from recipes.moving_digits.data.bouncing import ROOM, bounce, draw_frames, draw_strokes
from recipes.moving_digits.data.moving import AROUND

few = settings(max_examples=min(settings().max_examples, 60))
indices = st.integers(0, 10**6 - 1)
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SETS = {split: BouncingDigits(split, 10**6) for split in SPLITS}
LONG = BouncingDigits("train", 10**6, frames=65, cut=0.5)
splits = st.sampled_from(SPLITS)


def centres(frames: torch.Tensor) -> torch.Tensor:
    """Return the centre of mass (y, x) of each frame, in pixels from the middle."""
    ink = frames[..., 0].double()
    axis = torch.arange(64.0, dtype=torch.float64) - 31.5
    rows, columns = (ink.sum(2) * axis).sum(1), (ink.sum(1) * axis).sum(1)
    return torch.stack([rows, columns], dim=1) / ink.sum((1, 2))[:, None]


@few
@given(index=indices, split=splits)
def test_the_digit_stays_whole_and_moves_as_it_is_said(index, split):
    clip = SETS[split][index]
    assert clip.frames.shape == (17, 64, 64, 3)
    assert clip.frames.dtype == torch.uint8
    totals = clip.frames[..., 0].double().sum((1, 2))
    assert (totals - totals[0]).abs().max() <= 0.03 * totals[0]
    track = centres(clip.frames)
    step = (track[-1] - track[0]) / 16
    assert abs(step.norm() - clip.speed) <= 0.05
    if clip.direction is None:
        assert clip.speed == 0
    else:
        assert clip.speed in SPEEDS
        angle = torch.atan2(step[0], step[1]) / (torch.pi / 4)
        assert DIRECTIONS[round(float(angle)) % 8] == clip.direction


@few
@given(index=indices)
def test_a_long_clip_follows_its_course_from_wall_to_wall_at_one_speed(index):
    clip, course = LONG[index], LONG.draw([index]).course[0]
    assert course.shape == (65, 2)
    assert course.abs().max() <= ROOM
    track = centres(clip.frames)
    assert ((track - track[0]) - (course - course[0])).abs().max() <= 0.15
    paces = course.diff(dim=0).norm(dim=1)
    away = (course.abs() < ROOM - 1).all(1)
    inside = away[1:] & away[:-1]  # a step that meets a wall is a shorter way as the crow flies
    assert paces.max() <= clip.speed + 1e-4
    assert (paces[inside] - clip.speed).abs().max() <= 1e-4 if inside.any() else True


@few
@given(index=indices)
def test_the_caption_of_a_cut_clip_says_where_it_goes_at_its_beginning(index):
    clip, course = LONG[index], LONG.draw([index]).course[0]
    step = course[1] - course[0]
    if clip.direction is None:
        assert step.norm() == 0
    elif step.norm() > clip.speed - 1e-4:  # no wall is met at once
        angle = torch.atan2(step[0], step[1]) / (torch.pi / 4)
        assert DIRECTIONS[round(float(angle)) % 8] == clip.direction


def test_the_share_of_clips_that_is_asked_for_is_cut_from_anywhere():
    drawn = LONG.draw(range(2000))
    assert abs(drawn.begins.double().mean() - 0.5) < 0.05
    first = drawn.course[:, 0].abs().amax(1)
    assert (first[drawn.begins] <= AROUND).all()
    assert (first[~drawn.begins] > 8).double().mean() > 0.2
    assert BouncingDigits("train", 500).draw(range(500)).begins.all()


def test_digits_ways_and_speeds_come_equally_often():
    drawn = SETS["train"].draw(range(9000))
    for values, count in ((drawn.digit, 10), (drawn.way, 9), (drawn.speed, 5)):
        shares = torch.bincount(values, minlength=count) / len(values)
        assert len(shares) == count
        assert (shares * count - 1).abs().max() < 0.15


def test_a_longer_clip_begins_as_a_short_one():
    short, long = BouncingDigits("train", 20)[7], BouncingDigits("train", 20, frames=41)[7]
    assert torch.equal(long.frames[:17], short.frames)
    assert (long.caption, long.direction) == (short.caption, short.direction)


def test_a_moving_digit_is_as_sharp_as_a_still_one():
    def edges(course: torch.Tensor) -> torch.Tensor:
        grey = draw_frames(strokes, course[None])[0].double()
        return grey.diff(dim=1).square().sum((1, 2)) + grey.diff(dim=2).square().sum((1, 2))

    pictures = load_digits("train").pictures
    for row in (5, 1205, 3600):
        strokes = draw_strokes(pictures[row : row + 1])
        still = edges(torch.tensor([[0.5, 0.5]]))
        moving = edges(0.7 * 0.5**0.5 * torch.arange(17.0)[:, None].expand(-1, 2))
        assert ((moving / still) > 0.85).all(), moving / still


def test_handwriting_is_varied_but_in_one_clip_it_is_the_same():
    drawn = SETS["train"].draw(range(200))
    same = drawn._replace(row=torch.zeros_like(drawn.row), course=drawn.course[:, :2] * 0)
    frames = SETS["train"].show(same)
    assert torch.equal(frames[:, 0], frames[:, 1])
    assert len(torch.unique(frames[:, 0].flatten(1), dim=0)) == 200


def test_a_batch_is_what_its_samples_are_however_it_is_split():
    digits = BouncingDigits("validation", 50, cut=0.5)
    chosen = [3, 41, 8]
    drawn = digits.draw(chosen)
    frames, captions = digits.show(drawn), digits.captions(drawn)
    for row, index in enumerate(chosen):
        alone = digits.draw([index])
        assert all(torch.equal(a[0], b[row]) for a, b in zip(alone, drawn, strict=True))
        clip = digits[index]
        assert (frames[row].int() - clip.frames[..., 0].int()).abs().max() <= 1
        assert captions[row] == clip.caption


def test_a_sample_follows_from_seed_split_and_index_alone():
    again = pickle.loads(pickle.dumps(SETS["train"]))
    for index in (0, 77, 10**6 - 1):
        one, other = SETS["train"][index], again[index]
        assert torch.equal(one.frames, other.frames)
        assert one.caption == other.caption
    others = (SETS["validation"], BouncingDigits("train", 9, seed=1))
    for digits in others:
        assert any(not torch.equal(digits[i].frames, SETS["train"][i].frames) for i in range(3))


def test_a_wall_throws_a_digit_back_at_once():
    places, back = bounce(torch.tensor([0.0, 17.5, 18.5, 36.0, 54.0, 56.0, -19.0]))
    assert places.tolist() == [0.0, 17.5, 17.5, 0.0, -18.0, -16.0, -17.0]
    assert back.tolist() == [False, False, True, True, False, False, True]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("split", {"split": "all"}), ("count", {"count": 0}), ("seed", {"seed": -1}),
        ("frames", {"frames": 0}), ("frames", {"frames": 2.5}), ("cut", {"cut": 1.5}),
        ("cut", {"cut": float("nan")}),
    ],
)  # fmt: skip
def test_bouncing_digits_refuse_numbers_out_of_range(name, options, refuses):
    with refuses(name):
        BouncingDigits(**{"split": "train", "count": 1, **options})


def test_an_index_outside_is_refused():
    with pytest.raises(IndexError):
        BouncingDigits("train", 3)[3]
