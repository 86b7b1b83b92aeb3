"""NOVA as a variant: with its scale-and-shift adapter, or without.

Without it each frame's condition is the temporal tower's output as it stands, instead of the first
frame's under a scale and a shift.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from contar._random import Generators
from contar._typing import Float, Tensor
from contar.conditioning import Guidance
from contar.ordering import truncated_normal_mask
from recipes import nova
from recipes.moving_digits import SHARES

HALF = nova.Tower(depth=2, width=96, heads=3)
SIZES: dict[str, Any] = {
    "temporal": nova.Tower(depth=3, width=96, heads=3), "encoder": HALF, "decoder": HALF,
    "head": {"name": "flow", "width": 128, "depth": 2},
    "text_width": 384, "text_length": 16, "text_rows": 16,
    "latent": (8, 8), "frames": 5,
}  # fmt: skip


class NovaVideo(nn.Module):
    """A small NOVA.

    Args:
        adapter: rank of the scale-and-shift adapter; None leaves it out.
    """

    def __init__(self, *, adapter: int | None = 16) -> None:
        super().__init__()
        self.model = nova.build(nova.NovaConfig(**SIZES, adapter=adapter))

    def loss(
        self,
        latents: Float[Tensor, "b c t h w"],
        texts: Sequence[Tensor],
        generator: torch.Generator,
    ) -> Tensor:
        """Return the loss of first and later frames."""
        rows, (low, std) = latents.shape[0] * latents.shape[2], SHARES
        mask = truncated_normal_mask(rows, 16, low=low, std=std, generator=generator)
        options: Any = {"motion_flow": nova.UNSET, "repeats": 2, "generator": generator}
        return nova.training_losses(self.model, latents, texts, mask=mask, **options).total

    def generate(
        self, texts: Sequence[Tensor], guidance: Guidance, generator: Generators
    ) -> Float[Tensor, "b c t h w"]:
        """Return latents for each text."""
        plan = nova.GenerationPlan(frames=5, sets=8, guidance=guidance)
        options: Any = {"motion_flow": nova.UNSET, "generator": generator}
        return nova.generate(self.model, texts, plan, **options)
