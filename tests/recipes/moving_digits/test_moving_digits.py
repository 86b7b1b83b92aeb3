"""Moving digits: drawn by index, split once, meeting no wall, their captions true."""

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.moving_digits import (
    DIRECTIONS,
    SPEEDS,
    BouncingDigits,
    MovingDigits,
    Split,
    load_digits,
    render,
)
from recipes.moving_digits.data.captions import _MOVING, _MOVING_TEST, _STILL, _STILL_TEST, NAMES

few = settings(max_examples=min(settings().max_examples, 100))
indices = st.integers(0, 10**6 - 1)
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SETS, AGAIN = ({split: MovingDigits(split, 10**6) for split in SPLITS} for _ in range(2))
BOUNCING = {split: BouncingDigits(split, 10**6) for split in SPLITS}
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
    one, again = SETS[split][index], AGAIN[split][index]
    assert torch.equal(one.frames, again.frames)
    assert (one.caption, one.direction, one.speed) == (again.caption, again.direction, again.speed)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_another_seed_gives_other_samples():
    a, b = MovingDigits("train", 9), MovingDigits("train", 9, seed=1)
    assert any(not torch.equal(a[i].frames, b[i].frames) for i in range(9))


@few
@given(index=indices, split=splits)
def test_the_digit_stays_whole_and_moves_as_it_is_said(index, split):
    clip = SETS[split][index]
    assert clip.frames.shape == (17, 64, 64, 3)
    assert clip.frames.dtype == torch.uint8
    ink = clip.frames[..., 0].double()
    totals = ink.sum((1, 2))
    # Between pixels a frame is a linear blend, so its ink stays, up to rounding to whole numbers.
    assert (totals - totals[0]).abs().max() <= 0.01 * totals[0]
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    track = torch.stack([(ink * y).sum((1, 2)), (ink * x).sum((1, 2))]) / totals
    step = (track[:, -1] - track[:, 0]) / 16
    assert abs(step.norm() - clip.speed) <= 0.05
    if clip.direction is None:
        assert clip.speed == 0
        assert torch.equal(clip.frames[0], clip.frames[-1])
    else:
        angle = torch.atan2(step[0], step[1]) / (torch.pi / 4)
        assert DIRECTIONS[round(float(angle)) % 8] == clip.direction


@few
@given(index=indices, split=splits, sets=st.sampled_from((SETS, BOUNCING)))
def test_a_caption_names_digit_and_way_and_only_a_true_speed_in_its_splits_phrasings(
    index, split, sets
):
    clip = sets[split][index]
    words = {*clip.caption.replace(",", "").split()}
    assert {str(clip.digit), NAMES[clip.digit]} & words
    for part in (clip.direction or "").split():
        said = {"up": ("up", "top"), "down": ("down", "bottom", "lower")}.get(part, (part,))
        assert any(word in clip.caption for word in said), clip.caption
    if {"slowly", "gently"} & words:
        assert clip.speed in SPEEDS[:2]
    if {"quickly", "fast"} & words:
        assert clip.speed in SPEEDS[-2:]
    still, moving = (_STILL_TEST, _MOVING_TEST) if split == "test" else (_STILL, _MOVING)
    templates = still if clip.direction is None else moving
    heads = [
        t.split("{s}")[0].format(d=d) for t in templates for d in (clip.digit, NAMES[clip.digit])
    ]
    assert any(clip.caption.startswith(head) for head in heads)


@pytest.fixture(scope="module")
def clips():
    return [SETS["train"][i] for i in range(1800)]


def test_the_phrasings_of_tests_are_never_seen_in_training(clips):
    assert not {*_MOVING, *_STILL} & {*_MOVING_TEST, *_STILL_TEST}
    seen = {clip.caption for clip in clips} | {SETS["validation"][i].caption for i in range(300)}
    assert not seen & {SETS["test"][i].caption for i in range(500)}


def test_digits_directions_and_speeds_are_all_drawn_about_equally_often(clips):
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
def test_moving_digits_refuse_numbers_out_of_range(name, count, seed, refuses):
    with refuses(name):
        MovingDigits("train", count, seed=seed)


def test_a_speed_that_would_leave_the_frame_is_refused(refuses):
    picture = torch.zeros(28, 28, dtype=torch.uint8)
    with refuses("speed", "1.1"):
        render(picture, "left", 1.1, start=torch.zeros(2))
    render(picture, "left", 1.1, start=torch.tensor([0.0, 2.0]))


def test_an_index_outside_is_refused():
    assert len(MovingDigits("test", 3)) == 3
    for index in (-1, 3):
        with pytest.raises(IndexError):
            MovingDigits("test", 3)[index]
