"""NOVA at work: temporal tower, cache, sets of a frame, training step, whole generations."""

from typing import Any

import pytest
import torch
from oracles import check_gradients, close, plain

from contar.generation import fill
from contar.ordering import SetSchedule, random_order, set_sizes
from recipes import nova

CONFIG = nova.NovaConfig(
    temporal=nova.Tower(6, 384, 6),
    encoder=nova.Tower(6, 384, 6),
    decoder=nova.Tower(6, 384, 6),
    head={"name": "flow", "width": 640, "depth": 3},
    text_width=64,
    text_length=16,
    latent=(32, 32),
    frames=3,
    adapter=24,
)
TOKENS, COARSE, WIDTH = 256, 64, 384
DTYPES = ["float32", "bfloat16"]


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nova.build(CONFIG).eval()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 8])
def test_temporal_tower_on_9_frames(row, model, batch, dtype, device):
    tower = model.temporal.to(device, getattr(torch, dtype))
    frames = torch.randn(batch, 9, COARSE, WIDTH, generator=seeded()).to(tower.norm.weight)

    def check(result):
        """A frame sees no later one."""
        torch.testing.assert_close(result[:, :4], tower(frames[:, :4]), **close(dtype))

    with torch.no_grad():
        row(lambda: tower(frames), check, device=device, dtype=dtype)


@pytest.mark.parametrize("cached", [True, False])
def test_temporal_tower_frame_by_frame(row, model, cached, device):
    tower = model.temporal.to(device)
    frames = torch.randn(1, 9, COARSE, WIDTH, generator=seeded()).to(device)

    def run():
        if not cached:
            return torch.cat([tower(frames[:, : t + 1])[:, -1:] for t in range(9)], dim=1)
        cache = tower.allocate_cache(1, 9 * COARSE)
        return torch.cat([tower(frames[:, t : t + 1], cache=cache) for t in range(9)], dim=1)

    with torch.no_grad():
        whole = tower(frames)
        row(run, lambda r: torch.testing.assert_close(r, whole, **close("float32")), device=device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("refresh", [1, 4])
def test_spatial_tower_in_16_sets(row, model, refresh, dtype, device):
    """With `refresh` 4 the features of a frame are computed anew in every fourth set."""
    tower = model.spatial.to(device, getattr(torch, dtype))
    like = tower.norm.weight
    prefix = torch.randn(2, COARSE, WIDTH, generator=seeded()).to(like)
    tokens = torch.randn(1, TOKENS, 16, generator=seeded(1)).to(device)
    order = random_order(1, TOKENS, generator=seeded(2)).to(device)
    schedule = SetSchedule(order, set_sizes(TOKENS, 16))

    def run(refresh=refresh, **options: Any):
        kept, out = [], []
        for step in schedule:
            if step.index % refresh == 0:
                kept = [tower.allocate_memory(2, TOKENS, COARSE)] if refresh > 1 else [None]
            known, rows = (ids.repeat(2, 1) for ids in (step.known, step.current))
            twice = tokens.repeat(2, 1, 1)
            out.append(tower(twice, prefix, known, query_ids=rows, memory=kept[0], **options))
        return out

    def check(result):
        with plain(dtype) as options:
            exact = run(1, **options)
        for ours, want in zip(result, exact[: 1 if refresh > 1 else None], strict=refresh == 1):
            torch.testing.assert_close(ours, want, **close(dtype))

    with torch.no_grad():
        row(run, check, device=device, dtype=dtype)


def test_the_set_loop_itself(row):
    """What the loop costs beside the network: nothing is predicted or drawn."""
    schedule = SetSchedule(random_order(1, TOKENS, generator=seeded()), set_sizes(TOKENS, 16))
    tokens = torch.randn(1, TOKENS, 16, generator=seeded(1))

    def run():
        filled = torch.zeros_like(tokens)
        for step in schedule:
            drawn = tokens.take_along_dim(step.current[..., None], 1)
            filled = fill(filled, step.current, drawn)
        return filled

    def check(filled):
        assert torch.equal(filled, tokens)

    row(run, check, rounds=50)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 2])
def test_generation_of_3_frames(row, model, batch, dtype, device):
    network = model.to(device, getattr(torch, dtype))
    text = torch.randn(batch, 16, 64, generator=seeded())
    plan = nova.GenerationPlan(frames=3, sets=16, diffusion_steps=25)

    def generate(**options: Any):
        given = text.to(network.dtype)
        return nova.generate(network, given, plan, generator=seeded(1), **options)

    def check(result):
        with plain(dtype) as options:
            torch.testing.assert_close(result, generate(**options), **close(dtype))

    row(generate, check, device=device, dtype=dtype, rounds=3)


@pytest.mark.parametrize("batch", [1, 8])
def test_generation_of_9_frames_by_the_480p_model(row, batch, device):
    """The released sizes with random weights, in the released model's 64 sets."""
    if device == "cpu":
        pytest.skip("of the size of a GPU's work")
    network = nova.build("nova-d48w1024-osp480", device=device, dtype=torch.bfloat16).eval()
    text = torch.randn(batch, 256, network.sizes.text_width, generator=seeded())
    text = text.to(device, torch.bfloat16)
    plan = nova.GenerationPlan(frames=9, sets=64)

    def generate():
        return nova.generate(network, text, plan, generator=seeded(1))

    def check(result):
        assert result.isfinite().all()

    row(generate, check, dtype="bfloat16", rounds=3, device=device)


def test_training_step_on_3_frames(row, model, device):
    network = model.to(device)
    latents = torch.randn(1, 4, 3, 32, 32, generator=seeded()).to(device)
    text = torch.randn(1, 16, 64, generator=seeded()).to(device)

    def step(**options: Any):
        network.zero_grad()
        draws: Any = {"generator": seeded(1), **options}
        loss = nova.training_losses(network, latents, text, **draws).total
        loss.backward()
        return loss

    row(step, lambda _: check_gradients(network, step), device=device, rounds=3)
