"""Every public name of `contar.ordering` refuses bad input by the argument's name."""

from typing import Any

import numpy as np
import pytest
import torch

from contar.ordering import (
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

NAN, INF = float("nan"), float("inf")
NO_COUNTS = [0, 2.0]  # test_errors.py has all


class OnCuda(torch.Generator):
    device: Any = torch.device("cuda")


@pytest.mark.parametrize("argument", ["tokens", "sets"])
@pytest.mark.parametrize("value", NO_COUNTS)
def test_set_sizes_need_counts(argument, value, refuses):
    with refuses(argument, repr(value)):
        set_sizes(**{"tokens": 8, "sets": 2, argument: value})


@pytest.mark.parametrize("sets", [9, 10**30])
def test_more_sets_than_tokens_are_refused(sets, refuses):
    with refuses("sets", repr(sets), "8 tokens"):
        set_sizes(8, sets)


@pytest.mark.parametrize("value", ["sine", None])
def test_set_sizes_list_the_curves_and_roundings(value, refuses):
    with refuses("curve", repr(value), "cosine", "linear", "uniform"):
        set_sizes(8, 2, curve=value)
    with refuses("rounding", repr(value), "nearest", "floor"):
        set_sizes(8, 2, rounding=value)


@pytest.mark.parametrize("make", [random_order, raster_order, full_mask, truncated_normal_mask])
@pytest.mark.parametrize("argument", ["batch", "tokens"])
@pytest.mark.parametrize("value", NO_COUNTS)
def test_orders_and_masks_need_counts(make, argument, value, refuses):
    with refuses(argument, repr(value)):
        make(**{"batch": 2, "tokens": 4, argument: value})


@pytest.mark.parametrize("make", [random_order, raster_order, full_mask, truncated_normal_mask])
@pytest.mark.parametrize("device", ["cuda:99"])
def test_orders_and_masks_need_a_device(make, device, refuses):
    with refuses("device", repr(device)):
        make(2, 4, device=device)


@pytest.mark.parametrize("make", [random_order, truncated_normal_mask])
@pytest.mark.parametrize(
    ("came", "generator"),
    [
        ("a list of 0", []),
        ("a list of 1", [torch.Generator()]),
        ("a list of 3", [torch.Generator()] * 3),
        ("a list of 3", "abc"),
        ("'a'", "ab"),
        ("None", [torch.Generator(), None]),
        ("7", 7),
        ("True", True),
        ("Generator(PCG64)", np.random.default_rng(0)),
        ("cuda", OnCuda()),
        ("cuda", [torch.Generator(), OnCuda()]),
    ],
)
def test_generators_that_do_not_fit_are_refused(make, came, generator, refuses):
    with refuses("generator", came):
        make(2, 4, generator=generator)


@pytest.mark.parametrize("make", [random_order, truncated_normal_mask])
def test_a_cpu_generator_works_for_another_device(make):
    drawn = make(2, 4, generator=torch.Generator(), device="cpu")
    assert drawn is not None
    assert random_order(2, 4, generator=torch.Generator(), device="meta").shape == (2, 4)


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("low", "-0.1", {"low": -0.1}),
        ("low", "1.5", {"low": 1.5}),
        ("low", "nan", {"low": NAN}),
        ("low", "True", {"low": True}),
        ("low", "None", {"low": None}),
        ("high", "0.5", {"high": 0.5}),
        ("high", "1.01", {"high": 1.01}),
        ("high", "'1'", {"high": "1"}),
        ("mean", "inf", {"mean": INF}),
        ("mean", "nan", {"mean": NAN}),
        ("mean", "1000", {"mean": 10**400}),
        ("std", "0", {"std": 0}),
        ("std", "-0.25", {"std": -0.25}),
        ("std", "nan", {"std": NAN}),
        ("std", "inf", {"std": INF}),
        ("ratio", "'token'", {"ratio": "token"}),
        ("ratio", "None", {"ratio": None}),
        ("rounding", "'up'", {"rounding": "up"}),
    ],
)
def test_a_training_mask_refuses_numbers_outside_their_range(argument, came, changes, refuses):
    with refuses(argument, came):
        truncated_normal_mask(2, 4, **changes)


ORDER = torch.tensor([[2, 0, 1], [0, 1, 2]])


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("order", "NoneType", {"order": None}),
        ("order", "list", {"order": [[0, 1, 2]]}),
        ("order", "(3,)", {"order": torch.arange(3)}),
        ("order", "torch.float32", {"order": ORDER.float()}),
        ("order", "torch.bool", {"order": ORDER.bool()}),
        ("order", "repeated", {"order": torch.tensor([[0, 0, 1], [0, 1, 2]])}),
        ("order", "repeated", {"order": ORDER + 1}),
        ("order", "repeated", {"order": ORDER - 1}),
        ("sizes", "()", {"sizes": ()}),
        ("sizes", "None", {"sizes": None}),
        ("sizes", "3", {"sizes": 3}),
        ("sizes", "(1, 1)", {"sizes": (1, 1)}),
        ("sizes", "(2, 2)", {"sizes": (2, 2)}),
        ("sizes", "0", {"sizes": (3, 0)}),
        ("sizes", "-1", {"sizes": (4, -1)}),
        ("sizes", "3.0", {"sizes": (3.0,)}),
        ("sizes", "'3'", {"sizes": "3"}),
    ],
)
def test_a_schedule_refuses_what_is_no_order_or_does_not_add_up(argument, came, changes, refuses):
    with refuses(argument, came):
        SetSchedule(**{"order": ORDER, "sizes": (1, 2), **changes})


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("order", "NoneType", {"order": None}),
        ("order", "(3,)", {"order": torch.arange(3)}),
        ("order", "torch.float32", {"order": ORDER.float()}),
        ("order", "repeated", {"order": torch.tensor([[0, 0, 1], [0, 1, 2]])}),
        ("visible", "int", {"visible": 1}),
        ("visible", "list", {"visible": [1, 1]}),
        ("visible", "(1,)", {"visible": torch.tensor([1])}),
        ("visible", "(3,)", {"visible": torch.tensor([1, 1, 1])}),
        ("visible", "torch.float32", {"visible": torch.tensor([1.0, 1.0])}),
        ("visible", "3", {"visible": torch.tensor([1, 3])}),
        ("visible", "-1", {"visible": torch.tensor([-1, 0])}),
    ],
)
def test_a_mask_by_order_refuses_what_does_not_fit(argument, came, changes, refuses):
    with refuses(argument, came):
        mask_by_order(**{"order": ORDER, "visible": torch.tensor([1, 2]), **changes})


def test_a_mask_of_no_samples_is_refused(refuses):
    empty = torch.zeros(0, dtype=torch.int64)
    with refuses("visible", "(0,)"):
        mask_by_order(empty.reshape(0, 3), empty)


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("hidden", "NoneType", {"hidden": None}),
        ("hidden", "torch.int64", {"hidden": torch.ones(2, 3, dtype=torch.int64)}),
        ("hidden", "torch.float32", {"hidden": torch.ones(2, 3)}),
        ("hidden", "(3,)", {"hidden": torch.ones(3, dtype=torch.bool)}),
        ("visible_ids", "NoneType", {"visible_ids": None}),
        ("visible_ids", "(1, 1)", {"visible_ids": torch.zeros(1, 1, dtype=torch.int64)}),
        ("visible_ids", "torch.float32", {"visible_ids": torch.zeros(2, 1)}),
        ("visible_ids", "torch.uint8", {"visible_ids": torch.zeros(2, 1, dtype=torch.uint8)}),
        ("padding_mask", "torch.int64", {"padding_mask": torch.zeros(2, 1, dtype=torch.int64)}),
        ("padding_mask", "(2, 2)", {"padding_mask": torch.zeros(2, 2, dtype=torch.bool)}),
        ("padding_mask", "bool", {"padding_mask": True}),
    ],
)
def test_a_training_mask_refuses_other_shapes_and_dtypes(argument, came, changes, refuses):
    good = {
        "hidden": torch.ones(2, 3, dtype=torch.bool),
        "visible_ids": torch.zeros(2, 1, dtype=torch.int64),
    }
    with refuses(argument, came):
        TrainingMask(**{**good, **changes})


@pytest.mark.parametrize("columns", [0, 3, 2.0, None])
def test_columns_that_do_not_divide_the_tokens_are_refused(columns, refuses):
    with refuses("columns"):
        checkerboard_order(2, 8, columns=columns)


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("order", "(4,)", {"order": torch.arange(4)}),
        ("order", "torch.float32", {"order": torch.zeros(2, 4)}),
        ("keep", "(2,)", {"keep": torch.ones(2, dtype=torch.bool)}),  # as many as samples
        ("keep", "torch.int64", {"keep": torch.ones(4, dtype=torch.int64)}),
    ],
)
def test_kept_first_takes_an_order_of_each_sample_and_a_truth_of_each_position(
    argument, came, changes, refuses
):
    keep = torch.tensor([True, False, True, False])
    with refuses(argument, came):
        kept_first(**{"order": raster_order(2, 4), "keep": keep, **changes})


CPU, ORDER = torch.device("cpu"), torch.tensor([[2, 0, 1], [1, 2, 0]])


@pytest.mark.parametrize("visible", [[0, 0], [2, 2], [0, 2], [2, 1]])
def test_a_mask_by_an_order_shows_each_position_that_it_does_not_hide(visible):
    mask_by_order(ORDER, torch.tensor(visible)).check(2, 3, CPU)


@pytest.mark.parametrize(
    ("argument", "hidden", "ids", "padding"),
    [
        ("mask.hidden", [[True, True]], [[]], None),  # of other sizes
        ("mask.visible_ids", [[True, False, True]], [[-1]], None),
        ("mask.visible_ids", [[True, False, True]], [[3]], None),
        ("mask.visible_ids", [[True, False, True]], [[0]], None),  # a hidden one
        ("mask.visible_ids", [[True, False, True]], [[]], None),  # one too few
        ("mask.visible_ids", [[True, False, True]], [[1, 1]], None),  # twice
        ("mask.visible_ids", [[True, False, True]], [[1, 0]], [[True, False]]),
        ("mask.hidden", [[False, False, False]], [[0, 1, 2]], None),  # nothing to predict
    ],
)
def test_a_mask_that_shows_other_positions_than_it_does_not_hide_is_refused(
    argument, hidden, ids, padding, refuses
):
    padded = None if padding is None else torch.tensor(padding)
    visible = torch.tensor(ids, dtype=torch.int64)
    mask = TrainingMask(torch.tensor(hidden), visible, padded)
    with refuses(argument):
        mask.check(1, 3, CPU)
