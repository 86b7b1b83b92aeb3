"""Orders: a permutation of the token positions for each sample."""

import torch

from contar._errors import bad, check_device, check_size, check_tensor, check_total
from contar._random import Generators, check_generator, uniform
from contar._typing import Bool, Int, Tensor


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
    check_batch(batch, tokens, device)
    generator = check_generator(generator, batch, device)
    keys = uniform(batch, tokens, generator=generator, device=device)
    return keys.argsort(dim=1, stable=True)


def raster_order(
    batch: int, tokens: int, *, device: torch.device | str = "cpu"
) -> Int[Tensor, "b n"]:
    """Return the reading order, row by row, for each sample; a ValueError for a size below 1."""
    check_batch(batch, tokens, device)
    return torch.arange(tokens, device=device).expand(batch, -1)


def checkerboard_order(
    batch: int,
    tokens: int,
    *,
    columns: int,
    generator: Generators | None = None,
    device: torch.device | str = "cpu",
) -> Int[Tensor, "b n"]:
    """Return random permutations in which every second cell of a grid comes before the others.

    The corner at position 0 is of the first kind, of which there are (tokens + 1) // 2 in a grid
    of an odd number of tokens. Source: GtR (Yan et al. 2025, arXiv 2510.17171).

    Raises:
        ValueError: as `random_order`, or columns that do not divide the tokens.
    """
    if check_size("tokens", tokens) % check_size("columns", columns):
        raise bad("columns", columns, f"a divisor of the {tokens} tokens")
    order = random_order(batch, tokens, generator=generator, device=device)
    later = (order // columns + order % columns) % 2
    return order.gather(1, later.argsort(dim=1, stable=True))


def kept_first(order: Int[Tensor, "b n"], keep: Bool[Tensor, " n"]) -> Int[Tensor, "b n"]:
    """Return orders in which the positions that are kept come before the others.

    Among either the order stays. `keep` [n] is True where a position's token is given.

    Raises:
        ValueError: other shapes or dtypes.
    """
    check_tensor("order", order, (None, None), "[b, n]", kind="int")
    check_tensor("keep", keep, (order.shape[1],), "[n]", kind="bool")
    return order.gather(1, (~keep)[order].byte().argsort(dim=1, stable=True))


def check_batch(batch: int, tokens: int, device: torch.device | str) -> None:
    """Raise a ValueError for sizes or a device that no order or mask can have."""
    check_total("batch, tokens", check_size("batch", batch), check_size("tokens", tokens))
    check_device("device", device)


def check_order(order: Tensor) -> None:
    """Raise a ValueError unless the rows are permutations."""
    check_tensor("order", order, (None, None), "[b, n]", kind="int")
    if not (order.sort(dim=1).values == torch.arange(order.shape[1], device=order.device)).all():
        raise bad("order", "rows with repeated or missing positions", "permutations")
