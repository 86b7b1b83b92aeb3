"""The laws of ordering: orders, set sizes, schedules and training masks."""

import dataclasses
import itertools
import math
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from contar.ordering import (
    Curve,
    Rounding,
    SetSchedule,
    TrainingMask,
    checkerboard_order,
    full_mask,
    kept_first,
    mask_by_order,
    random_order,
    raster_order,
    set_sizes,
    truncated_normal_mask,
)

Refuses = Callable[..., AbstractContextManager[None]]

CURVES: tuple[Curve, ...] = get_args(Curve)
ROUNDINGS: tuple[Rounding, ...] = get_args(Rounding)
GRIDS = (*range(1, 65), 100, 255, 256, 999, 1024, 1440)  # whole grids of images, and odd numbers

seeds = st.integers(0, 2**32 - 1)
curves = st.sampled_from(CURVES)
roundings = st.sampled_from(ROUNDINGS)


@st.composite
def counts(draw: st.DrawFn, most: int = 300) -> tuple[int, int]:
    """Tokens, and sets of which there are not more."""
    tokens = draw(st.integers(1, most))
    return tokens, draw(st.integers(1, tokens))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_permutations(order: Tensor, tokens: int) -> None:
    for row in order.tolist():
        assert sorted(row) == list(range(tokens))


# --- Orders --------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(1, 200), seeds, st.booleans())
def test_each_row_of_a_random_order_is_a_permutation(
    batch: int, tokens: int, seed: int, several: bool
) -> None:
    given_ = [generator(seed + i) for i in range(batch)] if several else generator(seed)
    order = random_order(batch, tokens, generator=given_)
    assert order.shape == (batch, tokens)
    assert_permutations(order, tokens)


@given(st.integers(1, 5), st.integers(1, 200))
def test_the_raster_order_is_the_reading_order(batch: int, tokens: int) -> None:
    assert raster_order(batch, tokens).tolist() == [list(range(tokens))] * batch


@given(seed=seeds, batch=st.integers(1, 4), rows=st.integers(1, 9), columns=st.integers(1, 9))
def test_a_checkerboard_order_is_a_permutation_of_first_the_one_colour_then_the_other(
    seed: int, batch: int, rows: int, columns: int
) -> None:
    tokens = rows * columns
    order = checkerboard_order(batch, tokens, columns=columns, generator=generator(seed))
    assert_permutations(order, tokens)
    colour = (order // columns + order % columns) % 2
    first = (tokens + 1) // 2
    assert (colour[:, :first] == 0).all()
    assert (colour[:, first:] == 1).all()
    again = checkerboard_order(batch, tokens, columns=columns, generator=generator(seed))
    assert (order == again).all()
    # Each colour is in the order that a random order has it in.
    plain = random_order(batch, tokens, generator=generator(seed))
    for row, drawn in zip(order.tolist(), plain.tolist(), strict=True):
        for kept in (row[:first], row[first:]):
            assert kept == [position for position in drawn if position in set(kept)]


@given(st.lists(seeds, min_size=1, max_size=5), st.integers(1, 50), st.integers(0, 4))
def test_equal_seeds_give_equal_orders_whatever_else_is_in_the_batch(
    rows: list[int], tokens: int, which: int
) -> None:
    alone = random_order(1, tokens, generator=[generator(rows[which % len(rows)])])
    together = random_order(len(rows), tokens, generator=[generator(seed) for seed in rows])
    assert torch.equal(together[which % len(rows)], alone[0])


@given(st.integers(1, 5), st.integers(1, 50), seeds)
def test_equal_seeds_give_equal_batches_of_orders(batch: int, tokens: int, seed: int) -> None:
    first, second = (random_order(batch, tokens, generator=generator(seed)) for _ in "12")
    assert torch.equal(first, second)


def test_other_seeds_rows_and_calls_give_other_orders() -> None:
    g = generator(0)
    orders = [*random_order(3, 20, generator=g), *random_order(3, 20, generator=g)]
    orders += [random_order(1, 20, generator=generator(1))[0], random_order(1, 20)[0]]
    # 8 draws from 20! permutations: two are equal once in 1e17 times.
    assert len({tuple(order.tolist()) for order in orders}) == len(orders)


def chi_square_excess(observed: Tensor, expected: float, freedom: int) -> float:
    """How many standard deviations a chi-square statistic lies above its mean."""
    statistic = float(((observed - expected) ** 2).sum() / expected)
    return (statistic - freedom) / math.sqrt(2 * freedom)


# Six deviations above: for these degrees of freedom less than once in 10 000 seeds.
UNIFORM = 6.0


@pytest.mark.parametrize("several", [False, True], ids=["one generator", "one each"])
def test_no_position_is_favoured_at_any_rank(several: bool) -> None:
    batch, tokens = 20_000, 10
    given_ = [generator(i) for i in range(batch)] if several else generator(0)
    order = random_order(batch, tokens, generator=given_)
    table = torch.nn.functional.one_hot(order, tokens).sum(dim=0).double()  # [rank, position]
    assert chi_square_excess(table, batch / tokens, (tokens - 1) ** 2) < UNIFORM


def test_no_permutation_is_favoured() -> None:
    batch, tokens = 24_000, 4
    code = random_order(batch, tokens, generator=generator(0)) @ 10 ** torch.arange(tokens)
    _, observed = code.unique(return_counts=True)
    assert len(observed) == 24
    assert chi_square_excess(observed.double(), batch / 24, 23) < UNIFORM


# --- Set sizes -----------------------------------------------------------------------------------


@given(counts(), curves, roundings)
def test_sizes_are_positive_and_add_up(
    numbers: tuple[int, int], curve: Curve, rounding: Rounding
) -> None:
    tokens, sets = numbers
    sizes = set_sizes(tokens, sets, curve=curve, rounding=rounding)
    assert all(size >= 1 for size in sizes)
    assert sum(sizes) == tokens
    assert len(sizes) <= sets


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("curve", CURVES)
def test_sizes_are_positive_and_add_up_for_every_number_of_sets(
    curve: Curve, rounding: Rounding
) -> None:
    for tokens in range(1, 41):
        for sets in range(1, tokens + 1):
            sizes = set_sizes(tokens, sets, curve=curve, rounding=rounding)
            assert min(sizes) >= 1
            assert sum(sizes) == tokens


@given(counts(), curves)
def test_floor_gives_exactly_the_sets_asked_for(numbers: tuple[int, int], curve: Curve) -> None:
    tokens, sets = numbers
    assert len(set_sizes(tokens, sets, curve=curve, rounding="floor")) == sets


def test_nearest_cosine_sizes_are_those_of_nova_s_formula() -> None:
    for tokens in GRIDS:
        for sets in range(1, min(tokens, 100) + 1):
            # Deng et al. 2024, diffnext/pipelines/nova: the operations in this order, in float64.
            shares = np.cos(0.5 * np.pi * np.arange(sets + 1) / sets)
            hidden = np.round(shares * tokens).astype("int64")
            sizes = hidden[:-1] - hidden[1:]
            assert set_sizes(tokens, sets) == tuple(sizes[sizes > 0].tolist()), (tokens, sets)


def test_floor_cosine_sizes_are_those_of_mar_s_loop() -> None:
    for tokens in GRIDS:
        for sets in range(1, min(tokens, 100) + 1):
            # Li et al. 2024, models/mar.py, sample_tokens: the last step predicts all that is left.
            hidden, sizes = tokens, []
            for step in range(sets):
                share = np.cos(math.pi / 2.0 * (step + 1) / sets)
                after = max(1, min(hidden - 1, int(np.floor(tokens * share))))
                after = 0 if step == sets - 1 else after
                sizes.append(hidden - after)
                hidden = after
            assert set_sizes(tokens, sets, rounding="floor") == tuple(sizes), (tokens, sets)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_uniform_sizes_differ_by_one_at_most(rounding: Rounding) -> None:
    for tokens in GRIDS:
        for sets in range(1, min(tokens, 100) + 1):
            sizes = set_sizes(tokens, sets, curve="uniform", rounding=rounding)
            assert max(sizes) - min(sizes) <= 1, (tokens, sets)


def test_nearest_rounds_a_half_to_the_even_number_of_hidden_tokens() -> None:
    assert set_sizes(5, 2, curve="uniform") == (3, 2)  # 2.5 hidden
    assert set_sizes(7, 2, curve="uniform") == (3, 4)  # 3.5 hidden
    assert set_sizes(6, 2, curve="linear") == (2, 4)  # 4.5 hidden


@given(counts(), st.sampled_from(["cosine", "linear"]), roundings)
def test_cosine_and_linear_sizes_grow_but_for_the_rounding(
    numbers: tuple[int, int], curve: Curve, rounding: Rounding
) -> None:
    sizes = set_sizes(*numbers, curve=curve, rounding=rounding)
    assert all(after >= before - 1 for before, after in itertools.pairwise(sizes))


@given(st.integers(1, 40), st.integers(1, 40))
def test_linear_sizes_are_the_odd_numbers_where_those_fit(sets: int, times: int) -> None:
    sizes = set_sizes(times * sets**2, sets, curve="linear")  # k² - (k - 1)² = 2k - 1
    assert sizes == tuple(times * (2 * k - 1) for k in range(1, sets + 1))


# --- The schedule --------------------------------------------------------------------------------


@st.composite
def schedule_arguments(draw: st.DrawFn) -> tuple[int, int, int, tuple[int, ...]]:
    """Batch, tokens, seed of the order, and any sizes that add up."""
    sizes = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=8)))
    return draw(st.integers(1, 3)), sum(sizes), draw(seeds), sizes


def make_schedule(arguments: tuple[int, int, int, tuple[int, ...]]) -> SetSchedule:
    batch, tokens, seed, sizes = arguments
    return SetSchedule(random_order(batch, tokens, generator=generator(seed)), sizes)


@given(schedule_arguments())
def test_known_current_and_remaining_partition_the_positions_at_every_step(
    arguments: tuple[int, int, int, tuple[int, ...]],
) -> None:
    _, tokens, _, sizes = arguments
    schedule = make_schedule(arguments)
    known = schedule.order[:, :0]
    assert len(schedule) == len(sizes)
    for number, step in enumerate(schedule):
        assert (step.index, step.sets) == (number, len(sizes))
        assert step.current.shape[1] == sizes[number]
        assert torch.equal(step.known, known)  # all that was predicted before, in that order
        assert_permutations(torch.cat([step.known, step.current, step.remaining], dim=1), tokens)
        known = torch.cat([known, step.current], dim=1)
    assert torch.equal(known, schedule.order)


@given(schedule_arguments(), st.data())
def test_a_schedule_keeps_no_place_steps_may_be_read_in_any_order(
    arguments: tuple[int, int, int, tuple[int, ...]], data: st.DataObject
) -> None:
    schedule = make_schedule(arguments)
    steps = list(schedule)
    for index in data.draw(st.permutations(range(len(schedule))), label="order"):
        for field in ("known", "current", "remaining"):
            assert torch.equal(getattr(schedule[index], field), getattr(steps[index], field))
    assert len(list(schedule)) == len(steps)


@pytest.mark.parametrize("field", ["order", "sizes"])
def test_a_schedule_cannot_be_changed(field: str) -> None:
    schedule = make_schedule((2, 4, 0, (1, 3)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(schedule, field, getattr(schedule, field))


@pytest.mark.parametrize("field", ["index", "sets", "known", "current", "remaining"])
def test_a_step_cannot_be_changed(field: str) -> None:
    step = make_schedule((2, 4, 0, (1, 3)))[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(step, field, getattr(step, field))


@pytest.mark.parametrize("index", [2, -1])
def test_a_schedule_has_no_step_beyond_its_sets(index: int) -> None:
    with pytest.raises(IndexError):
        make_schedule((2, 4, 0, (1, 3)))[index]


# --- Training masks ------------------------------------------------------------------------------


@st.composite
def distributions(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of a truncated normal whose range holds a fair part of the distribution."""
    low, high = sorted(draw(st.tuples(st.floats(0, 1), st.floats(0, 1))))
    return {
        "low": low,
        "high": high,
        "mean": draw(st.floats(-1, 2)),
        "std": draw(st.floats(0.2, 3)),
    }


ratios = st.sampled_from(["batch", "sample"])


def assert_consistent(mask: TrainingMask) -> None:
    """The ids that are not filling are exactly the visible positions; filling is hidden."""
    filled = (
        torch.zeros_like(mask.visible_ids).bool()
        if mask.padding_mask is None
        else mask.padding_mask
    )
    assert filled.shape == mask.visible_ids.shape
    for hidden, ids, filling in zip(mask.hidden, mask.visible_ids, filled, strict=True):
        assert sorted(ids[~filling].tolist()) == (~hidden).nonzero().flatten().tolist()
        assert bool(hidden[ids[filling]].all())
        assert len(set(ids.tolist())) == len(ids)
    if mask.padding_mask is not None:
        assert bool(mask.padding_mask.any())
        assert not bool(mask.padding_mask.all(dim=0).any())  # some row needs each column
        assert mask.hidden_ids() is None
    else:
        ids = mask.hidden_ids()
        assert ids is not None
        assert ids.flatten().tolist() == mask.hidden.nonzero()[:, 1].tolist()


@given(st.integers(1, 5), st.integers(1, 100), distributions(), ratios, seeds)
def test_hidden_shares_stay_in_their_range_but_for_rounding_and_hide_at_least_one(
    batch: int, tokens: int, law: dict[str, Any], ratio: Any, seed: int
) -> None:
    mask = truncated_normal_mask(batch, tokens, **law, ratio=ratio, generator=generator(seed))
    assert mask.hidden.shape == (batch, tokens)
    for count in mask.hidden.sum(dim=1).tolist():
        assert count >= 1
        # Half a token is the rounding to whole ones; 1e-9 is for float64.
        assert count >= law["low"] * tokens - 0.5 - 1e-9
        assert count <= max(1, law["high"] * tokens + 0.5 + 1e-9)


@given(st.integers(1, 5), st.integers(1, 100), distributions(), ratios, seeds)
def test_visible_ids_are_exactly_the_visible_positions_and_fillings_are_hidden(
    batch: int, tokens: int, law: dict[str, Any], ratio: Any, seed: int
) -> None:
    mask = truncated_normal_mask(batch, tokens, **law, ratio=ratio, generator=generator(seed))
    assert_consistent(mask)


@given(st.data(), st.integers(1, 5), st.integers(1, 20), seeds)
def test_a_mask_by_order_shows_the_first_of_each_order(
    data: st.DataObject, batch: int, tokens: int, seed: int
) -> None:
    number = st.integers(0, tokens - 1)
    visible = data.draw(st.lists(number, min_size=batch, max_size=batch), label="visible")
    order = random_order(batch, tokens, generator=generator(seed))
    mask = mask_by_order(order, torch.tensor(visible))
    assert_consistent(mask)
    for row, hidden, count in zip(order.tolist(), mask.hidden.tolist(), visible, strict=True):
        assert [i for i in range(tokens) if not hidden[i]] == sorted(row[:count])


@pytest.mark.parametrize("visible", [[-1, 0], [0, 4]])
def test_a_mask_that_would_hide_nothing_or_show_less_is_refused(
    refuses: Refuses, visible: list[int]
) -> None:
    with refuses("visible", str(visible)):
        mask_by_order(raster_order(2, 4), torch.tensor(visible))


@pytest.mark.parametrize(("mean", "hidden"), [(0.0, 700), (2.0, 1000)])
def test_a_range_that_a_distribution_does_not_reach_hides_as_its_nearest_end_says(
    mean: float, hidden: int
) -> None:
    # 70 and 100 deviations away, where the cumulative function is 0 in float64.
    law: dict[str, Any] = {"low": 0.7, "high": 1.0, "mean": mean, "std": 0.01}
    mask = truncated_normal_mask(3, 1000, **law, generator=generator(0))
    assert mask.hidden.sum(dim=1).tolist() == [hidden] * 3


@given(st.integers(1, 4), st.lists(st.booleans(), min_size=1, max_size=30), seeds)
def test_positions_that_are_kept_come_first_and_either_kind_stays_in_its_order(
    batch: int, kept: list[bool], seed: int
) -> None:
    keep = torch.tensor(kept)
    order = random_order(batch, len(kept), generator=generator(seed))
    for before, after in zip(order.tolist(), kept_first(order, keep).tolist(), strict=True):
        assert after == [i for i in before if kept[i]] + [i for i in before if not kept[i]]


@given(st.integers(2, 6), st.integers(1, 100), distributions(), seeds)
def test_ratio_batch_hides_equally_many_in_every_sample_and_needs_no_filling(
    batch: int, tokens: int, law: dict[str, Any], seed: int
) -> None:
    mask = truncated_normal_mask(batch, tokens, **law, generator=generator(seed))
    assert len(set(mask.hidden.sum(dim=1).tolist())) == 1
    assert mask.padding_mask is None


def test_ratio_batch_draws_a_share_for_each_call_and_ratio_sample_one_for_each_sample() -> None:
    g = generator(0)
    calls = [int(truncated_normal_mask(2, 1000, generator=g).hidden[0].sum()) for _ in range(20)]
    # 20 draws from about 300 numbers: half of them equal is out of reach of chance.
    assert len(set(calls)) > 10
    samples = truncated_normal_mask(20, 1000, ratio="sample", generator=g).hidden.sum(dim=1)
    assert len(set(samples.tolist())) > 10


@given(st.lists(seeds, min_size=1, max_size=4), st.integers(1, 50), distributions(), st.data())
def test_equal_seeds_give_equal_masks_whatever_else_is_in_the_batch(
    rows: list[int], tokens: int, law: dict[str, Any], data: st.DataObject
) -> None:
    which = data.draw(st.integers(0, len(rows) - 1), label="sample")

    def draw(chosen: list[int]) -> TrainingMask:
        generators = [generator(seed) for seed in chosen]
        return truncated_normal_mask(
            len(chosen), tokens, **law, ratio="sample", generator=generators
        )

    together, alone = draw(rows), draw([rows[which]])
    assert torch.equal(together.hidden[which], alone.hidden[0])
    count = alone.visible_ids.shape[1]
    assert torch.equal(together.visible_ids[which, :count], alone.visible_ids[0])


@given(st.lists(seeds, min_size=2, max_size=4), st.integers(1, 50), distributions(), ratios)
def test_the_first_sample_s_mask_depends_on_its_own_generator_alone(
    rows: list[int], tokens: int, law: dict[str, Any], ratio: Any
) -> None:
    together, alone = (
        truncated_normal_mask(
            len(chosen), tokens, **law, ratio=ratio, generator=[generator(s) for s in chosen]
        )
        for chosen in (rows, rows[:1])
    )
    assert torch.equal(together.hidden[0], alone.hidden[0])


def truncated_mean(low: float, high: float, mean: float, std: float) -> float:
    """mean + std (phi(a) - phi(b)) / (Phi(b) - Phi(a)), from whichever tail is not cancelled."""
    a, b = (low - mean) / std, (high - mean) / std
    sign = 1.0
    if a > 0:
        a, b, sign = -b, -a, -1.0
    density = math.exp(-a * a / 2) - math.exp(-b * b / 2)
    mass = 0.5 * (math.erfc(-b / math.sqrt(2)) - math.erfc(-a / math.sqrt(2)))
    return mean + sign * std * density / math.sqrt(2 * math.pi) / mass


def assert_mean(shares: Tensor, expected: float, tokens: int) -> None:
    # Five deviations of the mean, and a tenth of a token for the rounding, which nearly cancels.
    tolerance = 5 * float(shares.std()) / math.sqrt(len(shares)) + 0.1 / tokens
    assert abs(float(shares.mean()) - expected) < tolerance


@pytest.mark.parametrize(
    "law",
    [
        (0.7, 1.0, 1.0, 0.25),  # the papers'
        (0.0, 1.0, 0.5, 0.2),
        (0.1, 0.6, 0.2, 0.3),
        (0.5, 1.0, 0.0, 0.2),  # 2.5 deviations below the range
        (0.0, 0.5, 1.5, 0.1),  # 10 deviations above it
        (0.5, 1.0, -0.5, 0.1),  # 10 deviations below it
    ],
)
def test_the_mean_of_the_drawn_shares_is_that_of_the_truncated_normal(
    law: tuple[float, float, float, float],
) -> None:
    draws, tokens = 10_000, 100
    names: Any = dict(zip(("low", "high", "mean", "std"), law, strict=True))
    mask = truncated_normal_mask(draws, tokens, **names, ratio="sample", generator=generator(0))
    assert_mean(mask.hidden.double().mean(dim=1), truncated_mean(*law), tokens)


def test_the_mean_of_one_share_a_batch_is_that_of_the_truncated_normal_too() -> None:
    tokens, g = 100, generator(0)
    masks = [truncated_normal_mask(2, tokens, generator=g).hidden for _ in range(500)]
    shares = torch.stack([hidden[0].double().mean() for hidden in masks])
    assert_mean(shares, truncated_mean(0.7, 1.0, 1.0, 0.25), tokens)


@given(st.integers(1, 4), st.integers(1, 50))
def test_the_full_mask_hides_everything(batch: int, tokens: int) -> None:
    mask = full_mask(batch, tokens)
    assert mask.hidden.shape == (batch, tokens)
    assert bool(mask.hidden.all())
    assert mask.visible_ids.shape == (batch, 0)
    assert mask.padding_mask is None


@given(st.integers(1, 4), st.integers(1, 300), distributions(), ratios, seeds)
def test_rounding_down_what_is_visible_hides_no_less_than_the_share_and_one_token_more_at_most(
    batch: int, tokens: int, law: dict[str, Any], ratio: Any, seed: int
) -> None:
    down, nearest = (
        truncated_normal_mask(
            batch, tokens, **law, ratio=ratio, rounding=rounding, generator=generator(seed)
        ).hidden.sum(dim=1)
        for rounding in ("floor", "nearest")
    )
    assert bool((down >= law["low"] * tokens - 1e-9).all())
    assert bool(((down - nearest == 0) | (down - nearest == 1)).all())


def test_low_and_high_of_one_hide_everything() -> None:
    mask = truncated_normal_mask(2, 5, low=1.0, high=1.0, generator=generator(0))
    assert torch.equal(mask.hidden, full_mask(2, 5).hidden)


# --- Randomness ----------------------------------------------------------------------------------


@pytest.mark.parametrize("several", [False, True])
@given(seeds, counts(50))
def test_the_global_random_state_is_untouched(
    several: bool, seed: int, numbers: tuple[int, int]
) -> None:
    tokens, sets = numbers
    given_: Any = [generator(seed), generator(seed + 1)] if several else generator(seed)

    def states() -> tuple[list[int], bytes]:
        # Not python's `random`: beartype draws from it to choose which elements it checks.
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tobytes()  # type: ignore[union-attr]

    before = states()
    for source in (given_, None):
        schedule = SetSchedule(random_order(2, tokens, generator=source), set_sizes(tokens, sets))
        assert sum(step.current.shape[1] for step in schedule) == tokens
        for ratio in ("batch", "sample"):
            truncated_normal_mask(2, tokens, ratio=ratio, generator=source)
    full_mask(2, tokens)
    raster_order(2, tokens)
    assert states() == before


@pytest.mark.parametrize("draw", [random_order, truncated_normal_mask])
def test_the_global_seed_does_not_matter(draw: Callable[..., Any]) -> None:
    results = []
    for seed in (0, 1):
        state = torch.get_rng_state(), random.getstate()
        torch.manual_seed(seed)
        random.seed(seed)
        results.append(draw(2, 30, generator=generator(7)))
        torch.set_rng_state(state[0])
        random.setstate(state[1])
    first, second = (r if isinstance(r, Tensor) else r.visible_ids for r in results)
    assert torch.equal(first, second)
