"""The temporal tower: block-causal over frames."""

from typing import Any

import torch
from torch import nn

from contar._errors import bad, check_shape
from contar._typing import Float, Tensor
from contar.attention import BlockLayout, KVCache, prepare_mask
from contar.backbones.block import Block


class TemporalTower(nn.Module):
    """Blocks under block-causal attention: a frame sees the prefix, earlier frames and itself.

    Source: NOVA's temporal autoregression (arXiv 2412.14169, section 3.2).

    Args:
        depth: blocks.
        width: of the tokens.
        heads: attention heads.
        mlp_ratio: hidden width of the MLPs over `width`.
    """

    def __init__(self, *, depth: int, width: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio=mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def allocate_cache(self, batch: int, capacity: int, **options: Any) -> KVCache:
        """Return an empty cache of this tower's sizes; `options` are those of `KVCache`."""
        weight = self.norm.weight
        sizes = {"layers": len(self.blocks), "heads": self.heads, "width": self.width // self.heads}
        defaults = {"device": weight.device, "dtype": weight.dtype}
        return KVCache(batch=batch, capacity=capacity, **{**sizes, **defaults, **options})

    def forward(
        self,
        frames: Float[Tensor, "b t n d"],
        *,
        prefix: Float[Tensor, "b p d"] | None = None,
        turn: Float[Tensor, "*b m k 2"] | None = None,
        cache: KVCache | None = None,
        window: int | None = None,
        pinned: int = 0,
        backend: Any = None,
    ) -> Float[Tensor, "b t n d"]:
        """Transform the tokens of frames; the prefix's output is left out.

        Args:
            frames: [b, t, n, d], the tokens of each frame.
            prefix: [b, p, d], tokens that share block 0 with the first frame.
            turn: [p + t·n, k/2, 2], rotary table of prefix and frames.
            cache: of the frames before these, to which these are added.
            window: blocks that a frame sees; with a cache, its own setting counts.
            pinned: first blocks that stay visible.
            backend: of `attend`.

        Raises:
            ValueError: a width that is not the tower's, a prefix behind cached frames, a window
                beside a cache, or frames that do not fit the cache.
        """
        batch, count, tokens, _ = frames.shape
        check_shape("frames", frames.shape, (None, None, None, self.width), "[b, t, n, d]")
        x, length = frames.flatten(1, 2), 0
        if prefix is not None:
            check_shape("prefix", prefix.shape, (batch, None, self.width), "[b, p, d]")
            x, length = torch.cat([prefix, x], dim=1), prefix.shape[1]
        sizes = (length + tokens, *[tokens] * (count - 1))
        if cache is None:
            layout = BlockLayout(sizes, window, pinned)
        else:
            if length and cache.sizes:
                raise bad("prefix", tuple(prefix.shape), "none once frames are cached")  # type: ignore[union-attr]
            if window is not None or pinned:
                raise bad("window", (window, pinned), "none beside a cache, which has its own")
            layout = cache.reserve(*sizes)
        mask = prepare_mask(layout, backend, x.device)
        for layer, block in enumerate(self.blocks):
            memory = None if cache is None else (cache, layer)
            x = block(x, turn=turn, mask=mask, backend=backend, cache=memory)
        return self.norm(x[:, length:]).unflatten(1, (count, tokens))
