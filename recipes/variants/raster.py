"""Raster: one token after the other in reading order, by a causal tower with a KV cache.

Each token is a block of its own under block-causal attention, behind a prefix of class tokens: a
token's condition is made of all tokens before it. In training all conditions come from one pass.
"""

from typing import Any

import torch
from torch import nn

from contar._random import Generators
from contar._typing import Float, Int, Tensor
from contar.attention import sincos_2d
from contar.backbones import TemporalTower
from contar.conditioning import Guidance
from recipes.variants.canvas import ATTENTION, DEPTH, PREFIX, WIDTH, Canvas, Head


class Raster(nn.Module):
    """The composition, for a canvas and what makes the token head."""

    def __init__(self, canvas: Canvas, head: Head) -> None:
        super().__init__()
        self.canvas = canvas
        self.labels = nn.Embedding(canvas.classes + 1, PREFIX * WIDTH)
        self.begin = nn.Parameter(torch.randn(WIDTH) * 0.02)
        self.embed = nn.Linear(canvas.token_dim, WIDTH)
        self.tower = TemporalTower(depth=DEPTH, width=WIDTH, heads=ATTENTION)
        self.head = head(canvas.token_dim, WIDTH)

    def conditions(
        self,
        before: Float[Tensor, "b k c"],
        first: int,
        labels: Int[Tensor, " b"],
        cache: Any = None,
    ) -> Float[Tensor, "b m d"]:
        """Return z of the tokens from `first` on; `before` are the tokens one place earlier."""
        x = self.embed(before)
        if first == 0:
            x = torch.cat([self.begin.expand(len(labels), 1, -1), x], dim=1)
        places = sincos_2d(self.canvas.grid, WIDTH, device=x.device)
        x = x + places[first : first + x.shape[1]]
        prefix = self.labels(labels).unflatten(1, (PREFIX, WIDTH)) if first == 0 else None
        return self.tower(x[:, :, None], prefix=prefix, cache=cache)[:, :, 0]

    def loss(
        self, tokens: Float[Tensor, "b n c"], labels: Int[Tensor, " b"], generator: torch.Generator
    ) -> Tensor:
        """Return the mean loss of all tokens."""
        z = self.conditions(tokens[:, :-1], 0, labels)
        all_of_them = (tokens.flatten(0, 1), z.flatten(0, 1))
        return self.head.loss(*all_of_them, repeats=4, generator=generator).mean()

    @torch.no_grad()
    def generate(
        self, labels: Int[Tensor, " b"], guidance: Guidance, generator: Generators
    ) -> Float[Tensor, "b n c"]:
        """Fill a canvas for each class, token by token."""
        batch, passes = len(labels), 1 + guidance.active
        both = torch.cat([labels, torch.full_like(labels, self.canvas.classes)])[: passes * batch]
        cache = self.tower.allocate_cache(passes * batch, PREFIX + self.canvas.tokens)
        tokens = self.begin.new_zeros(batch, 0, self.canvas.token_dim)
        for i in range(self.canvas.tokens):
            z = self.conditions(tokens[:, -1:].repeat(passes, 1, 1), i, both, cache)
            now = guidance.at((i + 1) / self.canvas.tokens)
            uncond = z[batch:] if passes > 1 else None
            token = self.head.sample(z[:batch], uncond=uncond, guidance=now, noise=generator)
            tokens = torch.cat([tokens, token], dim=1)
        return tokens
