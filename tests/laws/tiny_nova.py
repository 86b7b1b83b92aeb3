"""Whole NOVAs small enough to generate in milliseconds, for the laws of generation."""

import functools
from typing import Any

import torch
from torch import Tensor

from recipes import nova

TEXT_WIDTH, TEXT_LENGTH = 6, 3

_SIZES: dict[str, Any] = {
    "temporal": nova.Tower(1, 32, 1),
    "encoder": nova.Tower(1, 32, 1),
    "decoder": nova.Tower(1, 32, 1),
    "head": {"name": "flow", "width": 16, "depth": 1},
    "text_width": TEXT_WIDTH,
    "text_length": TEXT_LENGTH,
    "text_rows": 4,
    "channels": 2,
    "patch": 1,
    "latent": (4, 4),
    "frames": 4,
}

CONFIGS: dict[str, nova.NovaConfig] = {
    "absolute": nova.NovaConfig(**_SIZES),
    "absolute, adapter": nova.NovaConfig(**_SIZES, adapter=3),
    "rotary": nova.NovaConfig(**_SIZES, positions="rotary"),
    "rotary, adapter": nova.NovaConfig(**_SIZES, positions="rotary", adapter="full"),
    "widths": nova.NovaConfig(
        **{**_SIZES, "encoder": nova.Tower(1, 48, 3), "decoder": nova.Tower(1, 64, 2)}, adapter=2
    ),
    "image": nova.NovaConfig(**{**_SIZES, "frames": 1}),
}
VIDEOS = [name for name in CONFIGS if name != "image"]


@functools.cache
def tiny_nova(name: str) -> nova.Nova:
    """Return the model of a config: one for all tests, which leave it as it is."""
    with torch.random.fork_rng():
        torch.manual_seed(len(name))
        return nova.build(CONFIGS[name]).eval()


def texts(batch: int, seed: int) -> Tensor:
    """Return text states for a batch; a sample's depend on its row and the seed alone."""
    rows = [torch.Generator().manual_seed(seed + row) for row in range(batch)]
    return torch.stack([torch.randn(TEXT_LENGTH, TEXT_WIDTH, generator=row) for row in rows])
