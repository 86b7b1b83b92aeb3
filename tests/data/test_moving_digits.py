"""Moving digits: drawn by index, split once, sharp, thrown back by walls, their captions true."""

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contar.data import MovingDigits
from contar.data.captions import _MOVING, _MOVING_TEST, _STILL, _STILL_TEST, DIRECTIONS, NAMES
from contar.data.digits import Split, load_digits
from contar.data.moving_digits import AROUND, ROOM, SPEEDS, bounce, render

few = settings(max_examples=min(settings().max_examples, 100))
indices = st.integers(0, 10**6 - 1)
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SETS = {split: MovingDigits(split, 10**6) for split in SPLITS}
LONG = MovingDigits("train", 10**6, frames=65, cut=0.5)
splits = st.sampled_from(SPLITS)


def fingerprints(split: Split) -> set[bytes]:
    return {hashlib.sha256(p.numpy().tobytes()).digest() for p in load_digits(split).pictures}


def test_no_digit_is_in_two_splits_and_each_class_has_its_share():
    train, validation, test = (fingerprints(split) for split in SPLITS)
    assert not train & validation
    assert not train & test
    assert not validation & test
    for split, count in zip(SPLITS, (400, 40, 60), strict=True):
        assert load_digits(split).labels.bincount().tolist() == [count] * 10


@few
@given(index=indices, split=splits)
def test_a_sample_follows_from_its_index_alone_and_the_random_state_is_left_alone(index, split):
    state = torch.random.get_rng_state()
    one, again = SETS[split][index], MovingDigits(split, 10**6)[index]
    assert torch.equal(one.frames, again.frames)
    assert (one.caption, one.direction, one.speed) == (again.caption, again.direction, again.speed)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_another_seed_gives_other_samples():
    a, b = MovingDigits("train", 9), MovingDigits("train", 9, seed=1)
    assert any(not torch.equal(a[i].frames, b[i].frames) for i in range(9))


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
        assert torch.equal(clip.frames[0], clip.frames[-1])
    else:
        angle = torch.atan2(step[0], step[1]) / (torch.pi / 4)
        assert DIRECTIONS[round(float(angle)) % 8] == clip.direction


@few
@given(index=indices)
def test_a_long_clip_follows_its_course_from_wall_to_wall_at_one_speed(index):
    clip = LONG[index]
    assert clip.course is not None
    assert clip.course.shape == (65, 2)
    assert clip.course.abs().max() <= ROOM
    track = centres(clip.frames)
    assert ((track - track[0]) - (clip.course - clip.course[0])).abs().max() <= 0.15
    paces = clip.course.diff(dim=0).norm(dim=1)
    away = (clip.course.abs() < ROOM - 1).all(1)
    inside = away[1:] & away[:-1]  # a step that meets a wall is a shorter way as the crow flies
    assert paces.max() <= clip.speed + 1e-4
    assert (paces[inside] - clip.speed).abs().max() <= 1e-4 if inside.any() else True


@few
@given(index=indices)
def test_the_caption_of_a_cut_clip_says_where_it_goes_at_its_beginning(index):
    clip = LONG[index]
    assert clip.course is not None
    step = clip.course[1] - clip.course[0]
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
    assert MovingDigits("train", 500).draw(range(500)).begins.all()


def test_a_longer_clip_begins_as_a_short_one():
    short, long = MovingDigits("train", 20)[7], MovingDigits("train", 20, frames=41)[7]
    assert torch.equal(long.frames[:17], short.frames)
    assert (long.caption, long.direction) == (short.caption, short.direction)


def test_a_moving_digit_is_as_sharp_as_a_still_one():
    def edges(frames: torch.Tensor) -> torch.Tensor:
        grey = frames[..., 0].double()
        return grey.diff(dim=1).square().sum((1, 2)) + grey.diff(dim=2).square().sum((1, 2))

    pictures = load_digits("train").pictures
    for row in (5, 1205, 3600):
        still = edges(render(pictures[row], None, 0.0, start=torch.tensor([0.5, 0.5])))[0]
        moving = edges(render(pictures[row], "down right", 0.7, start=torch.zeros(2)))
        assert ((moving / still) > 0.85).all(), moving / still


def test_a_batch_is_what_its_samples_are():
    digits = MovingDigits("validation", 50, cut=0.5)
    drawn = digits.draw([3, 41, 8])
    frames, captions = digits.show(drawn), digits.captions(drawn)
    for row, index in enumerate((3, 41, 8)):
        clip = digits[index]
        assert (frames[row].int() - clip.frames[..., 0].int()).abs().max() <= 1
        assert captions[row] == clip.caption


@few
@given(index=indices, split=splits)
def test_a_caption_names_the_digit_the_way_and_only_a_true_speed(index, split):
    clip = SETS[split][index]
    words = clip.caption.replace(",", "").split()
    assert str(clip.digit) in words or NAMES[clip.digit] in words
    if clip.direction is not None:
        for part in clip.direction.split():
            said = any(
                word in clip.caption
                for word in {"up": ("up", "top"), "down": ("down", "bottom", "lower")}.get(
                    part, (part,)
                )
            )
            assert said, clip.caption
    if {"slowly", "gently"} & set(words):
        assert clip.speed in SPEEDS[:2]
    if {"quickly", "fast"} & set(words):
        assert clip.speed in SPEEDS[-2:]


def test_the_phrasings_of_tests_are_never_seen_in_training():
    assert not {*_MOVING, *_STILL} & {*_MOVING_TEST, *_STILL_TEST}
    seen = {SETS["train"][i].caption for i in range(2000)} | {
        SETS["validation"][i].caption for i in range(500)
    }
    assert not seen & {SETS["test"][i].caption for i in range(500)}


def test_digits_directions_and_speeds_are_all_drawn_about_equally_often():
    clips = [SETS["train"][i] for i in range(1800)]
    for counts, expected in (
        ([sum(c.digit == d for c in clips) for d in range(10)], 180),
        ([sum(c.direction == d for c in clips) for d in (*DIRECTIONS, None)], 200),
        ([sum(c.speed == s for c in clips) for s in SPEEDS], 320),
    ):
        deviation = expected**0.5
        assert all(abs(count - expected) < 5 * deviation for count in counts), counts


@pytest.mark.parametrize("split", ["all", None, 3])
def test_an_unknown_split_is_refused(split, refuses):
    with refuses("split", repr(split)):
        MovingDigits(split, 1)


@pytest.mark.parametrize(("name", "count", "seed"), [("count", 0, 0), ("seed", 1, -1)])
def test_bad_numbers_are_refused(name, count, seed, refuses):
    with refuses(name):
        MovingDigits("train", count, seed=seed)


@pytest.mark.parametrize(("name", "options"), [("frames", {"frames": 0}), ("cut", {"cut": 1.5})])
def test_clips_of_no_frames_and_no_share_are_refused(name, options, refuses):
    with refuses(name):
        MovingDigits("train", 1, **options)


def test_a_wall_throws_a_digit_back_at_once():
    places, back = bounce(torch.tensor([0.0, 17.5, 18.5, 36.0, 54.0, 56.0, -19.0]))
    assert places.tolist() == [0.0, 17.5, 17.5, 0.0, -18.0, -16.0, -17.0]
    assert back.tolist() == [False, False, True, True, False, False, True]


def test_an_index_outside_is_refused():
    assert len(MovingDigits("test", 3)) == 3
    for index in (-1, 3):
        with pytest.raises(IndexError):
            MovingDigits("test", 3)[index]
