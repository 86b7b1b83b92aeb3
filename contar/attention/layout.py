"""The block layout: which tokens of a sequence belong together, as one immutable value."""

from dataclasses import dataclass
from itertools import accumulate

from contar._errors import bad, check_size, check_sizes, keep_plain


@dataclass(frozen=True)
class BlockLayout:
    """A sequence cut into blocks, under block-causal attention.

    A token sees every token of its own block and of the blocks before it: all of them, or with a
    `window` the last `window` blocks (its own counts) and the first `pinned` ones. In NOVA block 0
    is text, motion and the first frame; each later frame is a block (arXiv 2412.14169, eq. 2).

    Args:
        sizes: tokens of each block, in order; all positive.
        window: blocks that a token sees, its own included; None sees all.
        pinned: first blocks that stay visible whatever the window.
        cached: first blocks whose tokens are keys only, not queries (they were attended before).

    Raises:
        ValueError: an argument outside its range.
    """

    sizes: tuple[int, ...]
    window: int | None = None
    pinned: int = 0
    cached: int = 0

    def __post_init__(self) -> None:
        keep_plain(self)
        check_sizes("sizes", self.sizes, "block")
        if self.window is not None:
            check_size("window", self.window)
        check_size("pinned", self.pinned, 0)
        if check_size("cached", self.cached, 0) >= len(self.sizes):
            raise bad("cached", self.cached, f"fewer than the {len(self.sizes)} blocks")

    @property
    def starts(self) -> tuple[int, ...]:
        """The first key of each block, and at the end the number of keys."""
        return (0, *accumulate(self.sizes))

    @property
    def keys(self) -> int:
        """The number of keys."""
        return sum(self.sizes)

    @property
    def queries(self) -> int:
        """The number of queries."""
        return sum(self.sizes[self.cached :])

    def spans(self, block: int) -> tuple[tuple[int, int], ...]:
        """Return the keys that `block` sees as disjoint ranges (start, stop), in order.

        Raises:
            ValueError: a block that the layout does not have.
        """
        if check_size("block", block, 0) >= len(self.sizes):
            raise bad("block", block, f"fewer than the {len(self.sizes)} blocks")
        first = 0 if self.window is None else max(0, block + 1 - self.window)
        starts = self.starts
        if self.pinned >= first:
            return ((0, starts[block + 1]),)
        window = (starts[first], starts[block + 1])
        return ((0, starts[self.pinned]), window) if self.pinned else (window,)
