"""Figures of moving digits count what they are about."""

from recipes.moving_digits import FIGURES, Outcome
from recipes.moving_digits.evaluation.figures import count_up


def outcome(task="text", **changes):
    told = {
        "task": task, "index": 0, "digit": 3, "seen": 3, "read": 3, "direction": "left",
        "moved": "left", "speed": 1.3, "pace": 1.3, "frames": (3,) * 8, "change": 1.0,
        "sharpness": 1.0,
    }  # fmt: skip
    return Outcome(**(told | changes))


def test_each_figure_counts_the_clips_that_it_is_about():
    still = {"direction": None, "speed": 0.0}
    outcomes = [
        outcome("continuation"),
        outcome("continuation", seen=4, read=-1, moved="right", pace=1.7, frames=(4,) * 8),
        outcome(
            "continuation", seen=-1, moved="lost", pace=None, frames=(), change=None, sharpness=None
        ),
        outcome("continuation", moved=None, pace=0.1, frames=(3,) * 4 + (-1,) + (3,) * 4),
        outcome("continuation", **still, moved=None, pace=0.1),
        outcome("continuation", **still, moved="up", pace=0.6, frames=(3, 3, 3, 3, 3, 5, 3)),
        outcome("continuation", **still, moved="lost", pace=None),
    ]
    counted = {name: (f.value, f.count) for name, f in count_up(outcomes).items()}
    assert counted == {
        "continuation.digit": (5 / 7, 7),
        "continuation.digit_last": (4 / 7, 7),
        "continuation.digit_all": (3 / 7, 7),
        "continuation.change": (1.0, 6),
        "continuation.sharpness": (1.0, 6),
        "continuation.digit_read": (6 / 7, 7),
        "continuation.direction": (1 / 4, 4),
        "continuation.still": (1 / 3, 3),
        "continuation.speed": (1 / 4, 4),
        "continuation.speed_ratio": (1.0, 3),
    }


def test_what_meets_no_wall_does_not_count_among_what_goes_back():
    bounced = [True, True, False, None]
    figure = count_up([outcome("longer", bounced=b) for b in bounced])["longer.bounced"]
    assert (figure.value, figure.count) == (2 / 3, 3)


def test_every_figure_has_a_title_and_a_kind():
    for task in ("text", "image", "continuation", "longer", "motion"):
        assert set(count_up([outcome(task)])) <= set(FIGURES)
    assert count_up([]) == {}
    assert "text.digit_read" not in count_up([outcome(read=None)])
    assert len({title for title, _ in FIGURES.values()}) == len(FIGURES)
