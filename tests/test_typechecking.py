"""The annotations of contar and recipes are enforced where tests call them, and cheaply."""

import pytest
import torch
import typechecking
from jaxtyping import TypeCheckError
from torch import Tensor

from contar._typing import Float
from contar.ordering import random_order
from recipes import mar


def test_a_wrong_type_in_a_call_of_contar_or_recipes_raises():
    wrong: object = "tokens"
    for function in (random_order, mar.official_head):
        with pytest.raises(TypeCheckError):
            function(wrong, wrong)  # type: ignore[arg-type]


def test_the_first_calls_of_a_function_are_checked_and_a_wrong_one_does_not_count():
    @typechecking.jaxtyped(typechecker=typechecking.checked)
    def same(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return x + y

    good, bad = torch.zeros(2, 3), torch.zeros(1, 3)
    for _ in range(typechecking.CALLS):
        with pytest.raises(TypeCheckError):
            same(good, bad)
        same(good, good)
    assert same(good, bad).shape == (2, 3)
    typechecking.seen.clear()  # as before each test
    with pytest.raises(TypeCheckError):
        same(good, bad)
