"""What a spatial tower keeps from set to set, where not everything is computed in each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from contar._errors import bad
from contar._typing import Tensor
from contar.attention import KVCache, TokenCache

Halves = Sequence[tuple[int, int, int]]


@dataclass
class SpatialMemory:
    """Keys and values of both halves of a spatial tower, from the sets before.

    The caller owns it, makes a new one when everything is to be computed afresh, and passes it to
    every call between. What was computed stays: an old token does not look at newer ones, which is
    the approximation. Source: the token cache of LazyMAR (Yan et al. 2025, arXiv 2503.12450), here
    with the tokens that are new or wanted as those that are computed.

    Attributes:
        encoder: of the visible tokens, in the order in which they became visible.
        decoder: of all tokens, by place.
        seen: how many tokens were visible.
    """

    encoder: KVCache
    decoder: TokenCache
    seen: int = 0

    @classmethod
    def allocate(cls, halves: Halves, batch: int, tokens: int, *, like: Tensor) -> "SpatialMemory":
        """Return an empty memory.

        Args:
            halves: (depth, width, heads) of encoder and decoder.
            batch: samples.
            tokens: what comes before them included.
            like: a weight, of whose dtype and device it is.
        """
        of_encoder, of_decoder = _fitting(halves, batch)
        where: Any = {"device": like.device, "dtype": like.dtype}
        return cls(
            KVCache(**of_encoder, capacity=tokens, **where),
            TokenCache(**of_decoder, tokens=tokens, **where),
        )

    @property
    def full(self) -> bool:
        """Whether everything was computed once."""
        return self.decoder.full

    def check(self, halves: Halves, batch: int, tokens: int) -> None:
        """Raise a ValueError unless it is what `allocate` returns for these."""
        of_encoder, of_decoder = _fitting(halves, batch)
        ours = (self.encoder.fits, self.decoder.fits)
        asked = (of_encoder, {**of_decoder, "tokens": tokens})
        if ours != asked:
            raise bad("memory", f"one for {ours}", f"one for {asked}")

    def start(self, prefix: int, visible: int) -> None:
        """Make room for everything."""
        if prefix + visible:
            self.encoder.reserve(prefix + visible)
        self.decoder.place(None)
        self.seen = visible

    def renew(self, visible: int) -> int:
        """Make room for what has become visible; return how much was before.

        Raises:
            ValueError: less is visible than was.
        """
        before = self.seen
        if visible < before:
            raise bad("visible_ids", f"{visible} tokens", f"the memory's {before} and more")
        if visible > before:
            self.encoder.reserve(visible - before)
        self.seen = visible
        return before


def _fitting(halves: Halves, batch: int) -> list[dict[str, int]]:
    return [
        {"layers": max(1, depth), "batch": batch, "heads": heads, "width": width // heads}
        for depth, width, heads in halves
    ]
