"""The token cache: keys and values by token, so that some are renewed and others are not."""

import torch

from contar._errors import bad, check_count, check_tensor
from contar._typing import Float, Int, Tensor
from contar.attention.cache import allocate


class TokenCache:
    """Keys and values of a fixed set of tokens, of every layer, in memory allocated once.

    A forward pass calls `place` with the tokens that it computes, then `write` once a layer, which
    returns the keys and values of all: the others' as they were when they were computed last.
    Bidirectional attention thus reuses what changes little (LazyMAR, Yan et al. 2025, arXiv
    2503.12450).

    Args:
        layers: layers that write.
        batch: samples.
        heads: attention heads.
        width: values per head.
        tokens: how many there are.
        device: where the memory lies.
        dtype: of keys and values.

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
            self.full, self._ids = True, None
            return
        check_tensor("ids", ids, (self._memory.shape[2], None), "[b, m]", kind="int")
        if not self.full:
            raise bad("ids", tuple(ids.shape), "None: nothing is cached yet")
        self._ids = ids

    def write(
        self, layer: int, k: Float[Tensor, "b s m k"], v: Float[Tensor, "b s m k"]
    ) -> tuple[Float[Tensor, "b s n k"], Float[Tensor, "b s n k"]]:
        """Store the placed tokens' keys and values of one layer; return those of all tokens.

        Raises:
            ValueError: a layer or shapes that do not fit the cache and what was placed.
        """
        layers, _, batch, heads, tokens, width = self._memory.shape
        if check_count("layer", layer, 0) >= layers:
            raise bad("layer", layer, f"fewer than the {layers} layers")
        count = tokens if self._ids is None else self._ids.shape[1]
        for name, x in (("k", k), ("v", v)):
            check_tensor(name, x, (batch, heads, count, width), "[b, s, m, k]")
        memory = self._memory[layer]
        if self._ids is None:
            memory[0], memory[1] = k, v
        else:
            ids = self._ids[:, None, :, None].expand_as(k)
            memory[0].scatter_(2, ids, k.to(memory.dtype))
            memory[1].scatter_(2, ids, v.to(memory.dtype))
        return memory[0], memory[1]
