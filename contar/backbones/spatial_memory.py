"""What a spatial tower keeps from set to set, where not everything is computed in each."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from contar._errors import bad, check_instance
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
    _before: int | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def batch(self) -> int:
        """Of how many samples it is."""
        return self.decoder.fits["batch"]

    @property
    def full(self) -> bool:
        """Whether everything was computed once."""
        return self.decoder.full

    def undo(self) -> None:
        """Take back what was last reserved and what was written since."""
        self.encoder.undo()
        self.decoder.undo()
        if self._before is not None:
            self.seen, self._before = self._before, None

    def settle(self) -> None:
        """Keep what was last reserved: `undo` does nothing from here on."""
        self.encoder.settle()
        self.decoder.settle()
        self._before = None

    def reserve_all(self, prefix: int, visible: int) -> None:
        """Make room for everything."""
        self._before = self.seen
        if prefix + visible:
            self.encoder.reserve(prefix + visible)
        self.decoder.place(None)
        self.seen = visible

    def reserve_new(
        self, prefix: int, visible_ids: Tensor, query_ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Make room for what has become visible; return it, and with `query_ids` behind it.

        The decoder renews all of the latter.
        """
        self._before = self.seen
        new = visible_ids[:, self.seen :]
        if new.shape[1]:
            self.encoder.reserve(new.shape[1])
        ids = torch.cat([new, query_ids], dim=1)
        self.decoder.place(ids + prefix)
        self.seen = visible_ids.shape[1]
        return new, ids


def fitting(halves: Halves, batch: int) -> list[dict[str, int]]:
    """Return what the caches of encoder and decoder are to fit."""
    return [
        {"layers": max(1, depth), "batch": batch, "heads": heads, "width": width // heads}
        for depth, width, heads in halves
    ]


def check_memory(
    memory: object,
    halves: Halves,
    tokens: int,
    visible_ids: Tensor,
    query_ids: Tensor | None,
    *,
    like: Tensor,
) -> None:
    """Raise a ValueError unless a tower of such halves and weights may go on with a memory.

    It is as it was. `tokens` counts what comes before them, too.
    """
    check_instance("memory", memory, SpatialMemory)
    assert isinstance(memory, SpatialMemory)
    of_encoder, of_decoder = fitting(halves, len(visible_ids))
    ours = (memory.encoder.fits, memory.decoder.fits)
    asked = (of_encoder, {**of_decoder, "tokens": tokens})
    if ours != asked:
        raise bad("memory", f"one for {ours}", f"one for {asked}")
    if torch.is_grad_enabled() and like.requires_grad:
        raise bad("memory", "a SpatialMemory", "None, or torch.no_grad(), as it is written to")
    if not memory.full:
        return
    if visible_ids.shape[1] < memory.seen:
        got = f"{visible_ids.shape[1]} tokens"
        raise bad("visible_ids", got, f"the memory's {memory.seen} and more")
    if query_ids is None:
        raise bad("query_ids", None, "hidden positions, with a memory that is filled")
    on_cpu = query_ids.device.type == "cpu"  # a look would make a GPU wait
    if on_cpu and bool((query_ids[:, :, None] == visible_ids[:, None, :]).any()):
        raise bad(
            "query_ids", "some that are visible", "hidden positions, with a memory that is filled"
        )
