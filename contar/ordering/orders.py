"""Orders: a permutation of the token positions for each sample."""

import torch

from contar._errors import check_count, check_device
from contar._random import Generators, check_generator, uniform
from contar._typing import Int, Tensor


def random_order(
    batch: int,
    tokens: int,
    *,
    generator: Generators | None = None,
    device: torch.device | str = "cpu",
) -> Int[Tensor, "b n"]:
    """Return uniformly random permutations: the positions sorted by one uniform draw each.

    With one generator a sample's order depends on its row; with a list, on its own generator alone.

    Raises:
        ValueError: a size below 1, or generators that do not fit.
    """
    check_count("batch", batch)
    check_count("tokens", tokens)
    check_device("device", device)
    generator = check_generator(generator, batch, device)
    keys = uniform(batch, tokens, generator=generator, device=device)
    return keys.argsort(dim=1, stable=True)


def raster_order(
    batch: int, tokens: int, *, device: torch.device | str = "cpu"
) -> Int[Tensor, "b n"]:
    """Return the reading order, row by row, for each sample.

    Raises:
        ValueError: a size below 1.
    """
    check_count("batch", batch)
    check_device("device", device)
    return torch.arange(check_count("tokens", tokens), device=device).expand(batch, -1)
