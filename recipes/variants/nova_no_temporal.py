"""NOVA without temporal autoregression: all that a frame knows is the anchor and its own time.

The temporal tower makes the anchor from the text alone; every frame's condition is the anchor plus
an embedding of the frame's time, and no frame sees another. What seeing the frames before gives a
video can be told from its loss.
"""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import nn

from contar._typing import Float, Tensor
from contar.attention import Positions, sincos_2d
from contar.backbones import SpatialTower, TemporalTower
from contar.conditioning import FrameTimes, Guidance, TextProjection
from contar.generation import fill
from contar.heads import make_head
from contar.ordering import SetSchedule, random_order, set_sizes, truncated_normal_mask
from contar.tokenizers import patchify, unpatchify
from contar.training import frame_losses
from recipes.moving_digits import SHARES
from recipes.variants.nova_video import HALF, SIZES

WIDTH, GRID, VALUES, COARSE, FRAMES = HALF.width, (4, 4), 16, 4, SIZES["frames"]
TOKENS = GRID[0] * GRID[1]
LOW, STD = SHARES


class NoTemporal(nn.Module):
    """The composition, of `NovaVideo`'s sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.text = TextProjection(SIZES["text_width"], WIDTH, length=SIZES["text_length"], rows=16)
        self.begin = nn.Parameter(torch.randn(1, COARSE, WIDTH) * 0.02)
        depth, width, heads = SIZES["temporal"]
        self.anchor = TemporalTower(depth=depth, width=width, heads=heads)
        self.times = FrameTimes(WIDTH, base=FRAMES)
        self.spatial = SpatialTower(VALUES, WIDTH, encoder=HALF, decoder=HALF)
        self.head = make_head(SIZES["head"], VALUES, WIDTH)

    def prefixes(self, texts: Tensor) -> Float[Tensor, "m p d"]:
        """Return the conditions of all frames of all texts, in rows."""
        begin = self.begin.expand(len(texts), 1, -1, -1)
        anchor = self.anchor(begin, prefix=self.text(texts))
        return (anchor + self.times(FRAMES)[None, :, None]).flatten(0, 1)

    def conditions(
        self, tokens: Tensor, prefix: Tensor, visible_ids: Tensor, **options: Tensor | None
    ) -> Float[Tensor, "m n d"]:
        """Return z of every position of every frame; `options` are the spatial tower's."""
        places = Positions(add=sincos_2d(GRID, WIDTH, device=tokens.device))
        kept: Any = {"positions": (places, places), **options}
        return self.spatial(tokens, prefix, visible_ids, **kept)

    def loss(
        self,
        latents: Float[Tensor, "b c t h w"],
        texts: Sequence[Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """Return the loss of first and later frames, weighed as NOVA's."""
        clean = patchify(latents.transpose(1, 2), 2).flatten(0, 1)
        mask = truncated_normal_mask(len(clean), TOKENS, low=LOW, std=STD, generator=generator)
        prefix = self.prefixes(self.text.pad(texts))
        z = self.conditions(clean, prefix, mask.visible_ids, padding_mask=mask.padding_mask)
        hidden = (clean[mask.hidden], z[mask.hidden])
        losses = self.head.loss(*hidden, repeats=2, generator=generator)
        frame = (torch.arange(len(clean), device=clean.device) % FRAMES)[:, None]
        return frame_losses(losses, frame.expand(-1, TOKENS)[mask.hidden], FRAMES).total

    @torch.no_grad()
    def generate(
        self, texts: Sequence[Tensor], guidance: Guidance, generator: torch.Generator
    ) -> Float[Tensor, "b c t h w"]:
        """Return latents for each text, all frames at once."""
        rows, passes = len(texts) * FRAMES, 1 + guidance.active
        padded = self.text.pad(texts)
        both = torch.cat([padded, self.text.empty(len(texts))]) if passes > 1 else padded
        prefix = self.prefixes(both)

        order = random_order(rows, TOKENS, generator=generator)
        tokens = torch.zeros(rows, TOKENS, VALUES, dtype=torch.float32, device=self.begin.device)
        for step in SetSchedule(order, set_sizes(TOKENS, 8)):
            twice, known, current = (
                torch.cat([x] * passes) for x in (tokens, step.known, step.current)
            )
            z = self.conditions(twice, prefix, known, query_ids=current)
            uncond = z[rows:] if passes > 1 else None
            drawn = self.head.sample(z[:rows], uncond=uncond, guidance=guidance, noise=generator)
            tokens = fill(tokens, step.current, drawn)
        return rearrange(unpatchify(tokens, GRID, 2), "(b t) c h w -> b c t h w", t=FRAMES)
