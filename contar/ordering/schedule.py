"""The set schedule: an order cut into sets, as one immutable value."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import SupportsIndex

from contar._errors import bad, check_size, check_sizes, keep_plain
from contar._typing import Int, Tensor
from contar.ordering.orders import check_order


@dataclass(frozen=True)
class SetStep:
    """One set of a schedule.

    Attributes:
        index: number of the set, from 0.
        sets: how many there are.
        known: [b, m] positions given, or predicted before.
        current: [b, n] positions to predict now.
        remaining: [b, r] positions to predict later.
    """

    index: int
    sets: int
    known: Int[Tensor, "b m"]
    current: Int[Tensor, "b n"]
    remaining: Int[Tensor, "b r"]


@dataclass(frozen=True)
class SetSchedule:
    """Which positions are predicted in which set.

    Args:
        order: [b, n], a permutation of the positions for each sample.
        sizes: tokens of each set; positive, adding up to n - given.
        given: how many first positions of each order are known before the first set.

    Raises:
        ValueError: sizes that are not positive or do not add up, an order that is none, or `given`
            below 0.
    """

    order: Int[Tensor, "b n"]
    sizes: tuple[int, ...]
    given: int = 0

    def __post_init__(self) -> None:
        keep_plain(self)
        check_order(self.order)
        check_sizes("sizes", self.sizes, "set")
        rest = self.order.shape[1] - check_size("given", self.given, 0)
        if sum(self.sizes) != rest:
            allowed = f"positive numbers that add up to the {rest} tokens of order that are to come"
            raise bad("sizes", self.sizes, allowed)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> SetStep:
        if isinstance(index, bool) or not isinstance(index, SupportsIndex):
            raise bad("index", index, "the number of a set")
        if not 0 <= index < len(self.sizes):
            raise IndexError(index)
        start = self.given + sum(self.sizes[:index])
        stop, order = start + self.sizes[index], self.order
        known, current, remaining = order[:, :start], order[:, start:stop], order[:, stop:]
        return SetStep(index, len(self.sizes), known, current, remaining)

    def __iter__(self) -> Iterator[SetStep]:
        return (self[index] for index in range(len(self)))
