"""Heads do not depend on torch's default dtype and device."""

import pytest
import torch
from heads import HEADS, make
from other_defaults import assert_independent, randn, seeded


@pytest.mark.parametrize("name", HEADS)
def test_heads_draw_and_learn_the_same_whatever_torchs_defaults_are(name: str) -> None:
    head = make(name, 3, 4)
    cond = randn(2, 3, 4)
    with torch.no_grad():
        assert_independent(lambda: head.sample(cond, noise=seeded()))
        assert_independent(
            lambda: head.loss(randn(6, 3), cond.flatten(0, 1), repeats=2, generator=seeded())
        )
