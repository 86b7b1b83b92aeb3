"""MAR at work: whole generations, training step."""

from typing import Any

import pytest
import torch
from oracles import check_gradients, close, plain

from recipes import mar

TOWER = mar.Tower(6, 384, 6)
CONFIG = mar.MarConfig(
    encoder=TOWER, decoder=TOWER, head=mar.official_head(1024, 3), latent=(16, 16), channels=16,
    patch=1, classes=1000, buffer=64,
)  # fmt: skip


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = mar.build(CONFIG)
        for weight in model.head.parameters():
            if not weight.any():  # as some start
                torch.nn.init.normal_(weight, std=0.02)
        return model.eval()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("batch", [1, 2])
def test_generation_of_256_tokens(row, model, batch, dtype, device):
    network = model.to(device, getattr(torch, dtype))
    plan = mar.GenerationPlan(
        sets=16, diffusion_steps=25, guidance=mar.Guidance(3.0, start=1.0), rounding="floor"
    )
    classes = torch.arange(batch, device=device)

    def generate(**options: Any):
        return mar.generate(
            network, classes, plan, generator=torch.Generator().manual_seed(1), **options
        )

    def check(result):
        with plain(dtype) as options:
            wanted = generate(**options)
        scale = wanted.std()  # a network that learned nothing does not say where a sample ends
        torch.testing.assert_close(result / scale, wanted / scale, **close(dtype))

    row(generate, check, device=device, dtype=dtype, rounds=3)


def test_training_step_on_8_images(row, model, device):
    network = model.to(device)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(8, 16, 16, 16, generator=generator).to(device)
    classes = torch.arange(8, device=device)

    def step(**options: Any):
        network.zero_grad()
        draws: Any = {"generator": torch.Generator().manual_seed(1), **options}
        loss = mar.training_losses(network, latents, classes, **draws).total
        loss.backward()
        return loss

    row(step, lambda _: check_gradients(network, step), device=device, rounds=3)
