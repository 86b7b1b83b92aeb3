"""Each check refuses every kind of bad value, so a test of an argument needs one of each kind."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from contar import _errors as errors

NAN, INF = math.nan, math.inf
NO_INTEGERS = [1.0, 2.5, NAN, INF, True, None, "2", b"2", [2], (2,), torch.tensor(2.0), 1j]


@pytest.mark.parametrize("check", [errors.check_count, errors.check_size])
def test_counts_and_sizes_are_integers_from_their_minimum_on(check, refuses):
    value: Any
    for value in [0, -1, -(2**70), *NO_INTEGERS, np.bool_(True), Fraction(2)]:
        with refuses("name", repr(value), "an integer"):
            check("name", value)
    for value in (2, 0, -1, True):
        with refuses("name", repr(value)):
            check("name", value, 3)
    assert check("name", 0, 0) == 0
    for value in (3, np.int64(3), torch.tensor(3)):
        assert (type(check("name", value, 3)), check("name", value, 3)) == (int, 3)


def test_a_size_is_one_that_memory_holds(refuses):
    for value in (2**24 + 1, 10**9, 2**40, 2**62, 2**63, 2**100):
        with refuses("name", str(value), str(2**24)):
            errors.check_size("name", value)
        assert errors.check_count("name", value) == value
    with refuses("name", "8"):
        errors.check_size("name", 8, 1, 7)
    with refuses("name", "tensor"):
        errors.check_size("name", torch.tensor(True))
    assert errors.check_size("name", 2**24) == 2**24


def test_a_product_of_sizes_is_one_that_memory_holds(refuses):
    errors.check_total("a, b", 2**18, 2**18)
    with refuses("a, b", str(2**18)):
        errors.check_total("a, b", 2**18, 2**18 + 1)


def test_numbers_are_finite_and_in_their_range(refuses):
    value: Any
    for value in (-0.1, 1.1, NAN, INF, -INF, True, None, "0.5", [0.5], 10**400, 1j, np.float32(2)):
        with refuses("name", repr(value), "[0, 1]"):
            errors.check_number("name", value, 0, 1)
    for value in (NAN, INF, -INF, 10**400):
        with refuses("name", repr(value)):
            errors.check_number("name", value)
    for value in (0, 1, 0.5):
        assert errors.check_number("name", value, 0, 1) == value


def test_sequences_of_numbers_have_their_length_and_hold_numbers_alone(refuses):
    value: Any
    for value in ((), 1.0, "12", b"12", (1.0,), (1.0, 2.0, 3.0), torch.ones(2), {1.0, 2.0}):
        with refuses("name", "2 finite numbers"):
            errors.check_numbers("name", value, 2)
    for value in ((1.0, NAN), [1.0, None], (True, 1.0), ("1", 2.0)):
        with refuses("name", "a finite number"):
            errors.check_numbers("name", value, 2)
    for value in (None, (), "1"):
        with refuses("name", "one or more finite numbers"):
            errors.check_numbers("name", value)
    errors.check_numbers("name", None, 2)
    errors.check_numbers("name", [1, 2.5])


def test_grids_have_a_positive_size_for_each_axis(refuses):
    value: Any
    for value in (3, None, "ab", b"12", (2,), (2, 2, 2), torch.ones(2)):
        with refuses("name", "(height, width)"):
            errors.check_grid("name", value)
    for value in ((0, 2), (2, -1), (2.0, 2), (2, True), (2, NAN), (2, "2"), (2**63, 1)):
        with refuses("name", "an integer"):
            errors.check_grid("name", value)
    assert errors.check_grid("name", [2, np.int64(3)]) == (2, 3)


def test_devices_are_those_that_torch_has_here(refuses):
    value: Any
    for value in ("tpu5", "", 1.5, "cuda:99", None, [], 2**70):
        with refuses("name", repr(value)):
            errors.check_device("name", value)
    for value in ("cpu", torch.device("cpu"), "meta"):
        errors.check_device("name", value)


def test_tensors_have_their_shape_kind_device_and_dtype(refuses):
    def check(value: Any, **options: Any) -> None:
        errors.check_tensor("name", value, (None, 3), "[b, d]", **options)

    for value in (None, [1.0], 1.0, np.ones((2, 3))):
        with refuses("name", type(value).__name__, "a float tensor [b, d]"):
            check(value)
    for shape in ((3,), (2, 4), (1, 2, 3)):
        with refuses("name", str(shape), "[b, d] = [any, 3]"):
            check(torch.ones(shape))
    for kind, dtypes in {
        "float": (torch.int64, torch.bool, torch.complex64, torch.uint8),
        "int": (torch.float32, torch.bool, torch.uint8, torch.int16),
        "bool": (torch.float32, torch.int64, torch.uint8),
    }.items():
        for dtype in dtypes:
            with refuses("name", str(dtype)):
                check(torch.ones(2, 3, dtype=dtype), kind=kind)
    with refuses("name", "meta", "cpu"):
        check(torch.ones(2, 3, device="meta"), like=torch.ones(1))
    with refuses("name", "torch.float64", "torch.float32, as the weights"):
        check(torch.ones(2, 3, dtype=torch.float64), like=torch.ones(1))
    with torch.autocast("cpu"):
        check(torch.ones(2, 3, dtype=torch.bfloat16), like=torch.ones(1))
    check(torch.ones(2, 3), like=torch.ones(1))


def test_leading_axes_may_be_any(refuses):
    for shape in ((3,), (2, 3), (1, 2, 3)):
        errors.check_shape("name", shape, (..., 3), "[..., d]")
    for shape in ((), (2,), (3, 2)):
        with refuses("name", str(shape)):
            errors.check_shape("name", shape, (..., 3), "[..., d]")


def test_ids_outside_their_range_are_refused(refuses):
    for came, ids in (("-1 to 0", [-1, 0]), ("0 to 3", [0, 3]), ("5 to 5", [[5]])):
        with refuses("name", came, "from 0 to 2"):
            errors.check_ids("name", torch.tensor(ids), 3)
    errors.check_ids("name", torch.tensor([0, 2]), 3)
    errors.check_ids("name", torch.zeros(0, dtype=torch.int64), 3)


def test_what_broadcasts_has_the_targets_sizes_or_1(refuses):
    for shape in ((), (3,), (2, 1), (1, 3), (2, 3)):
        errors.check_broadcast("name", shape, (2, 3))
    for shape in ((2,), (3, 3), (1, 2, 3), (2, 2)):
        with refuses("name", str(shape), "(2, 3)"):
            errors.check_broadcast("name", shape, (2, 3))


def test_nan_and_infinite_values_are_refused(refuses):
    for value, word in ((NAN, "NaN"), (INF, "infinite"), (-INF, "infinite")):
        with refuses("name", word):
            errors.check_finite("name", torch.tensor([1.0, value]))
    errors.check_finite("name", torch.ones(2))


def test_what_is_no_text_no_choice_no_instance_or_no_callable_is_refused(refuses):
    value: Any
    for value in (None, 3, b"text", ["text"], "a \udcff"):
        with refuses("name"):
            errors.check_text("name", value)
    for value in ("c", "A", None, 1):
        with refuses("name", repr(value), "one of 'a', 'b'"):
            errors.check_choice("name", value, ("a", "b"))
    for value in ("1", 1, None, [], torch.tensor(True), b"1"):
        with refuses("name", type(value).__name__, "a bool"):
            errors.check_instance("name", value, bool)
    for value in (None, "print", 3):
        with refuses("name", "a callable"):
            errors.check_callable("name", value)
    assert errors.check_text("name", "text") == "text"
    errors.check_choice("name", "a", ("a", "b"))
    errors.check_instance("name", False, bool)
    errors.check_callable("name", print)
