"""The temporal tower: block-causal over frames."""

from typing import Any

import torch
from torch import nn

from contar._errors import DEEPEST, bad, check_instance, check_size, check_tensor
from contar._typing import Bool, Float, Tensor
from contar.attention import (
    Backend,
    BlockLayout,
    KVCache,
    as_it_was,
    check_backend,
    check_table,
    dense_mask,
)
from contar.attention._kernels import prepared
from contar.backbones.block import Activation, Block, run_blocks


class TemporalTower(nn.Module):
    """Blocks under block-causal attention: a frame sees the prefix, earlier frames and itself.

    Source: NOVA's temporal autoregression (arXiv 2412.14169, section 3.2). With frames of one token
    and no prefix it is a causal transformer, as text-to-speech models have.

    Args:
        mlp_ratio: hidden width of the MLPs over `width`.
        prenorm: as in `Block`.

    Raises:
        ValueError: a number below 1, a width that `heads` does not divide, or what `Block` refuses.
    """

    def __init__(
        self,
        *,
        depth: int,
        width: int,
        heads: int,
        mlp_ratio: float = 4.0,
        prenorm: bool = False,
        eps: float = 1e-5,
        bias: bool = True,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        check_size("depth", depth, 1, DEEPEST)
        self.width, self.heads = width, heads
        options: Any = {"mlp_ratio": mlp_ratio, "prenorm": prenorm, "eps": eps, "bias": bias}
        options["activation"] = activation
        self.blocks = nn.ModuleList(Block(width, heads, **options) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=eps)

    def allocate_cache(self, batch: int, capacity: int, **options: Any) -> KVCache:
        """Return an empty cache of this tower's sizes; `options` are those of `KVCache`.

        Raises:
            ValueError: as `KVCache`.
        """
        weight = self.norm.weight
        sizes = {"layers": len(self.blocks), "heads": self.heads, "width": self.width // self.heads}
        defaults = {"device": weight.device, "dtype": weight.dtype}
        return KVCache(batch=batch, capacity=capacity, **{**sizes, **defaults, **options})

    def forward(
        self,
        frames: Float[Tensor, "b t n d"],
        *,
        prefix: Float[Tensor, "b p d"] | None = None,
        rope: Float[Tensor, "*b m k 2"] | None = None,
        padding_mask: Bool[Tensor, "b m"] | None = None,
        cache: KVCache | None = None,
        window: int | None = None,
        pinned: int = 0,
        backend: Backend | None = None,
        checkpoint: bool = False,
    ) -> Float[Tensor, "b t n d"]:
        """Transform the tokens of frames; the prefix's output is left out.

        Args:
            frames: [b, t, n, d], the tokens of each frame.
            prefix: [b, p, d], tokens that share block 0 with the first frame.
            rope: [p + t·n, k/2, 2], rotary table of prefix and frames; with a cache of all that
                these see, which it keeps, too: [cache.layout(...).keys, k/2, 2].
            padding_mask: [b, p + t·n], True where a token only fills up and nothing looks at it;
                with a cache of all tokens that these see, as `rope`.
            cache: of the frames before these, to which these are added.
            window: blocks that a frame sees; with a cache, its own setting counts.
            pinned: first blocks that stay visible.
            checkpoint: keep each block's input only, and compute the block again for its gradients.

        Raises:
            ValueError: shapes that do not fit the tower or each other, a prefix behind cached
                frames, a window or `checkpoint` beside a cache, another tower's cache, frames
                that do not fit it, or a backend that reads no padding; the cache is as it was.
        """
        weight = self.norm.weight
        shape = (None, None, None, self.width)
        check_tensor("frames", frames, shape, "[b, t, n, d]", like=weight)
        batch, count, tokens, _ = frames.shape
        if not count * tokens:
            raise bad("frames", tuple(frames.shape), "at least one frame of one token")
        if backend is not None:
            check_backend(backend, frames.device)
        if checkpoint is not False:
            check_instance("checkpoint", checkpoint, bool)
        x, length = frames.flatten(1, 2), 0
        if prefix is not None:
            shape = (batch, None, self.width)
            check_tensor("prefix", prefix, shape, "[b, p, d]", like=weight)
            x, length = torch.cat([prefix, x], dim=1), prefix.shape[1]
        sizes = (length + tokens, *[tokens] * (count - 1))
        options: Any = {"rope": rope, "padding_mask": padding_mask, "backend": backend}
        if padding_mask is not None and backend in ("flex", "xformers"):
            raise bad("backend", backend, "another one, which reads a mask of padding")
        if cache is None:
            layout = BlockLayout(sizes, window, pinned)
            self._check_keys(layout, batch, rope, padding_mask)
            x = self._run(x, length, layout, checkpoint=checkpoint, **options)
        else:
            check_instance("cache", cache, KVCache)
            ours = {"layers": len(self.blocks), "batch": batch, "heads": self.heads}
            ours["width"] = self.width // self.heads
            if cache.fits != ours:
                raise bad("cache", f"one for {cache.fits}", f"one for {ours}")
            if length and cache.sizes:
                raise bad("prefix", tuple(prefix.shape), "none once frames are cached")  # type: ignore[union-attr]
            if checkpoint:
                raise bad("checkpoint", True, "False beside a cache, which a block writes once")
            if window is not None or pinned:
                raise bad("window", (window, pinned), "none beside a cache, which has its own")
            if backend in ("flex", "xformers"):  # what they refuse, before the cache changes
                if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
                    raise bad("backend", backend, "another one, or torch.no_grad(), with a cache")
                if backend == "xformers" and cache.window is not None and cache.pinned:
                    raise bad("backend", backend, "another one for a window with pinned blocks")
            if rope is not None or padding_mask is not None:
                self._check_keys(cache.layout(*sizes), batch, rope, padding_mask)
            with as_it_was(cache):
                x = self._run(x, length, cache.reserve(*sizes), cache=cache, **options)
        return x.unflatten(1, (count, tokens))

    def _check_keys(
        self, layout: BlockLayout, batch: int, rope: Tensor | None, padding_mask: Tensor | None
    ) -> None:
        if rope is not None:
            check_table("rope", rope, batch, layout.keys, self.width // self.heads)
        if padding_mask is not None:
            shape = (batch, layout.keys)
            check_tensor("padding_mask", padding_mask, shape, "[b, keys]", kind="bool")

    def _run(
        self,
        x: Tensor,
        length: int,
        layout: BlockLayout,
        *,
        padding_mask: Tensor | None,
        backend: Backend | None,
        **options: Any,
    ) -> Tensor:
        if padding_mask is None:
            mask = prepared(layout, backend, x.device)
        else:
            mask = dense_mask(layout, x.device) & ~padding_mask[:, None, None]
        x = run_blocks(self.blocks, x, mask=mask, backend=backend, **options)
        return self.norm(x[:, length:])
