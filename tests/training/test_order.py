"""The order of a run's samples: each once an epoch, from seed and step alone, at any number."""

import time
from itertools import chain

import numpy as np
import pytest
import torch

from contar._random import seeded
from contar.training import batch_indices

COUNTS = [1, 2, 7, 1000, 32768, 32769, 65537, 100_003]


def epoch(count: int, number: int, seed: int = 0, batch: int = 997) -> list[int]:
    steps = range(number * count // batch, ((number + 1) * count - 1) // batch + 1)
    taken = [index for step in steps for index in batch_indices(count, batch, step, seed=seed)]
    return taken[number * count - steps[0] * batch :][:count]


@pytest.mark.parametrize("count", COUNTS)
def test_each_epoch_takes_every_sample_once(count):
    for number in (0, 5):
        assert sorted(epoch(count, number)) == list(range(count))


@pytest.mark.parametrize("count", [32768, 32769, 100_003])
def test_epochs_and_seeds_have_orders_of_their_own(count):
    orders = np.array([epoch(count, 0), epoch(count, 1), epoch(count, 0, seed=1)])
    equal = (orders[:, None] == orders[None]).mean(axis=2)
    assert (equal[~np.eye(3, dtype=bool)] < 1e-3).all()
    assert (np.abs(np.corrcoef(np.vstack([orders, np.arange(count)])) - np.eye(4)) < 0.02).all()


@pytest.mark.parametrize("count", [40_000, 70_000])
def test_no_sample_is_favoured_at_the_start(count):
    firsts = [batch_indices(count, 16, 0, seed=seed) for seed in range(200)]
    tenths = np.bincount(np.array(firsts).ravel() * 10 // count, minlength=10)
    assert (((tenths - 320) ** 2) / 320).sum() < 28  # of chi square with 9 degrees, one in 1,000


@pytest.mark.parametrize("count", [1000, 10**7])
def test_a_step_is_a_function_of_seed_and_step_alone(count):
    steps = [batch_indices(count, 32, step, seed=3) for step in range(40)]
    again = [batch_indices(count, 32, step, seed=3) for step in reversed(range(40))]
    assert again[::-1] == steps
    parts = [batch_indices(count, 16, step, seed=3) for step in range(80)]
    assert [*chain(*parts)] == [*chain(*steps)]


def test_small_sets_keep_the_order_of_runs_that_began_before():
    first, second = (
        torch.randperm(10, generator=seeded(0, "epoch", number)).tolist() for number in (0, 1)
    )
    assert batch_indices(10, 4, 2, seed=0) == [*first[8:], *second[:2]]


@pytest.mark.parametrize("count", [10**7, 10**9, 2**61])
def test_a_step_of_millions_takes_no_longer(count):
    batch_indices(count, 32, 0, seed=0)
    began = time.monotonic()
    for step in range(20):
        chosen = batch_indices(count, 32, step, seed=0)
        assert len(set(chosen)) == 32
        assert all(0 <= index < count for index in chosen)
    assert time.monotonic() - began < 1  # 4 seconds for each, when the order was written out


def test_counts_batches_and_steps_out_of_range_are_refused(refuses):
    for name, numbers in {
        "count": (0, 4, 0), "batch": (4, 0, 0), "step": (4, 4, -1)
    }.items():  # fmt: skip
        with refuses(name):
            batch_indices(*numbers, seed=0)
