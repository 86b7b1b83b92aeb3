"""A transformer block that normalises what each branch adds, or what it reads."""

from functools import partial
from typing import Any, Literal

from torch import nn
from torch.utils.checkpoint import checkpoint as recompute

from contar._errors import (
    LARGEST,
    bad,
    check_choice,
    check_instance,
    check_number,
    check_size,
    check_tensor,
)
from contar._layers import Mlp
from contar._random import Dropout
from contar._typing import Float, Int, Tensor
from contar.attention import Backend, KVCache, Mask, TokenCache, attend, check_table
from contar.attention._angles import rotated
from contar.attention._kernels import attention

Activation = Literal["gelu", "gelu_tanh"]
_ACTIVATIONS = {"gelu": nn.GELU, "gelu_tanh": partial(nn.GELU, approximate="tanh")}


class SelfAttention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values.

    Raises:
        ValueError: a width that `heads` does not divide.
    """

    def __init__(self, width: int, heads: int, *, bias: bool = True) -> None:
        super().__init__()
        if check_size("width", width) % check_size("heads", heads):
            raise bad("heads", heads, f"a divisor of the width {width}")
        check_instance("bias", bias, bool)
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias)
        self.proj = nn.Linear(width, width, bias)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        *,
        rope: Float[Tensor, "*b2 kv k 2"] | None = None,
        mask: Mask = None,
        backend: Backend | None = None,
        cache: tuple[KVCache | TokenCache, int] | None = None,
        query_ids: Int[Tensor, "b m"] | None = None,
        dropout: Dropout | None = None,
        checked: bool = False,
    ) -> Float[Tensor, "b m d"]:
        """Attend.

        Args:
            x: [b, n, width].
            rope: rotary table of the keys, which are the tokens, or all that a `KVCache` keeps.
            cache: the cache of keys and values, and this layer's number in it.
            query_ids: [b, m], the tokens that attend; None is all. All are attended to.
            dropout: of the attention's weights and of what is returned, in training.
            checked: whether a tower has checked all this.

        Raises:
            ValueError: as `attend` and the cache's `write`; another width, or a table or rows that
                do not fit.
        """
        if not checked:
            self._check(x, rope, cache, query_ids)
        q_rope = rope
        if rope is not None and cache is not None:  # whose newest keys are these tokens'
            q_rope = rope[..., -x.shape[1] :, :, :]
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if query_ids is not None:
            q = q.gather(2, query_ids[:, None, :, None].expand(-1, self.heads, -1, q.shape[3]))
            if q_rope is not None:
                each = query_ids[..., None, None]
                shared = q_rope.ndim == 3
                q_rope = q_rope[query_ids] if shared else q_rope.take_along_dim(each, dim=1)
        if q_rope is not None:
            q = rotated(q, q_rope)
        if cache is not None:
            memory, layer = cache
            k, v = memory.write(layer, k, v, rope=rope)
        elif rope is not None:
            k = rotated(k, rope)
        attends = attention if checked else attend
        out = attends(q, k, v, mask=mask, backend=backend, dropout=dropout)
        out = self.proj(out.transpose(1, 2).flatten(2))
        return out if dropout is None else dropout(out)

    def _check(self, x: Tensor, rope: Tensor | None, cache: Any, query_ids: Tensor | None) -> None:
        width, weight = self.qkv.in_features, self.qkv.weight
        check_tensor("x", x, (None, None, width), "[b, n, width]", like=weight)
        keys = x.shape[1]
        if cache is not None:
            pair = isinstance(cache, tuple) and len(cache) == 2
            if not pair or not isinstance(cache[0], KVCache | TokenCache):
                got = type(cache[0] if pair else cache).__name__
                raise bad("cache", got, "(KVCache or TokenCache, number of the layer)")
            if isinstance(cache[0], KVCache):
                keys = max(keys, sum(cache[0].sizes))
        if rope is not None:
            check_table("rope", rope, len(x), keys, width // self.heads)
        if query_ids is not None:
            shape: Any = ((len(x), None), "[b, m]")
            check_tensor("query_ids", query_ids, *shape, kind="int", below=x.shape[1])


class Block(nn.Module):
    """x + norm(attention(x)), then x + norm(mlp(x)): residual post-norm.

    Source: Swin v2 (Liu et al. 2021, arXiv 2111.09883, section 3.2), as NOVA uses it. With
    `prenorm` x + attention(norm(x)), then x + mlp(norm(x)), as in the vision transformer
    (Dosovitskiy et al. 2020, arXiv 2010.11929, eq. 2 and 3) and MAR.

    Args:
        mlp_ratio: hidden width of the MLP over `width`.
        prenorm: normalise what a branch reads instead of what it adds.
        bias: whether the linear layers have one; the norms do.
        activation: of the MLP: "gelu", or "gelu_tanh", which approximates it (Hendrycks & Gimpel
            2016, arXiv 1606.08415, section 2).

    Raises:
        ValueError: a width that `heads` does not divide, an MLP without a hidden value, an `eps`
            below 0, or an unknown activation.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        mlp_ratio: float = 4.0,
        prenorm: bool = False,
        eps: float = 1e-5,
        bias: bool = True,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        check_instance("prenorm", prenorm, bool)
        check_choice("activation", activation, tuple(_ACTIVATIONS))
        eps = check_number("eps", eps, 0)
        self.prenorm = prenorm
        self.attn = SelfAttention(width, heads, bias=bias)
        self.norm1 = nn.LayerNorm(width, eps=eps)
        hidden = int(width * check_number("mlp_ratio", mlp_ratio, 1 / width, LARGEST / width))
        self.mlp = Mlp(width, hidden, act_layer=_ACTIVATIONS[activation], bias=bias)
        self.norm2 = nn.LayerNorm(width, eps=eps)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        *,
        query_ids: Int[Tensor, "b m"] | None = None,
        dropout: Dropout | None = None,
        **options: Any,
    ) -> Float[Tensor, "b m d"]:
        """Transform tokens, or the tokens `query_ids` of them only.

        Keyword arguments are those of `SelfAttention`; `dropout` is the MLP's, too.

        Raises:
            ValueError: as `SelfAttention`.
        """
        if not options.get("checked"):  # before the norm and the rows
            self.attn._check(x, None, None, query_ids)
        options |= {"query_ids": query_ids, "dropout": dropout}
        kept = x if query_ids is None else take(x, query_ids)
        if self.prenorm:
            x = kept + self.attn(self.norm1(x), **options)
            return x + self.mlp(self.norm2(x), dropout)
        x = kept + self.norm1(self.attn(x, **options))
        return x + self.norm2(self.mlp(x, dropout))


def take(x: Float[Tensor, "b n d"], ids: Int[Tensor, "b m"]) -> Float[Tensor, "b m d"]:
    """Return the tokens `ids` of each sample, unchecked."""
    return x.gather(1, ids[..., None].expand(-1, -1, x.shape[-1]))


def run_blocks(
    blocks: nn.ModuleList,
    x: Float[Tensor, "b n d"],
    *,
    query_ids: Int[Tensor, "b m"] | None = None,
    cache: KVCache | TokenCache | None = None,
    checkpoint: bool = False,
    **attention: Any,
) -> Float[Tensor, "b m d"]:
    """Return what blocks make of tokens [b, n, width], one after the other, unchecked.

    Args:
        blocks: in order.
        x: tokens.
        query_ids: [b, m], the tokens that are wanted; the last block leaves the others out.
        cache: of keys and values, one layer a block.
        checkpoint: keep each block's input only; the backward pass computes the block once more.
        attention: arguments of `SelfAttention`.
    """
    run = partial(recompute, use_reentrant=False, preserve_rng_state=False)
    for layer, block in enumerate(blocks):
        options = {**attention, "cache": None if cache is None else (cache, layer)}
        options["checked"] = True
        options["query_ids"] = query_ids if layer == len(blocks) - 1 else None
        x = run(block, x, **options) if checkpoint else block(x, **options)  # type: ignore[assignment]
    return x
