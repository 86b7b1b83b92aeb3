"""The annotations of contar and recipes are enforced where tests call them, and cheaply."""

import pytest
import torch
import typechecking
from jaxtyping import TypeCheckError, config
from torch import Tensor

from contar._typing import Float
from contar.ordering import random_order
from recipes import mar


def test_a_wrong_type_in_a_call_of_contar_or_recipes_raises():
    wrong: object = "tokens"
    for function in (random_order, mar.official_head):
        with pytest.raises(TypeCheckError):
            function(wrong, wrong)  # type: ignore[arg-type]


@typechecking.jaxtyped(typechecker=typechecking.checked)
def same(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return x + y


GOOD, BAD = torch.zeros(2, 3), torch.zeros(1, 3)


def test_the_first_calls_of_a_function_are_checked_and_a_wrong_one_does_not_count():
    for _ in range(typechecking.CALLS):
        with pytest.raises(TypeCheckError):
            same(GOOD, BAD)
        same(GOOD, GOOD)
    assert same(GOOD, BAD).shape == (2, 3)
    typechecking.seen.clear()  # as before each test
    with pytest.raises(TypeCheckError):
        same(GOOD, BAD)


def test_after_the_first_calls_only_arguments_of_kinds_not_met_yet_are_checked():
    @typechecking.jaxtyped(typechecker=typechecking.checked)
    def made(x: Float[Tensor, "n d"], rows: int) -> Float[Tensor, "n d"]:
        return torch.zeros(rows, x.shape[1])

    for _ in range(typechecking.FIRST):
        made(torch.zeros(2, 3), 2)
    assert made(torch.zeros(2, 3), 5).shape == (5, 3)  # met: not checked
    for other in (torch.zeros(4, 3), torch.zeros(2, 3).half()):
        with pytest.raises(TypeCheckError):
            made(other, 5)
    typechecking.seen.clear()  # as before each test
    with pytest.raises(TypeCheckError):
        made(torch.zeros(2, 3), 5)


def test_what_was_called_while_nothing_is_checked_was_not_met():
    @typechecking.jaxtyped(typechecker=typechecking.checked)
    def made(x: Float[Tensor, "n d"], rows: int) -> Float[Tensor, "n d"]:
        return torch.zeros(rows, x.shape[1])

    config.update("jaxtyping_disable", True)
    try:
        for _ in range(typechecking.FIRST):
            made(torch.zeros(2, 3), 5)
    finally:
        config.update("jaxtyping_disable", False)
    with pytest.raises(TypeCheckError):
        made(torch.zeros(2, 3), 5)
