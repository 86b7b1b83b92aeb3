"""Draws by key: pure functions of (seed, step, sample), the same on any device and in any part."""

import hashlib
from collections.abc import Callable

import pytest
import torch

from contar._random import keyed_normal, keyed_uniform, keys
from contar.diffusion import NoiseProcess
from contar.training import Draws, draw_step

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
DDPM = {"_class_name": "DDPMScheduler", "clip_sample": False}
LATENT = (2, 3, 4, 4)


def drawn(indices: list[int], *, seed: int = 0, step: int | str = 7) -> Draws:
    process = NoiseProcess.from_config(FLOW)
    return draw_step(seed, step, indices, latent=LATENT, patch=1, repeats=2, process=process)


def rows(draws: Draws, count: int) -> list[torch.Tensor]:
    """Return all that was drawn, one row for each sample."""
    hidden, ids = draws.mask.hidden, draws.mask.visible_ids
    assert draws.noise is not None
    assert draws.index is not None
    return [
        *(x.reshape(count, -1) for x in (hidden, ids, draws.posterior, draws.context)),
        draws.chance,
        draws.noise.unflatten(1, (count, -1)).transpose(0, 1).flatten(1),
        draws.index.unflatten(1, (count, -1)).transpose(0, 1).flatten(1),
    ]


def test_a_batch_split_into_parts_or_processes_draws_the_same_rows():
    whole = rows(drawn([9, 0, 4, 123456]), 4)
    first, second = rows(drawn([9, 0]), 2), rows(drawn([4, 123456]), 2)
    turned = rows(drawn([123456, 4, 0, 9]), 4)
    for all_rows, a, b, back in zip(whole, first, second, turned, strict=True):
        assert torch.equal(all_rows, torch.cat([a, b]))
        assert torch.equal(all_rows, back.flip(0))


def test_draws_follow_from_seed_and_step_alone():
    state = torch.get_rng_state()
    one = rows(drawn([3, 8]), 2)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    assert all(map(torch.equal, one, rows(drawn([3, 8]), 2)))
    others = (drawn([3, 8], seed=1), drawn([3, 8], step=8), drawn([3, 8], step="validation"))
    for made in others:
        for name in ("posterior", "context", "chance"):
            assert not torch.equal(getattr(made, name), getattr(drawn([3, 8]), name))


def test_kinds_of_draws_do_not_repeat_each_other():
    draws = drawn([5])
    assert draws.noise is not None
    values = [draws.posterior.flatten(), draws.context.flatten(), draws.noise.flatten()]
    for i, one in enumerate(values):
        for other in values[i + 1 :]:
            shared = min(len(one), len(other))
            assert not torch.isin(one[:shared], other[:shared]).any()


STEP = 0x9E3779B97F4A7C15


def splitmix64(state: int) -> int:
    """Return the number of a state, in whole numbers without a sign."""
    state %= 2**64
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
    return state ^ (state >> 31)


def test_numbers_by_key_are_those_of_splitmix64():
    indices = [0, 1, 10**12]
    key = keys(3, "a name", index=torch.tensor(indices))
    assert torch.equal(keys(3, "a name", index=indices), key)
    base = int.from_bytes(hashlib.sha256(b"3 a name").digest()[:8], "big")
    known = [splitmix64(index * STEP + base) for index in indices]
    assert [value % 2**64 for value in key.tolist()] == known
    assert keyed_uniform(key, 4).tolist() == [
        [((splitmix64(value + n * STEP) >> 40) + 1) / 2**24 for n in (1, 2, 3, 4)]
        for value in known
    ]


@pytest.mark.parametrize(
    ("draw", "quantile"),
    [
        (keyed_uniform, lambda p: p),
        (keyed_normal, lambda p: torch.special.ndtri(p)),
    ],
)
def test_numbers_by_key_have_their_distribution_within_and_across_keys(
    draw: Callable[..., torch.Tensor], quantile: Callable[[torch.Tensor], torch.Tensor]
):
    many = draw(keys(0, "x", index=torch.arange(200)), 150)
    for values in (many.flatten(), many[:, 0], many[0], many[:, 149]):
        ordered = values.double().sort().values
        steps = (torch.arange(len(values), dtype=torch.float64) + 0.5) / len(values)
        cumulative = ordered if draw is keyed_uniform else torch.special.ndtr(ordered)
        # The Kolmogorov-Smirnov distance stays below 1.95 / sqrt(n) in all but 0.1% of draws.
        assert (cumulative - steps).abs().max() < 1.95 / len(values) ** 0.5
    table = torch.corrcoef(many[:, :20].T) - torch.eye(20)
    assert table.abs().max() < 0.3


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 5)])
def test_numbers_by_key_have_any_shape_that_is_asked_for(shape):
    key = keys(0, "x", index=[1, 2])
    for draw in (keyed_uniform, keyed_normal):
        assert draw(key, *shape).shape == (2, *shape)
        assert draw(key[:0], *shape).shape == (0, *shape)


@pytest.mark.parametrize("config", [FLOW, {**FLOW, "shift": 3.0}, DDPM])
def test_timesteps_chosen_by_uniform_numbers_are_distributed_as_those_that_are_drawn(config):
    process = NoiseProcess.from_config(config)
    placed = process.place(keyed_uniform(keys(0, "t", index=[0]), 40_000)[0])
    by_generator = process.draw_indices(40_000, generator=torch.Generator().manual_seed(0))
    assert placed.min() >= 0
    assert placed.max() < len(process)
    shares = [torch.histc(x.double(), 10, 0, len(process)) / len(x) for x in (placed, by_generator)]
    assert (shares[0] - shares[1]).abs().max() < 0.01
    assert process.place(torch.tensor([0.0, 1.0])).tolist() == [0, len(process) - 1]


@pytest.mark.parametrize("config", [FLOW, DDPM, {**DDPM, "beta_schedule": "squaredcos_cap_v2"}])
def test_a_process_that_is_remembered_is_the_one_that_is_read(config):
    with torch.inference_mode():
        NoiseProcess.on({**config, "num_train_timesteps": 77}, "cpu")
    one = NoiseProcess.on({**config, "num_train_timesteps": 77}, "cpu")
    read = NoiseProcess.from_config({**config, "num_train_timesteps": 77})
    assert one is NoiseProcess.on({"num_train_timesteps": 77, **config}, torch.device("cpu"))
    for name, value in vars(read).items():
        same = torch.equal(value, getattr(one, name)) if isinstance(value, torch.Tensor) else None
        assert same or getattr(one, name) == value, name
    x = torch.zeros(5, 2, requires_grad=True)
    one.add_noise(x, torch.ones(5, 2), torch.arange(5)).sum().backward()  # no inference tensor


def test_a_scheduler_is_remembered_as_its_config_is():
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    scheduler = DDPMScheduler(num_train_timesteps=50, clip_sample=False)
    assert len(NoiseProcess.on(scheduler, "cpu")) == 50
    betas = torch.linspace(0.1, 0.2, 5).numpy()
    odd = {**DDPM, "num_train_timesteps": 5, "trained_betas": betas}
    assert torch.equal(NoiseProcess.on(odd, "cpu").alpha, NoiseProcess.from_config(odd).alpha)
