"""Masked: MAR's model. Sets of tokens in a random order, drawn by any head.

A spatial tower sees the visible tokens behind a prefix of class tokens; the head draws the tokens
of a set, each by itself. In training a share of the tokens is hidden, from few to all.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from contar._random import Generators
from contar._typing import Float, Int, Tensor
from contar.attention import Positions, sincos_2d
from contar.backbones import SpatialTower
from contar.conditioning import Guidance
from contar.generation import fill
from contar.ordering import SetSchedule, random_order, set_sizes, truncated_normal_mask
from recipes.moving_digits import SHARES
from recipes.variants.canvas import ATTENTION, DEPTH, PREFIX, WIDTH, Canvas, Head

SETS = 8  # in sampling, less those that come out empty


class Masked(nn.Module):
    """The composition.

    Args:
        canvas: what is filled.
        head: makes the token head.
        order: of the tokens in sampling.
        sizes: of the sets; None is the cosine schedule in `SETS`.
    """

    def __init__(
        self,
        canvas: Canvas,
        head: Head,
        *,
        order: Callable[..., Tensor] = random_order,
        sizes: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        self.canvas, self.order = canvas, order
        self.sizes = set_sizes(canvas.tokens, SETS) if sizes is None else sizes
        self.labels = nn.Embedding(canvas.classes + 1, PREFIX * WIDTH)
        half = (DEPTH // 2, WIDTH, ATTENTION)
        self.tower = SpatialTower(canvas.token_dim, WIDTH, encoder=half, decoder=half)
        self.head = head(canvas.token_dim, WIDTH)

    def conditions(
        self,
        tokens: Float[Tensor, "b n c"],
        labels: Int[Tensor, " b"],
        visible_ids: Int[Tensor, "b v"],
        padding_mask: Tensor | None = None,
        query_ids: Int[Tensor, "b m"] | None = None,
    ) -> Float[Tensor, "b m d"]:
        """Return z of every position, or of `query_ids`."""
        places = Positions(add=sincos_2d(self.canvas.grid, WIDTH, device=tokens.device))
        prefix = self.labels(labels).unflatten(1, (PREFIX, WIDTH))
        options: Any = {"padding_mask": padding_mask, "query_ids": query_ids}
        return self.tower(tokens, prefix, visible_ids, positions=(places, places), **options)

    def loss(
        self, tokens: Float[Tensor, "b n c"], labels: Int[Tensor, " b"], generator: torch.Generator
    ) -> Tensor:
        """Return the mean loss of the hidden tokens."""
        low, std = SHARES  # few tokens: all but the last are seen in training too
        options: Any = {"low": low, "std": std, "generator": generator, "device": tokens.device}
        mask = truncated_normal_mask(*tokens.shape[:2], **options)
        z = self.conditions(tokens, labels, mask.visible_ids, mask.padding_mask)
        hidden = (tokens[mask.hidden], z[mask.hidden])
        return self.head.loss(*hidden, repeats=4, generator=generator).mean()

    @torch.no_grad()
    def generate(
        self, labels: Int[Tensor, " b"], guidance: Guidance, generator: Generators
    ) -> Float[Tensor, "b n c"]:
        """Fill a canvas for each class, set by set."""
        batch, device = len(labels), labels.device
        passes = 1 + guidance.active
        both = torch.cat([labels, torch.full_like(labels, self.canvas.classes)])[: passes * batch]

        order = self.order(batch, self.canvas.tokens, generator=generator, device=device)
        shape = (batch, self.canvas.tokens, self.canvas.token_dim)
        tokens = torch.zeros(shape, dtype=torch.float32, device=device)
        for step in SetSchedule(order, self.sizes):
            twice, known, current = (
                torch.cat([x] * passes) for x in (tokens, step.known, step.current)
            )
            z = self.conditions(twice, both, known, query_ids=current)
            now = guidance.at((step.index + 1) / step.sets)
            uncond = z[batch:] if passes > 1 else None
            drawn = self.head.sample(z[:batch], uncond=uncond, guidance=now, noise=generator)
            tokens = fill(tokens, step.current, drawn)
        return tokens
