"""What a prompt leaves open for a model of moving digits."""

import random

import pytest

from recipes.moving_digits import DIRECTIONS, PROMPTS, caption, left_open


def test_no_caption_of_training_or_test_leaves_anything_open():
    draws = random.Random(0)
    seen = set()
    for test in (False, True):
        for digit in range(10):
            for direction in (*DIRECTIONS, None):
                for speed in ("slow", "fast", None):
                    for _ in range(12):
                        choose = draws.randrange
                        text = caption(digit, direction, speed, choose=choose, test=test)
                        assert left_open(text) is None, text
                        seen.add(text)
    assert len(seen) > 2000
    assert not any(map(left_open, PROMPTS))


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a cat walks", ("no digit", "no motion")),
        ("VII moves left", ("no digit",)),
        ("un sept va à gauche", ("no digit", "no motion")),
        ("un 7 va à gauche", ("no motion",)),
        ("a 42 moves up", ("no digit",)),
        ("a 4 and a two move up", ("more than one digit",)),
        ("the 4, a four, goes up", ()),
        ("two sixes move up", ("more than one digit",)),
        ("a 3 moves left in 5s", ()),
        ("?", ("no digit", "no motion")),
        ("семь движется влево", ("no digit", "no motion")),
        ("SEVEN, MOVING LEFT!", ()),
        ("", ()),
        ("  ", ()),
    ],
)
def test_what_it_cannot_mean_is_named(prompt, said):
    told = left_open(prompt)
    found = [part for part in ("no digit", "more than one digit", "no motion") if part in str(told)]
    assert found == [*said]
    assert told is None or told.startswith(repr(prompt))


def test_a_picture_needs_no_motion():
    assert left_open("a 3", moving=False) is None
    assert "no digit" in str(left_open("a cat", moving=False))


def test_a_digit_that_is_shown_need_not_be_named():
    assert left_open("it moves up", shown=True) is None
    assert "no motion" in str(left_open("a cat", shown=True))
    assert "more than one digit" in str(left_open("a 3 and a 4 go up", shown=True))
