"""In which order a run takes its samples: each once an epoch, from seed and step alone."""

import numpy as np
import torch

from contar._errors import check_count
from contar._random import seeded

_SMALL = 1 << 15  # samples whose order is written out in a tenth of a millisecond
_ROUNDS = 8
_ODD = np.array([0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93], np.uint64)  # factors that spread bits


def batch_indices(count: int, batch: int, step: int, *, seed: int) -> list[int]:
    """Return the samples of a step: epoch after epoch, each in an order of its own.

    Its time grows with `batch`, not with `count`.

    Args:
        count: samples there are, below 2**62.
        batch: samples of a step.
        step: from 0.
        seed: of the orders.

    Raises:
        ValueError: a number outside its range.
    """
    count, batch = check_count("count", count), check_count("batch", batch)
    step = check_count("step", step, 0)
    chosen: list[int] = []
    for epoch in range(step * batch // count, (step * batch + batch - 1) // count + 1):
        first = max(step * batch - epoch * count, 0)
        last = min(step * batch + batch - epoch * count, count)
        chosen += _samples(count, first, last, seeded(seed, "epoch", epoch))
    return chosen


def _samples(count: int, first: int, last: int, draws: torch.Generator) -> list[int]:
    """Return what stands at the places [first, last) of an epoch's order."""
    if count <= _SMALL:
        return torch.randperm(count, generator=draws, device="cpu")[first:last].tolist()
    half = ((count - 1).bit_length() + 1) // 2
    keys = torch.randint(2**62, (_ROUNDS,), generator=draws, device="cpu").numpy().astype(np.uint64)
    values = np.arange(first, last).astype(np.uint64)
    beyond = np.ones(len(values), bool)
    while beyond.any():  # each place's walk leads back below `count`, where it began
        values[beyond] = _permuted(values[beyond], half, keys)
        beyond = values >= count
    return values.tolist()


def _permuted(values: np.ndarray, half: int, keys: np.ndarray) -> np.ndarray:
    """Permute [0, 4**half) by a Feistel network, which any round function makes one to one.

    Source: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002, whose walk through
    cycles makes of it a permutation of fewer.
    """
    width, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> width, values & mask
    for key in keys:
        mixed = (right ^ key) * _ODD[0]
        mixed = (mixed ^ (mixed >> np.uint64(32))) * _ODD[1]
        left, right = right, left ^ ((mixed >> np.uint64(32)) & mask)
    return (left << width) | right
