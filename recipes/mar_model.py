"""MAR's network, put together from contar's parts."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from contar._errors import bad, check_ids, check_tensor
from contar._random import Dropout
from contar._typing import Bool, Float, Int, Tensor
from contar.attention import KVCache, TokenCache, as_it_was
from contar.backbones import Block, SpatialMemory, check_memory, run_blocks, take
from contar.conditioning import AdaptiveLayerNorm
from contar.heads import DiffusionHead, TokenHead
from recipes.building import compile_parts
from recipes.headed import Headed, choose_head
from recipes.mar_config import MarConfig
from recipes.mar_keys import from_official, to_official
from recipes.sizes import Tower

EPS = 1e-6  # of every layer norm


class Mar(Headed):
    """The network: weights and nothing else. Loops and losses are functions in `recipes.mar`.

    Initial weights are drawn as in the official code, which starts the head at 0.
    """

    config_name = "config.json"

    def __init__(self, sizes: MarConfig | Mapping[str, Any], head: TokenHead | None = None) -> None:
        super().__init__()
        c = sizes if isinstance(sizes, MarConfig) else MarConfig.from_dict(sizes)
        self.register_to_config(sizes=asdict(c))
        self.sizes = c
        width, places = c.encoder.width, c.buffer + c.tokens
        self.classes = nn.Embedding(c.classes, width)
        self.no_class = nn.Parameter(torch.empty(1, width))
        self.embed = nn.Linear(c.values, width)
        self.embed_norm = nn.LayerNorm(width, eps=EPS)
        self.encoder_positions = nn.Parameter(torch.empty(1, places, width))
        self.encoder = self._half(c.encoder)
        self.encoder_norm = nn.LayerNorm(width, eps=EPS)
        width = c.decoder.width
        self.join = nn.Linear(c.encoder.width, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width))
        self.decoder_positions = nn.Parameter(torch.empty(1, places, width))
        self.decoder = self._half(c.decoder)
        self.decoder_norm = nn.LayerNorm(width, eps=EPS)
        self.head_positions = nn.Parameter(torch.empty(1, c.tokens, width))
        self.head: Any = choose_head(head, c.head, c.values, width)
        self._draw_weights(own=head is not None)

    def _half(self, tower: Tower) -> nn.ModuleList:
        c = self.sizes
        return nn.ModuleList(
            Block(tower.width, tower.heads, mlp_ratio=c.mlp_ratio, prenorm=True, eps=EPS)
            for _ in range(tower.depth)
        )

    def _draw_weights(self, *, own: bool) -> None:
        """Draw as the official code does; of another head than its own, leave the weights."""
        network = self.head.network if isinstance(self.head, DiffusionHead) and not own else None
        others = set() if network is not None else set(self.head.modules())
        for module in self.modules():
            if isinstance(module, nn.Linear) and module not in others:
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        drawn = [
            self.classes.weight, self.no_class, self.mask_token, self.encoder_positions,
            self.decoder_positions, self.head_positions,
        ]  # fmt: skip
        if network is not None:
            drawn += [network.time.fc1.weight, network.time.fc2.weight]
        for parameter in drawn:
            nn.init.normal_(parameter, std=0.02)
        if network is not None:
            nn.init.zeros_(network.out.weight)
            for module in network.modules():
                if isinstance(module, AdaptiveLayerNorm):
                    nn.init.zeros_(module.proj.weight)

    def forward(
        self,
        tokens: Float[Tensor, "b n c"],
        labels: Int[Tensor, " b"],
        visible_ids: Int[Tensor, "b v"],
        *,
        filled: Bool[Tensor, "b v"] | None = None,
        rows: Int[Tensor, "b m"] | None = None,
        memory: SpatialMemory | None = None,
        backend: Any = None,
        dropout: Dropout | None = None,
    ) -> Float[Tensor, "b m d"]:
        """Return the condition z of every position, or of those of `rows`.

        Args:
            tokens: [b, n, values]; only the visible ones are read.
            labels: [b], classes by number; the number of classes itself stands for none.
            visible_ids: [b, v], positions of the visible tokens, none twice.
            filled: [b, v], True where `visible_ids` only fills a row up: that token stays hidden.
            rows: [b, m], positions whose condition is wanted; None is all.
            memory: of an earlier call, as in `SpatialTower`.
            backend: of `attend`.
            dropout: of attention and MLPs, in training.

        Raises:
            ValueError: shapes, dtypes or numbers (on the CPU) that do not fit, dropout beside a
                memory, or a memory as `SpatialTower` refuses it.
        """
        c = self.sizes
        check_tensor("tokens", tokens, (None, c.tokens, c.values), "[b, n, values]")
        batch = len(tokens)
        check_tensor("labels", labels, (batch,), "[b]", kind="int")
        check_ids("labels", labels, c.classes + 1)
        check_tensor("visible_ids", visible_ids, (batch, None), "[b, v]", kind="int")
        check_ids("visible_ids", visible_ids, c.tokens)
        if rows is not None:
            check_tensor("rows", rows, (batch, None), "[b, m]", kind="int")
            check_ids("rows", rows, c.tokens)
        if filled is not None:
            check_tensor("filled", filled, tuple(visible_ids.shape), "[b, v]", kind="bool")

        every = (tokens, labels, visible_ids, filled, rows)
        if memory is None:
            return self._compute(*every, backend=backend, dropout=dropout)
        if dropout is not None:
            raise bad("dropout", dropout, "None beside a memory")
        options: Any = {"like": self.no_class, "backend": backend, "alone": filled is None}
        places = c.buffer + c.tokens
        check_memory(memory, self._halves(), places, visible_ids, rows, **options)
        with as_it_was(memory):
            if memory.full and rows is not None:
                return self._renew(tokens, visible_ids, rows, memory, backend)
            memory.reserve_all(c.buffer, visible_ids.shape[1])
            return self._compute(*every, (memory.encoder, memory.decoder), backend=backend)

    def _compute(
        self,
        tokens: Tensor,
        labels: Tensor,
        visible_ids: Tensor,
        filled: Tensor | None,
        rows: Tensor | None,
        caches: tuple[KVCache | None, TokenCache | None] = (None, None),
        *,
        backend: Any,
        dropout: Dropout | None = None,
    ) -> Tensor:
        """Compute everything; what is kept of it goes into the caches of both halves."""
        c, batch = self.sizes, len(tokens)
        of_encoder, of_decoder = caches
        steer = torch.cat([self.classes.weight, self.no_class])[labels]
        buffer = steer[:, None] + self.encoder_positions[0, : c.buffer]
        x = self.embed_norm(torch.cat([buffer, self._embed(tokens, visible_ids)], dim=1))
        mask = None
        if filled is not None:
            seen = torch.cat([filled.new_ones(batch, c.buffer), ~filled], dim=1)
            mask = seen[:, None, None, :]
        options: Any = {"backend": backend, "dropout": dropout}
        x = run_blocks(self.encoder, x, cache=of_encoder, mask=mask, **options)

        x = self.join(self.encoder_norm(x))
        buffer, x = x[:, : c.buffer], x[:, c.buffer :]
        if filled is not None:
            x = torch.where(filled[..., None], self.mask_token.to(x.dtype), x)
        hidden = self.mask_token.expand(batch, c.tokens, -1).to(x.dtype)
        x = hidden.scatter(1, visible_ids[..., None].expand_as(x), x)
        x = torch.cat([buffer, x], dim=1) + self.decoder_positions
        rows_of_all = None if rows is None else rows + c.buffer
        x = run_blocks(self.decoder, x, cache=of_decoder, rows=rows_of_all, mask=None, **options)
        if rows is None:
            return self.decoder_norm(x)[:, c.buffer :] + self.head_positions
        return self.decoder_norm(x) + self.head_positions[0][rows]

    def _halves(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        encoder, decoder = self.sizes.encoder, self.sizes.decoder
        return (encoder.depth, encoder.width, encoder.heads), (
            decoder.depth, decoder.width, decoder.heads,
        )  # fmt: skip

    def allocate_memory(self, batch: int) -> SpatialMemory:
        """Return an empty memory for so many samples."""
        tokens = self.sizes.buffer + self.sizes.tokens
        return SpatialMemory.allocate(self._halves(), batch, tokens, like=self.embed.weight)

    def _embed(self, tokens: Tensor, ids: Tensor) -> Tensor:
        x = self.embed(take(tokens, ids).to(self.embed.weight.dtype))
        return x + self.encoder_positions[0, self.sizes.buffer :][ids]

    def _renew(
        self,
        tokens: Tensor,
        visible_ids: Tensor,
        rows: Tensor,
        memory: SpatialMemory,
        backend: Any,
    ) -> Tensor:
        """Compute what has become visible since, and `rows`, among what the memory holds."""
        buffer = self.sizes.buffer
        new, ids = memory.reserve_new(buffer, visible_ids, rows)
        x = self.mask_token.expand(*rows.shape, -1)
        if new.shape[1]:
            seen = self.embed_norm(self._embed(tokens, new))
            options: Any = {"mask": None, "backend": backend}
            seen = run_blocks(self.encoder, seen, cache=memory.encoder, **options)
            x = torch.cat([self.join(self.encoder_norm(seen)), x], dim=1)
        x = x + self.decoder_positions[0, buffer:][ids]
        wanted = torch.arange(new.shape[1], ids.shape[1], device=ids.device).expand_as(rows)
        options = {"rows": wanted, "mask": None, "backend": backend}
        x = run_blocks(self.decoder, x, cache=memory.decoder, **options)
        return self.decoder_norm(x) + self.head_positions[0][rows]

    def compile(self, **options: Any) -> None:
        """Compile what sampling repeats: the blocks and the head's network.

        Each is one graph, of any number of tokens; the first samples wait for the compiler. Of use
        where launches cost more than what they run, as small sets on a GPU do.

        Args:
            options: of `torch.compile`; `mode="reduce-overhead"` replays CUDA graphs.
        """
        compile_parts([*self.encoder, *self.decoder, self.head], options)

    def official_state_dict(self) -> dict[str, Tensor]:
        """Return the state dict in the names of official checkpoints."""
        return to_official(self.state_dict())

    def load_official_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load a state dict in the names of official checkpoints.

        Raises:
            ValueError: missing, unexpected or misshapen weights, all listed; nothing is loaded.
        """
        self.load_state_dict(from_official(state, self.state_dict()))
