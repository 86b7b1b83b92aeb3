"""MAR's network, put together from contar's parts."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from contar._errors import check_tensor
from contar._random import Dropout
from contar._typing import Bool, Float, Int, Tensor
from contar.attention import Positions
from contar.backbones import SpatialMemory, SpatialTower
from contar.conditioning import AdaptiveLayerNorm
from contar.heads import DiffusionHead, TokenHead
from recipes._mar.config import MarConfig
from recipes._mar.keys import MASK_TOKEN, from_official, to_official
from recipes._shared.headed import Headed, choose_head

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
        self.encoder_positions = nn.Parameter(torch.empty(1, places, width))
        self.decoder_positions = nn.Parameter(torch.empty(1, places, c.decoder.width))
        self.head_positions = nn.Parameter(torch.empty(1, c.tokens, c.decoder.width))
        self.spatial = SpatialTower(
            c.token_dim,
            width,
            encoder=c.encoder,
            decoder=c.decoder,
            mlp_ratio=c.mlp_ratio,
            prenorm=True,
            eps=EPS,
            decoder_positions="all",
        )
        self.head: Any = choose_head(head, c.head, c.token_dim, c.decoder.width)
        self._draw_weights(own=head is not None)

    def _draw_weights(self, *, own: bool) -> None:
        """Draw as the official code does; of another head than its own, leave the weights."""
        network = self.head.network if isinstance(self.head, DiffusionHead) and not own else None
        others = set() if network is not None else set(self.head.modules())
        for module in self.modules():
            if isinstance(module, nn.Linear) and module not in others:
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        drawn = [
            self.classes.weight, self.no_class, self.spatial.mask_token, self.encoder_positions,
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
        labels: Int[Tensor, " b"] | Float[Tensor, "b d2"],
        visible_ids: Int[Tensor, "b v"],
        *,
        padding_mask: Bool[Tensor, "b v"] | None = None,
        query_ids: Int[Tensor, "b m"] | None = None,
        memory: SpatialMemory | None = None,
        backend: Any = None,
        dropout: Dropout | None = None,
    ) -> Float[Tensor, "b m d"]:
        """Return the condition z of every position, or of those of `query_ids`.

        Args:
            tokens: [b, n, token_dim]; only the visible ones are read.
            labels: [b], classes by number; the number of classes itself stands for none. Or their
                embeddings, [b, width].
            visible_ids: [b, v], positions of the visible tokens, none twice.
            padding_mask: [b, v], True where `visible_ids` only fills up: that token stays hidden.
            query_ids: [b, m], positions whose condition is wanted; None is all.
            memory: of an earlier call, as in `SpatialTower`.
            backend: of `attend`.
            dropout: of attention and MLPs, in training.

        Raises:
            ValueError: shapes, dtypes or numbers (on the CPU) that do not fit, or what
                `SpatialTower` refuses.
        """
        c = self.sizes
        check_tensor("tokens", tokens, (None, c.tokens, c.token_dim), "[b, n, token_dim]")
        self.check_labels(labels, len(tokens))
        of_encoder, of_decoder = self.encoder_positions[0], self.decoder_positions[0]
        steer = self.embed(labels) if labels.ndim == 1 else labels
        z = self.spatial(
            tokens,
            steer[:, None] + of_encoder[: c.buffer],
            visible_ids,
            positions=(Positions(add=of_encoder[c.buffer :]), Positions(add=of_decoder)),
            padding_mask=padding_mask,
            query_ids=query_ids,
            memory=memory,
            backend=backend,
            dropout=dropout,
        )
        return z + (self.head_positions if query_ids is None else self.head_positions[0][query_ids])

    def embed(self, labels: Int[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """Return what steers, for classes by number."""
        return torch.cat([self.classes.weight, self.no_class])[labels]

    def check_labels(self, labels: Any, batch: int | None = None) -> None:
        """Raise a ValueError unless they are classes by number, or embeddings."""
        width = self.sizes.encoder.width
        if isinstance(labels, Tensor) and labels.ndim == 2:
            return check_tensor("labels", labels, (batch, width), "[b, width]", like=self.no_class)
        check_tensor("labels", labels, (batch,), "[b]", kind="int", below=self.sizes.classes + 1)

    def allocate_memory(self, batch: int) -> SpatialMemory:
        """Return an empty memory for so many samples."""
        return self.spatial.allocate_memory(batch, self.sizes.tokens, self.sizes.buffer)

    def rename_saved(self, state: dict[str, Any]) -> None:
        """Rename in place the weights of a file that an earlier version has saved."""
        super().rename_saved(state)
        for name in self.state_dict():
            part = name.removeprefix("spatial.")
            saved = part.replace("norm.", "decoder_norm.", 1) if part[:5] == "norm." else part
            if name not in state and saved in state:
                state[name] = state.pop(saved)
        if MASK_TOKEN in state and state[MASK_TOKEN].ndim == 3:
            state[MASK_TOKEN] = state[MASK_TOKEN][0]

    def _to_official(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return to_official(state)

    def _from_official(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return from_official(state, self.state_dict())
