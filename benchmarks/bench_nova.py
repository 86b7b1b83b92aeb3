"""A whole generation and a training step of a small NOVA."""

import pytest
import torch

from recipes import nova

CONFIG = nova.NovaConfig(
    temporal=nova.Tower(6, 384, 6),
    encoder=nova.Tower(6, 384, 6),
    decoder=nova.Tower(6, 384, 6),
    head_depth=3,
    head_width=640,
    text_width=64,
    text_length=16,
    latent=(32, 32),
    frames=3,
    adapter=24,
)


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nova.build(CONFIG)


def test_generation_of_three_frames_with_guidance(benchmark, model):
    text = torch.randn(1, 16, 64, generator=torch.Generator().manual_seed(0))
    plan = nova.GenerationPlan(frames=3, sets=16, diffusion_steps=25)

    def generate() -> torch.Tensor:
        return nova.generate(model, text, plan, generator=torch.Generator().manual_seed(1))

    result = benchmark.pedantic(generate, rounds=3, warmup_rounds=1)
    assert torch.equal(result, generate())


def test_training_step_on_three_frames(benchmark, model):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 3, 32, 32, generator=generator)
    text = torch.randn(1, 16, 64, generator=generator)

    def step() -> float:
        model.zero_grad()
        drawn = torch.Generator().manual_seed(1)
        losses = nova.training_losses(model, latents, text, generator=drawn)
        losses.total.backward()
        return losses.total.item()

    result = benchmark.pedantic(step, rounds=3, warmup_rounds=1)
    assert result == pytest.approx(step(), rel=1e-5)
