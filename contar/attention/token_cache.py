"""The token cache: keys and values by token, so that some are renewed and others are not."""

import torch

from contar._errors import bad, check_ids, check_size, check_tensor
from contar._typing import Float, Int, Tensor
from contar.attention._angles import rotated
from contar.attention.cache import allocate


class TokenCache:
    """Keys and values of a fixed set of tokens, of every layer, in memory allocated once.

    A forward pass calls `place` with the tokens that it computes, then `write` once a layer, which
    returns the keys and values of all: the others' as they were when they were computed last.
    `undo` takes back a pass that failed on its way, as the towers do by themselves.
    Bidirectional attention thus reuses what changes little (LazyMAR, Yan et al. 2025, arXiv
    2503.12450).

    Args:
        width: values per head.
        device: where the memory lies; None is the CPU.
        dtype: of keys and values; None is float32.

    Raises:
        ValueError: a number below 1, an unknown device, or a dtype that holds no fractions.
    """

    def __init__(
        self,
        *,
        layers: int,
        batch: int,
        heads: int,
        width: int,
        tokens: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        sizes = {"layers": layers, "batch": batch, "heads": heads, "tokens": tokens}
        sizes["width"] = width
        self.full = False
        self._ids: Tensor | None = None
        # What the last `place` found: whether all was written, which tokens were placed, and the
        # keys and values of those that it placed itself.
        self._before: tuple[bool, Tensor | None, Tensor | None] | None = None
        self._memory = allocate(sizes, device=device, dtype=dtype)

    @property
    def fits(self) -> dict[str, int]:
        """What a tower must have to write here: layers, batch, heads, width of a head, tokens."""
        layers, _, batch, heads, tokens, width = self._memory.shape
        sizes = {"layers": layers, "batch": batch, "heads": heads, "width": width}
        return {**sizes, "tokens": tokens}

    def place(self, ids: Int[Tensor, "b m"] | None) -> None:
        """Say which tokens are written next, by number; None is all, and the first must be.

        Raises:
            ValueError: some tokens only before all were written, or ids of another shape.
        """
        if ids is None:
            old = self._memory.clone() if self.full else None
            self._before = (self.full, self._ids, old)
            self.full, self._ids = True, None
            return
        check_tensor("ids", ids, (self._memory.shape[2], None), "[b, m]", kind="int")
        check_ids("ids", ids, self._memory.shape[4])
        if not self.full:
            raise bad("ids", tuple(ids.shape), "None: nothing is cached yet")
        old = self._memory.gather(4, self._everywhere(ids))
        self._before = (True, self._ids, old)
        self._ids = ids

    def undo(self) -> None:
        """Take back the last `place` and what was written since; without one nothing happens."""
        if self._before is None:
            return
        full, ids, old = self._before
        if old is not None and self._ids is None:
            self._memory.copy_(old)
        elif old is not None and self._ids is not None:
            self._memory.scatter_(4, self._everywhere(self._ids), old)
        self.full, self._ids, self._before = full, ids, None

    def settle(self) -> None:
        """Keep what the last `place` began: `undo` does nothing from here on."""
        self._before = None

    def _everywhere(self, ids: Tensor) -> Tensor:
        """Return ids as they pick tokens in all layers, keys and values, heads and their values."""
        layers, two, _, heads, _, width = self._memory.shape
        return ids[None, None, :, None, :, None].expand(layers, two, -1, heads, -1, width)

    def write(
        self,
        layer: int,
        k: Float[Tensor, "b s m k"],
        v: Float[Tensor, "b s m k"],
        *,
        rope: Float[Tensor, "*b m k2 2"] | None = None,
    ) -> tuple[Float[Tensor, "b s n k"], Float[Tensor, "b s n k"]]:
        """Store the placed tokens' keys and values of one layer; return those of all tokens.

        `rope`, a rotary table of the placed tokens, turns their keys before they are stored.

        Raises:
            ValueError: a layer or shapes that do not fit the cache and what was placed.
        """
        layers, _, batch, heads, tokens, width = self._memory.shape
        if check_size("layer", layer, 0) >= layers:
            raise bad("layer", layer, f"fewer than the {layers} layers")
        count = tokens if self._ids is None else self._ids.shape[1]
        for name, x in (("k", k), ("v", v)):
            check_tensor(name, x, (batch, heads, count, width), "[b, s, m, k]")
        memory, k = self._memory[layer], k if rope is None else rotated(k, rope)
        if self._ids is None:
            memory[0], memory[1] = k, v
        else:
            ids = self._ids[:, None, :, None].expand_as(k)
            memory[0].scatter_(2, ids, k.to(memory.dtype))
            memory[1].scatter_(2, ids, v.to(memory.dtype))
        return memory[0], memory[1]
