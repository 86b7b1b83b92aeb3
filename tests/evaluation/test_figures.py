"""Figures: counted right, with intervals that hold what they say."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contar.evaluation.figures import FIGURES, count_up, mean, rank_correlation, share
from contar.evaluation.outcomes import Outcome


def outcome(task="text", **changes):
    told = {
        "task": task, "index": 0, "digit": 3, "seen": 3, "read": 3, "direction": "left",
        "moved": "left", "speed": 1.3, "pace": 1.3, "frames": (3,) * 8, "change": 1.0,
        "sharpness": 1.0,
    }  # fmt: skip
    return Outcome(**(told | changes))


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    # Wilson's interval for z = 1.96, as tables of it have it.
    [(5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1), (0, 10, 0, 0.2775), (195, 200, 0.9428, 0.9893)],
)
def test_the_interval_of_a_share_is_wilsons(hits, count, low, high):
    figure = share(hits, count)
    assert figure.value == hits / count
    assert (figure.low, figure.high) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_share_lies_in_its_interval_and_the_interval_in_zero_to_one(pair):
    figure = share(*pair)
    assert figure.value is not None
    assert figure.low is not None
    assert figure.high is not None
    assert 0 <= figure.low <= figure.value + 1e-12
    assert figure.value - 1e-12 <= figure.high <= 1


def test_19_of_20_intervals_hold_the_true_share():
    draws = torch.Generator().manual_seed(0)
    hits = (torch.rand(2000, 100, generator=draws) < 0.9).sum(1).tolist()
    figures = [share(hit, 100) for hit in hits]
    held = sum((f.low or 0) <= 0.9 <= (f.high or 0) for f in figures) / len(figures)
    assert held == pytest.approx(0.95, abs=0.02)


def test_a_share_of_nothing_has_no_value(refuses):
    assert share(0, 0).value is None
    with refuses("hits", "3"):
        share(3, 2)


def test_19_of_20_intervals_hold_the_true_rank_correlation():
    draws = torch.Generator().manual_seed(0)
    pearson, held = 0.8, 0
    true = 6 / math.pi * math.asin(pearson / 2)  # of a normal pair
    for _ in range(300):
        x, noise = torch.randn(2, 60, generator=draws)
        y = pearson * x + math.sqrt(1 - pearson**2) * noise
        figure = rank_correlation(x.tolist(), y.tolist())
        held += (figure.low or 0) <= true <= (figure.high or 0)
    assert held / 300 == pytest.approx(0.95, abs=0.04)


def test_numbers_that_are_all_equal_have_no_correlation():
    assert rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).value is None
    assert rank_correlation([], []).value is None


def test_a_perfect_order_is_as_sure_as_it_is_perfect():
    up, down = [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]
    assert rank_correlation(up[:3], up[:3]).value == pytest.approx(1, abs=1e-5)
    for other, value in ((up, 1), (down, -1)):
        figure = rank_correlation(up, other)
        assert (figure.low, figure.value, figure.high) == pytest.approx((value,) * 3, abs=1e-5)


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


def test_a_mean_has_the_interval_of_the_normal_distribution():
    figure = mean([1.0, 2.0, 3.0, 4.0])
    reach = 1.959964 * math.sqrt(5 / 3) / 2
    assert figure.value == 2.5
    assert (figure.low, figure.high) == pytest.approx((2.5 - reach, 2.5 + reach))
    assert (mean([]).value, mean([7.0]).value, mean([7.0]).low) == (None, 7.0, None)


def test_every_figure_has_a_title_and_a_kind():
    for task in ("text", "image", "continuation", "longer", "motion"):
        assert set(count_up([outcome(task)])) <= set(FIGURES)
    assert count_up([]) == {}
    assert "text.digit_read" not in count_up([outcome(read=None)])
    assert len({title for title, _ in FIGURES.values()}) == len(FIGURES)
