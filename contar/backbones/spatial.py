"""The spatial tower: a masked autoencoder over the tokens of one frame."""

from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from contar._errors import DEEPEST, bad, check_choice, check_instance, check_size, check_tensor
from contar._layers import weight_of
from contar._random import Dropout
from contar._typing import Bool, Float, Int, Tensor
from contar.attention import KVCache, Positions, TokenCache, as_it_was, check_backend
from contar.backbones.block import Block, run_blocks, take
from contar.backbones.spatial_memory import SpatialMemory, check_memory, fitting


class SpatialTower(nn.Module):
    """An encoder half on the visible tokens, a decoder half on all, both behind a prefix.

    Hidden tokens enter the decoder half as one learned vector. Attention is bidirectional. Widths
    that differ are joined by a linear layer each. Source: MAR (arXiv 2406.11838, section 3.4) and
    NOVA's set-by-set spatial autoregression (arXiv 2412.14169, section 3.3).

    Args:
        encoder: (depth, width, heads) of the encoder half; a depth of 0 leaves it out.
        decoder: (depth, width, heads) of the decoder half.
        mlp_ratio: hidden width of the MLPs over the half's width.
        prenorm: blocks that normalise what a branch reads, a norm at either end of the encoder
            half, and a linear layer between the halves, as MAR has them; else NOVA's.
        decoder_positions: what the decoder half's positions are added to: "hidden" tokens (NOVA),
            or "all", the prefix included (MAR).

    Raises:
        ValueError: a size below 1 (the encoder's depth: below 0), a width that the heads do not
            divide, or an unknown choice.
    """

    def __init__(
        self,
        token_dim: int,
        prefix_width: int,
        *,
        encoder: tuple[int, int, int],
        decoder: tuple[int, int, int],
        mlp_ratio: float = 4.0,
        prenorm: bool = False,
        eps: float = 1e-5,
        decoder_positions: Literal["hidden", "all"] = "hidden",
    ) -> None:
        super().__init__()
        check_size("token_dim", token_dim)
        check_size("prefix_width", prefix_width)
        _check_half("encoder", encoder, 0)
        _check_half("decoder", decoder, 1)
        (depth_e, width_e, heads_e), (depth_d, width_d, heads_d) = encoder, decoder
        check_instance("prenorm", prenorm, bool)
        check_choice("decoder_positions", decoder_positions, ("hidden", "all"))
        self.token_dim, self.prefix_width = token_dim, prefix_width
        self.halves, self.decoder_positions = (encoder, decoder), decoder_positions
        options: Any = {"mlp_ratio": mlp_ratio, "prenorm": prenorm, "eps": eps}
        self.embed = nn.Linear(token_dim, width_e)
        self.prefix = _join(prefix_width, width_e)
        self.embed_norm = nn.LayerNorm(width_e, eps=eps) if prenorm else nn.Identity()
        self.encoder = nn.ModuleList(Block(width_e, heads_e, **options) for _ in range(depth_e))
        self.encoder_norm = nn.LayerNorm(width_e, eps=eps) if prenorm else nn.Identity()
        self.join = nn.Linear(width_e, width_d) if prenorm else _join(width_e, width_d)
        self.mask_token = nn.Parameter(torch.randn(1, width_d) * 0.02)
        self.decoder = nn.ModuleList(Block(width_d, heads_d, **options) for _ in range(depth_d))
        self.norm = nn.LayerNorm(width_d, eps=eps)

    def allocate_memory(self, batch: int, tokens: int, prefix: int) -> SpatialMemory:
        """Return an empty memory for frames of so many tokens behind such a prefix.

        Raises:
            ValueError: a number below 1 (`prefix`: below 0).
        """
        check_size("tokens", tokens)
        count = tokens + check_size("prefix", prefix, 0)
        where: Any = {"device": self.norm.weight.device, "dtype": self.norm.weight.dtype}
        of_encoder, of_decoder = fitting(self.halves, batch)
        encoder = KVCache(**of_encoder, capacity=count, **where)
        return SpatialMemory(encoder, TokenCache(**of_decoder, tokens=count, **where))

    def forward(
        self,
        tokens: Float[Tensor, "b n c"],
        prefix: Float[Tensor, "b p d2"],
        visible_ids: Int[Tensor, "b v"],
        *,
        positions: tuple[Positions, Positions] = (Positions(), Positions()),
        padding_mask: Bool[Tensor, "b v"] | None = None,
        query_ids: Int[Tensor, "b m"] | None = None,
        memory: SpatialMemory | None = None,
        backend: Any = None,
        checkpoint: bool = False,
        dropout: Dropout | None = None,
    ) -> Float[Tensor, "b m d"]:
        """Return the condition z of every position, or of those of `query_ids`.

        Args:
            tokens: [b, n, token_dim]; only the visible ones are read.
            prefix: [b, p, prefix_width], seen by all.
            visible_ids: [b, v], positions of the visible tokens, none twice.
            positions: of the n tokens, for the encoder half and for the decoder half; with
                `decoder_positions="all"` the latter's `add` is of the p prefix tokens, too.
            padding_mask: [b, v], True where `visible_ids` only fills up: that token stays hidden.
            query_ids: [b, m], positions whose condition is wanted; None is all. The last block
                leaves the others out, whose conditions nothing reads.
            memory: keeps keys and values of each block. An empty one is filled, which changes no
                result. Where it was filled with the first of `visible_ids`, only what follows them
                and `query_ids`, which must be hidden, are computed: all else, prefix included, is
                taken as it was then.
            checkpoint: keep each block's input only, and compute the block again for its gradients.

        Raises:
            ValueError: shapes or dtypes that do not fit. Ids that are none of the n positions are
                seen on the CPU only: a look would make a GPU wait. A memory of another tower or
                batch, with gradients on, beside `padding_mask`, `checkpoint` or `dropout`, filled
                with more than is visible, or filled and no `query_ids`.
        """
        call = _Call(tokens, prefix, visible_ids, positions, padding_mask, query_ids, backend)
        self._check_inputs(call)
        if not (backend is None and checkpoint is False and dropout is None):
            _check_way(tokens.device, backend, checkpoint, dropout)
        if memory is None:
            return self._compute(call, checkpoint=checkpoint, dropout=dropout)
        if not (padding_mask is None and not checkpoint and dropout is None):
            allowed = "None beside padding_mask, checkpoint or dropout"
            raise bad("memory", "a SpatialMemory", allowed)
        count = prefix.shape[1] + tokens.shape[1]
        check_memory(memory, self.halves, count, visible_ids, query_ids, like=self.norm.weight)
        with as_it_was(memory):
            if memory.full and query_ids is not None:
                return self._renew(call, query_ids, memory)
            memory.reserve_all(prefix.shape[1], visible_ids.shape[1])
            return self._compute(call, (memory.encoder, memory.decoder))

    def _compute(
        self,
        call: "_Call",
        caches: tuple[KVCache | None, TokenCache | None] = (None, None),
        **training: Any,
    ) -> Tensor:
        """Compute everything; what is kept of it goes into the caches of both halves."""
        ids, padding_mask, query_ids = call.visible_ids, call.padding_mask, call.query_ids
        batch, count, _ = call.tokens.shape
        length, (for_encoder, for_decoder) = call.prefix.shape[1], call.positions
        places = for_encoder.take(ids)
        x = torch.cat([self.prefix(call.prefix), self._embed(call.tokens, ids, places)], dim=1)
        mask = None
        if padding_mask is not None:
            seen = torch.cat([padding_mask.new_ones(batch, length), ~padding_mask], dim=1)
            mask = seen[:, None, None, :]
        options: Any = {"backend": call.backend, **training}
        rope = places.shifted(length).rope
        x = self.embed_norm(x)
        x = run_blocks(self.encoder, x, rope=rope, mask=mask, cache=caches[0], **options)

        x = self.join(self.encoder_norm(x))
        prefix, x = x[:, :length], x[:, length:]
        hidden, add = self.mask_token.expand(count, -1), for_decoder.add
        if add is not None and self.decoder_positions == "hidden":
            hidden = hidden + add
        hidden = hidden.expand(batch, -1, -1)
        if padding_mask is not None:
            x = torch.where(padding_mask[..., None], take(hidden, ids), x)
        x = hidden.scatter(1, ids[..., None].expand_as(x), x.to(hidden.dtype))
        x = torch.cat([prefix, x], dim=1)
        if add is not None and self.decoder_positions == "all":
            x = x + add
        options |= {"rope": for_decoder.shifted(length).rope, "cache": caches[1]}
        if query_ids is None:
            return self.norm(run_blocks(self.decoder, x, **options)[:, length:])
        return self.norm(run_blocks(self.decoder, x, query_ids=query_ids + length, **options))

    def _embed(self, tokens: Tensor, ids: Tensor, places: Positions) -> Tensor:
        x = self.embed(take(tokens, ids).to(weight_of(self.embed).dtype))
        return x if places.add is None else x + places.add

    def _renew(self, call: "_Call", query_ids: Tensor, memory: SpatialMemory) -> Tensor:
        """Compute what has become visible since, and `query_ids`, among what the memory holds."""
        length, (for_encoder, for_decoder) = call.prefix.shape[1], call.positions
        new, ids = memory.reserve_new(length, call.visible_ids, query_ids)
        add, everywhere = for_decoder.add, self.decoder_positions == "all"
        x = self.mask_token.expand(*query_ids.shape, -1)
        if add is not None and not everywhere:
            x = x + add[query_ids]
        if new.shape[1]:
            seen = self.embed_norm(self._embed(call.tokens, new, for_encoder.take(new)))
            rope = for_encoder.take(call.visible_ids).shifted(length).rope
            options: Any = {"rope": rope, "cache": memory.encoder, "backend": call.backend}
            seen = run_blocks(self.encoder, seen, **options)
            x = torch.cat([self.join(self.encoder_norm(seen)), x], dim=1)
        if add is not None and everywhere:
            x = x + add[ids + length]
        wanted = torch.arange(new.shape[1], ids.shape[1], device=ids.device).expand_as(query_ids)
        rope = None if for_decoder.rope is None else for_decoder.rope[ids]
        options = {"rope": rope, "cache": memory.decoder, "backend": call.backend}
        return self.norm(run_blocks(self.decoder, x, query_ids=wanted, **options))

    def _check_inputs(self, call: "_Call") -> None:
        tokens, prefix, positions = call.tokens, call.prefix, call.positions
        check_tensor("tokens", tokens, (None, None, self.token_dim), "[b, n, token_dim]")
        batch, count, _ = tokens.shape
        shape = (batch, None, self.prefix_width)
        check_tensor("prefix", prefix, shape, "[b, p, width]", like=weight_of(self.embed))
        ids: Any = {"kind": "int", "below": count}
        check_tensor("visible_ids", call.visible_ids, (batch, None), "[b, v]", **ids)
        if call.query_ids is not None:
            check_tensor("query_ids", call.query_ids, (batch, None), "[b, m]", **ids)
        if call.padding_mask is not None:
            shape = call.visible_ids.shape
            check_tensor("padding_mask", call.padding_mask, shape, "[b, v]", kind="bool")
        both = isinstance(positions, tuple) and len(positions) == 2
        if not both or not all(isinstance(half, Positions) for half in positions):
            halves = positions if isinstance(positions, tuple) else (positions,)
            got = ", ".join(type(half).__name__ for half in halves)
            raise bad("positions", got, "two of Positions, for encoder and decoder")
        more = prefix.shape[1] if self.decoder_positions == "all" else 0
        for half, (_, width, heads), added in zip(
            positions, self.halves, (count, more + count), strict=True
        ):
            table = (count, width // heads // 2, 2)
            for name, x, shape in (("add", half.add, (added, width)), ("rope", half.rope, table)):
                if x is not None and tuple(x.shape) != shape:
                    raise bad(f"positions.{name}", tuple(x.shape), f"{shape}")


class _Call(NamedTuple):
    """What a call of the tower computes with."""

    tokens: Tensor
    prefix: Tensor
    visible_ids: Tensor
    positions: Any
    padding_mask: Tensor | None
    query_ids: Tensor | None
    backend: Any


def _check_way(
    device: torch.device, backend: Any, checkpoint: object, dropout: Dropout | None
) -> None:
    """Raise a ValueError for a way to compute that is none, or not beside the others."""
    if checkpoint is not False:
        check_instance("checkpoint", checkpoint, bool)
    if dropout is not None:
        check_instance("dropout", dropout, Dropout)
        if checkpoint:
            raise bad("checkpoint", True, "False with dropout, which is drawn once")
        if backend not in (None, "plain"):
            raise bad("backend", backend, "None or 'plain' with dropout")
    if backend is not None:
        check_backend(backend, device)


def _check_half(name: str, half: Any, least: int) -> None:
    if not isinstance(half, tuple) or len(half) != 3:
        raise bad(name, half, "(depth, width, heads)")
    depth, width, heads = half
    check_size(f"{name} depth", depth, least, DEEPEST)
    if check_size(f"{name} width", width) % check_size(f"{name} heads", heads):
        raise bad(f"{name} heads", heads, f"a divisor of the width {width}")


def _join(width: int, out: int) -> nn.Module:
    return nn.Identity() if width == out else nn.Linear(width, out)
