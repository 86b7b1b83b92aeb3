"""Denoising heads: tokens x steps x width, sampling with guidance."""

import pytest
import torch

from contar.conditioning import Guidance
from contar.diffusion import SamplerTable
from contar.heads import DiffusionMLP


@pytest.mark.parametrize("tokens", [1, 16, 64])
@pytest.mark.parametrize(("width", "depth"), [(640, 3), (1280, 3)])
def test_diffusion_mlp_samples_a_set(benchmark, tokens, width, depth):
    generator = torch.Generator().manual_seed(0)
    head = DiffusionMLP(16, 384, width=width, depth=depth)
    table = SamplerTable.from_config({"_class_name": "FlowMatchEulerDiscreteScheduler"}, 25)
    cond, uncond = torch.randn(2, 1, tokens, 384, generator=generator)
    noise = torch.randn(1, tokens, 16, generator=generator)

    @torch.no_grad()
    def sample(order: torch.Tensor) -> torch.Tensor:
        return head.sample(
            cond[:, order],
            uncond=uncond[:, order],
            noise=noise[:, order],
            table=table,
            guidance=Guidance(5.0),
        )

    result = benchmark(sample, torch.arange(tokens))
    backwards = torch.arange(tokens).flip(0)
    torch.testing.assert_close(result, sample(backwards)[:, backwards], rtol=1e-3, atol=1e-4)
