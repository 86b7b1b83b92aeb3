"""Token heads: tokens of a set x steps x width x batch, sampling with guidance."""

from typing import Any

import pytest
import torch
from oracles import close, plain

from contar.conditioning import Guidance
from contar.diffusion import SamplerTable
from contar.heads import (
    DiffusionHead,
    DiffusionMLP,
    EnergyHead,
    MeanFlowHead,
    MixtureHead,
)

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}
COND, VALUES = 384, 16


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("width", [640, 1280])
@pytest.mark.parametrize("steps", [25, 100])
@pytest.mark.parametrize("tokens", [1, 4, 16, 64])
def test_diffusion_mlp_samples_a_set(row, tokens, steps, width, batch, dtype, device):
    if device == "cpu" and batch * tokens * steps * width > 64 * 25 * 1280 * 2:
        pytest.skip("of the size of a GPU's work")
    generator = torch.Generator().manual_seed(0)
    head = DiffusionMLP(VALUES, COND, width=width, depth=3).to(device, getattr(torch, dtype))
    table = SamplerTable.from_config(FLOW, steps)
    cond, uncond = torch.randn(2, batch, tokens, COND, generator=generator).to(head.token.weight)
    noise = torch.randn(batch, tokens, VALUES, generator=generator).to(device)

    def sample(order: Any = slice(None)):
        parts: Any = {"uncond": uncond[:, order], "noise": noise[:, order]}
        return head.sample(cond[:, order], table=table, guidance=Guidance(5.0), **parts)

    def check(result):
        """Tokens are independent: the other way round they come out the other way round."""
        backwards = torch.arange(tokens).flip(0)
        allowed = 1e-3 if dtype == "float32" else 0.2
        torch.testing.assert_close(
            result, sample(backwards)[:, backwards], rtol=allowed, atol=allowed
        )

    with torch.no_grad():
        row(sample, check, device=device, dtype=dtype)


HEADS = {
    "ddpm-50": lambda: DiffusionHead(
        DiffusionMLP(VALUES, COND, width=640, depth=3),
        {"_class_name": "DDPMScheduler", "clip_sample": False, "timestep_spacing": "leading"},
        steps=50,
    ),
    "flow-25": lambda: DiffusionHead(
        DiffusionMLP(VALUES, COND, width=640, depth=3), FLOW, steps=25
    ),
    "mixture": lambda: MixtureHead(VALUES, COND, components=24, width=640),
    "energy": lambda: EnergyHead(VALUES, COND, width=640, depth=3),
    "mean-flow-2": lambda: MeanFlowHead(VALUES, COND, width=640, depth=3, steps=2),
}


@pytest.mark.parametrize("kind", HEADS)
def test_heads_of_like_size_draw_16_tokens(row, kind, device):
    head = HEADS[kind]().to(device)
    cond = torch.randn(1, 16, COND, generator=torch.Generator().manual_seed(0)).to(device)

    def sample():
        return head.sample(cond, generator=torch.Generator().manual_seed(1))

    def check(result):
        with plain():
            torch.testing.assert_close(result, sample(), **close("float32"))

    with torch.no_grad():
        row(sample, check, device=device)
