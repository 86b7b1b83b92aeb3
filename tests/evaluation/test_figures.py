"""Figures have intervals that hold what they say."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contar.evaluation import mean, rank_correlation, share


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


@given(st.permutations(range(8)))
def test_the_rank_correlation_of_orders_without_ties_is_that_of_the_textbook(order):
    squares = sum((place - rank) ** 2 for place, rank in enumerate(order))
    expected = 1 - 6 * squares / (8 * 63)
    # torchmetrics adds 1e-6 to the divisor; only the order counts.
    for asked in (range(8), [math.exp(i) for i in range(8)]):
        assert rank_correlation(asked, order).value == pytest.approx(expected, abs=1e-5)


def test_equal_values_share_their_mean_rank():
    # Ranks 1, 2.5, 2.5, 4 against 1 to 4: covariance 4.5, variances 4.5 and 5.
    found = rank_correlation([0, 1, 1, 2], [1, 2, 3, 4]).value
    assert found == pytest.approx(math.sqrt(0.9), abs=1e-5)


@pytest.mark.parametrize("measured", [[1.0, math.nan], [1.0, 2.0, 3.0], [1.0, "2"]])
def test_numbers_that_make_no_pairs_are_refused(measured, refuses):
    with refuses("measured"):
        rank_correlation([1.0, 2.0], measured)


def test_numbers_that_are_all_equal_have_no_correlation():
    assert rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).value is None
    assert rank_correlation([], []).value is None


def test_a_perfect_order_is_as_sure_as_it_is_perfect():
    up, down = [1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]
    assert rank_correlation(up[:3], up[:3]).value == pytest.approx(1, abs=1e-5)
    for other, value in ((up, 1), (down, -1)):
        figure = rank_correlation(up, other)
        assert (figure.low, figure.value, figure.high) == pytest.approx((value,) * 3, abs=1e-5)


def test_a_mean_has_the_interval_of_the_normal_distribution():
    figure = mean([1.0, 2.0, 3.0, 4.0])
    reach = 1.959964 * math.sqrt(5 / 3) / 2
    assert figure.value == 2.5
    assert (figure.low, figure.high) == pytest.approx((2.5 - reach, 2.5 + reach))
    assert (mean([]).value, mean([7.0]).value, mean([7.0]).low) == (None, 7.0, None)
