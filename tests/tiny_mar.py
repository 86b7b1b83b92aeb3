"""Whole MARs small enough to generate in milliseconds, with weights that are nowhere 0."""

from typing import Any

import torch

from recipes import mar

SIZES: dict[str, Any] = {
    "encoder": mar.Tower(1, 16, 2),
    "decoder": mar.Tower(2, 24, 2),
    "head": mar.official_head(16, 1),
    "latent": (4, 8),
    "channels": 2,
    "patch": 2,
    "classes": 3,
    "buffer": 2,
}
TOKENS, VALUES = 8, 8
PLAN = mar.GenerationPlan(
    sets=3, diffusion_steps=4, guidance=mar.Guidance(3.0, start=1.0), rounding="floor"
)


def tiny_mar(**changes: Any) -> mar.Mar:
    """Build a MAR and draw all of its weights, as the official start has zeros."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = mar.build(mar.MarConfig(**{**SIZES, **changes}))
        for name, parameter in model.named_parameters():
            if "norm" not in name or "proj" in name:
                torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()
