"""Each backend of `attend`, and which one runs; of what was checked at a door."""

import math
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from contar._errors import bad
from contar._random import Dropout
from contar.attention.layout import BlockLayout
from contar.attention.masks import dense_mask, flex_mask, xformers_bias

Backend = Literal["plain", "sdpa", "flex", "xformers"]
"""The name of a backend of `attend`."""
Mask = Tensor | BlockLayout | BlockMask | None
"""What `attend` takes as a mask: dense, True where a query may look; a layout;
what `flex_mask` makes; none.
"""
BACKENDS: tuple[Backend, ...] = ("plain", "sdpa", "flex", "xformers")
"""The backends by name, the oracle first."""
_COARSE = 128  # tokens that blocks have on average, from which each is a call of its own
_FEW, _MANY = 64, 2**20  # queries, and scores of a sample, between which `_by_products` is faster
_KEYS = 512  # up to which the formula is faster than the CPU's fused kernel, with gradients


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Any, backend: Backend | None, dropout: Dropout | None
) -> Tensor:
    """Return what `attend` does, of tensors and a mask that a tower has checked."""
    if dropout is not None:
        backend = "plain"
    fused = _sdpa if backend == "sdpa" else _fastest
    if backend is None:
        backend = "flex" if isinstance(mask, BlockMask) else "sdpa"
    if isinstance(mask, BlockMask) and backend != "flex":
        raise bad("mask", "a BlockMask", f"for backend {backend!r}: a BlockLayout or a tensor")
    if backend == "flex":
        return _flex(q, k, v, mask)
    if backend == "xformers":
        return _xformers(q, k, v, mask)
    if backend == "sdpa" and isinstance(mask, BlockLayout) and is_coarse(mask):
        return _by_blocks(q, k, v, mask, fused)
    dense: Any = dense_mask(mask, q.device) if isinstance(mask, BlockLayout) else mask
    if dense is not None and dense.ndim < 2:  # SDPA reads the queries' axis, too
        dense = dense.expand(1, k.shape[2])
    if backend == "plain":
        return _plain(q, k, v, dense, dropout)
    return fused(q, k, v, dense)


def _plain(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: Dropout | None = None
) -> Tensor:
    """Attention as its formula reads; the oracle of every other backend."""
    if q.dtype == torch.float16:  # which ends at 65,504, as a product before its scale does not
        return _plain(q.float(), k.float(), v.float(), mask, dropout).half()
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is None:
        weights = scores.softmax(dim=-1)
    else:
        blind = ~mask.any(dim=-1, keepdim=True)  # a softmax over nothing is NaN, its gradients, too
        scores = scores.masked_fill(~(mask | blind), -math.inf)
        weights = scores.softmax(dim=-1).masked_fill(blind, 0)
    return (weights if dropout is None else dropout(weights)) @ v


def _sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    if mask is not None and q.device.type != "cpu":
        return _blindfold(q, k, v, mask)
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _blindfold(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """SDPA whose kernel never meets a query that sees nothing.

    To such a one the CPU's gives 0, as it should, but cuDNN's the mean of all values.
    """
    mask = mask.expand(*mask.shape[:-1], k.shape[2])
    blind = ~mask.any(dim=-1, keepdim=True)
    out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask | blind)
    return out.masked_fill(blind, 0)


def _fastest(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """SDPA, or the formula where that is faster: in bfloat16 on a CPU, and not too long.

    The CPU's fused kernel multiplies bfloat16 no faster than float32; products by themselves are
    twice as fast, and with gradients up to nine times. They round the scores to bfloat16.
    """
    if q.dtype != torch.bfloat16 or q.device.type != "cpu" or torch.compiler.is_compiling():
        return _sdpa(q, k, v, mask)
    _, heads, queries, _ = q.shape
    keys, learns = k.shape[2], _tracked(q, k, v)
    if learns and keys <= _KEYS:  # for more, what the gradients keep is too much
        return _plain(q, k, v, mask)
    suits = queries >= _FEW and heads * queries * keys <= _MANY
    if suits and mask is None and not learns:
        return _by_products(q, k, v)
    return _sdpa(q, k, v, mask)


def _tracked(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def _by_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The formula, a sample at a time, so that its scores stay in the cache."""
    samples = zip(q.split(1), k.split(1), v.split(1), strict=True)
    return torch.cat([_plain(*sample, None) for sample in samples])


def prepared(layout: BlockLayout | None, backend: Backend | None, device: Any) -> Mask:
    """Return what `prepare_mask` does, unchecked."""
    if layout is None or layout.spans(layout.cached) == ((0, layout.keys),):
        return None
    if backend == "flex":
        return flex_mask(layout, device)
    # The bias of xformers needs the batch, which `attend` knows.
    if backend == "xformers" or (backend in (None, "sdpa") and is_coarse(layout)):
        return layout
    return dense_mask(layout, device)


def is_coarse(layout: BlockLayout) -> bool:
    """Whether a call for each block costs less than what a dense mask computes in vain."""
    return layout.queries >= _COARSE * (len(layout.sizes) - layout.cached)


def _by_blocks(q: Tensor, k: Tensor, v: Tensor, layout: BlockLayout, fused: Any) -> Tensor:
    """Attend block by block, each to the keys that it sees and to no others."""
    blocks = range(layout.cached, len(layout.sizes))
    spans = [layout.spans(block) for block in blocks]
    pieces = [span for seen in spans for span in seen]
    cut: Any = _plain_pieces if torch.compiler.is_compiling() else _Pieces.apply
    keys, values = (iter(cut(x, pieces)) for x in (k, v))
    parts = []
    for queries, seen in zip(q.split(layout.sizes[layout.cached :], dim=2), spans, strict=True):
        near = ([next(x) for _ in seen] for x in (keys, values))
        parts.append(fused(queries, *(x[0] if len(x) == 1 else torch.cat(x, dim=2) for x in near)))
    return torch.cat(parts, dim=2)


def _plain_pieces(x: Tensor, spans: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
    return tuple(x[:, :, start:stop] for start, stop in spans)


class _Pieces(torch.autograd.Function):
    """Spans of tokens, whose gradients add up in one tensor.

    Autograd's own gradient of a slice is a whole tensor of zeros around it, one for each block, so
    that their sum costs a good part of the attention.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, spans: Sequence[tuple[int, int]]) -> tuple[Tensor, ...]:
        return _plain_pieces(x, spans)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, ctx.spans = inputs
        ctx.tokens = x.shape[2]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        pairs = sorted(zip(ctx.spans, grads, strict=True), key=lambda pair: pair[1].shape[2])
        (start, stop), widest = pairs.pop()
        total = functional.pad(widest, (0, 0, start, ctx.tokens - stop))
        for (start, stop), grad in pairs:
            total[:, :, start:stop] += grad
        return total, None


@cache
def _compiled_flex() -> Any:
    return torch.compile(flex_attention)


def _flex(q: Tensor, k: Tensor, v: Tensor, mask: Any) -> Tensor:
    if isinstance(mask, Tensor):
        raise bad("mask", "a tensor", "for backend 'flex': None, a BlockLayout or a BlockMask")
    if isinstance(mask, BlockLayout):
        mask = flex_mask(mask, q.device)
    if q.device.type == "cuda" and not torch.compiler.is_compiling():
        return _compiled_flex()(q, k, v, block_mask=mask)
    if _tracked(q, k, v):
        raise bad("backend", "flex", f"another one: flex has no gradients on {q.device.type}")
    q, k, v = (x.detach() for x in (q, k, v))  # it minds the flag even where gradients are off
    with warnings.catch_warnings():  # it warns that it is not fused, which is so on the CPU
        warnings.simplefilter("ignore")
        out = flex_attention(q, k, v, block_mask=mask)
    assert isinstance(out, Tensor)
    return out


def _xformers(q: Tensor, k: Tensor, v: Tensor, mask: Any) -> Tensor:
    from xformers.ops import memory_efficient_attention

    batch = q.shape[0]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if mask is None:
        return memory_efficient_attention(q, k, v).transpose(1, 2)
    if not isinstance(mask, BlockLayout):
        raise bad("mask", type(mask).__name__, "for backend 'xformers': None or a BlockLayout")
    if _tracked(q, k, v):
        raise bad("backend", "xformers", "another one: it has no gradients for a BlockLayout")
    bias = xformers_bias(mask, batch, q.device)
    q, k, v = (x.reshape(1, -1, *x.shape[2:]) for x in (q, k, v))
    out = memory_efficient_attention(q, k, v, attn_bias=bias)
    return out.view(batch, -1, *out.shape[2:]).transpose(1, 2)
