"""Pocket TTS's network, put together from contar's parts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from contar._typing import Bool, Float, Int, Tensor
from contar.attention import KVCache, rotary_table
from contar.backbones import TemporalTower
from contar.heads import TokenHead
from recipes._pocket_tts.config import PocketTTSConfig
from recipes._pocket_tts.keys import from_transformers, to_transformers
from recipes._shared.headed import Headed, choose_head

_STD = 0.02  # of the initial weights, as in transformers


class PocketTTS(Headed):
    """The network: weights and nothing else; loops and losses are in `recipes.pocket_tts`.

    A causal tower over one sequence: the voice, the text, then the audio latents, each of which
    stands where the next is made. `mean` and `std` bring a codec's latents to the scale of the
    head.
    """

    config_name = "config.json"
    mean: Float[Tensor, " c"]
    std: Float[Tensor, " c"]

    def __init__(
        self, sizes: PocketTTSConfig | Mapping[str, Any], head: TokenHead | None = None
    ) -> None:
        super().__init__()
        c = sizes if isinstance(sizes, PocketTTSConfig) else PocketTTSConfig.from_dict(sizes)
        self.register_to_config(sizes=asdict(c))
        self.sizes = c
        width = c.tower.width
        self.text = nn.Embedding(c.vocabulary, width)
        self.voice = nn.Linear(c.token_dim, width, bias=False)
        self.latent = nn.Linear(c.token_dim, width, bias=False)
        self.begin = nn.Parameter(torch.zeros(c.token_dim))
        self.tower = TemporalTower(
            **c.tower._asdict(),
            mlp_ratio=(c.hidden + 0.5) / width,  # rounded down, whatever the width
            prenorm=True,
            bias=False,
            activation=c.activation,
            eps=c.eps,
        )
        self.end = nn.Linear(width, 1)
        self.head: Any = choose_head(head, c.head, c.token_dim, width)
        self.register_buffer("mean", torch.zeros(c.token_dim))
        self.register_buffer("std", torch.ones(c.token_dim))
        for module in (self.text, self.voice, self.latent, self.end, *self.tower.modules()):
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=_STD)
        nn.init.zeros_(self.end.bias)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        *,
        rope: Float[Tensor, "*b m k 2"],
        padding_mask: Bool[Tensor, "b m"] | None = None,
        cache: KVCache | None = None,
        checkpoint: bool = False,
        backend: Any = None,
    ) -> Float[Tensor, "b n d"]:
        """Return the condition z of what follows each token; arguments as in `TemporalTower`."""
        options: Any = {"cache": cache, "checkpoint": checkpoint, "backend": backend}
        frames = x[:, :, None]
        return self.tower(frames, rope=rope, padding_mask=padding_mask, **options)[:, :, 0]

    def sequences(
        self,
        texts: Sequence[Int[Tensor, " _"]],
        voices: Sequence[Float[Tensor, "_ c"] | None],
        latents: Sequence[Float[Tensor, "_ c"]] | None = None,
    ) -> tuple[Float[Tensor, "b n d"], Int[Tensor, " b"]]:
        """Return sequences as the tower reads them, and how many tokens fill up each in front.

        Args:
            texts: tokens of each sample.
            voices: latents of the voice to speak with, as the codec makes them, or None.
            latents: normalised ones that follow, or None.
        """
        rows = []
        for i, (text, voice) in enumerate(zip(texts, voices, strict=True)):
            parts = [self.text(text), self.embed(self.begin[None])]
            if voice is not None:
                parts.insert(0, self.voice(voice.to(self.begin.dtype)))
                if self.sizes.voice_mark is not None:
                    parts.insert(0, self.text.weight[self.sizes.voice_mark][None])
            if latents is not None:
                parts.append(self.embed(latents[i]))
            rows.append(torch.cat(parts))
        x = pad_sequence(rows, batch_first=True, padding_side="left")
        pads = [x.shape[1] - len(row) for row in rows]
        return x, torch.tensor(pads, device=x.device)

    def embed(self, latents: Float[Tensor, "*b c"]) -> Float[Tensor, "*b d"]:
        """Return normalised latents as the tower reads them."""
        return self.latent(latents.to(self.begin.dtype))

    def places(
        self, keys: int, pads: Int[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b m k 2"], Bool[Tensor, "b m"] | None]:
        """Return the rotary table of `keys` tokens, counted behind the padding, and its mask.

        The mask is None where nothing fills up.
        """
        numbers = torch.arange(keys, device=pads.device) - pads[:, None]
        times = numbers.clamp(min=0).float()
        coordinates = torch.stack([times, *2 * [torch.zeros_like(times)]], dim=-1)
        k = self.sizes.tower.width // self.sizes.tower.heads
        rope = rotary_table(coordinates, k, sections=(k, 0, 0), theta=self.sizes.theta)
        return rope, numbers < 0 if pads.any() else None

    def normalize(self, latents: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """Return a codec's latents at the scale of the head."""
        return (latents - self.mean) / self.std

    def denormalize(self, latents: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """Return latents at the scale of the codec."""
        return latents * self.std + self.mean

    def repeated(self) -> list[nn.Module]:
        """Return the parts that sampling repeats."""
        return list(self.tower.blocks)

    def _to_official(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return to_transformers(state, self.sizes.tower.heads)

    def _from_official(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return from_transformers(state, self.state_dict(), self.sizes.tower.heads)
