"""Log-likelihoods under a flow: of known densities, of mass 1, with divergences estimated."""

import math
from typing import Any

import pytest
import torch
from heads import make
from torch import Tensor

from contar.heads import make_head
from contar.heads._likelihood import flow_log_density

HEADS: dict[str, dict[str, Any]] = {
    "flow": {"name": "flow"},
    "v": {"name": "flow", "prediction": "v_prediction"},
    "mean flow": {"name": "mean_flow"},
    "flow map": {"name": "flow_map", "norm": "rms"},
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def head_of(name: str, values: int) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head: Any = make_head({"width": 16, "depth": 1, **HEADS[name]}, values, 4)
    return head


@pytest.mark.parametrize("deviation", [0.3, 2.0])
def test_the_density_along_the_flow_of_a_gaussian_is_that_gaussians(deviation):
    def velocity(x: Tensor, cond: Tensor, t: float) -> Tensor:
        variance = ((1 - t) * deviation) ** 2 + t**2
        return (t - (1 - t) * deviation**2) / variance * x

    head, x = make("flow", 2, 4), deviation * torch.randn(50, 2, generator=seeded())
    found = flow_log_density(
        head, x, torch.zeros(50, 4), velocity, like=x, steps=32, probes=0, generator=None
    )
    logs = -0.5 * (x / deviation).square() - math.log(deviation * math.sqrt(2 * math.pi))
    torch.testing.assert_close(found, logs.sum(-1), atol=1e-3, rtol=0)


@pytest.mark.parametrize("prediction", ["flow", "sample", "v_prediction"])
def test_a_heads_density_is_that_of_the_flow_whatever_it_predicts(prediction):
    deviation, steps, first = 0.5, 32, 1e-3
    sizes: Any = {"name": "flow", "width": 8, "depth": 1, "prediction": prediction}
    head: Any = make_head(sizes, 2, 4)
    step = (1 - first) / steps
    times = (first + (i + share) * step for i in range(steps) for share in (0.0, 0.5, 0.5, 1.0))

    def denoise(x: Tensor, modulations: Any) -> Tensor:  # exactly, of tokens N(0, deviation^2)
        t = next(times)
        x_0 = (1 - t) * deviation**2 / (((1 - t) * deviation) ** 2 + t**2) * x
        eps = (x - (1 - t) * x_0) / t
        made = {"sample": x_0, "flow": eps - x_0, "v_prediction": (1 - t) * eps - t * x_0}
        return made[prediction]

    head.network.denoise = denoise
    x = deviation * torch.randn(50, 2, generator=seeded())
    found = head.log_density(x, torch.zeros(50, 4), steps=steps)
    there = math.hypot((1 - first) * deviation, first)  # the least noise that is learned on
    logs = -0.5 * (x / there).square() - math.log(there * math.sqrt(2 * math.pi))
    torch.testing.assert_close(found, logs.sum(-1), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", HEADS)
def test_a_flows_density_has_mass_1_whatever_its_weights(name):
    grid = torch.linspace(-12, 12, 600)[:, None]
    cond = torch.randn(4, generator=seeded()).expand(len(grid), -1)
    density = head_of(name, 1).log_density(grid, cond, steps=64).exp()
    assert (density.sum() * 24 / 599).item() == pytest.approx(1, abs=5e-3)


def test_estimated_divergences_are_right_in_the_mean_and_follow_the_generator():
    head = head_of("flow", 3)
    x, cond = torch.randn(2, 4, 3, generator=seeded()), torch.randn(2, 4, 4, generator=seeded(1))
    options: Any = {"steps": 4}
    exact = head.log_density(x, cond, **options)
    assert exact.shape == (2, 4)
    estimated = head.log_density(x, cond, probes=400, generator=seeded(), **options)
    one, again = (head.log_density(x, cond, probes=1, generator=seeded(), **options) for _ in "12")
    assert torch.equal(one, again)
    error = (one - exact).abs().mean()
    assert error > 1e-3
    assert (estimated - exact).abs().mean() < error / 8  # 400 probes leave a twentieth of it


def test_likelihoods_leave_no_gradients_and_are_made_in_inference_too():
    head, x, cond = head_of("flow", 2), torch.zeros(3, 2), torch.zeros(3, 4)
    plain = head.log_density(x, cond, steps=2)
    assert not plain.requires_grad
    assert all(p.grad is None for p in head.parameters())
    with torch.inference_mode():
        torch.testing.assert_close(head.log_density(x + 0, cond + 0, steps=2), plain)


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("x", "(3, 3)", {"x": torch.zeros(3, 3)}),
        ("cond", "(2, 4)", {"cond": torch.zeros(2, 4)}),
        ("steps", "0", {"steps": 0}),
        ("probes", "-1", {"probes": -1}),
        ("generator", "int", {"generator": 3}),
    ],
)
def test_a_likelihood_refuses_what_does_not_fit(argument, came, changes, refuses):
    with refuses(argument, came):
        head_of("flow", 2).log_density(
            **{"x": torch.zeros(3, 2), "cond": torch.zeros(3, 4), **changes}
        )


def test_a_head_without_a_velocity_has_no_likelihood(refuses):
    with refuses("scheduler"):
        make("ddpm", 2, 4).log_density(torch.zeros(3, 2), torch.zeros(3, 4))


@pytest.mark.parametrize("name", HEADS)
def test_a_token_alone_has_the_density_that_it_has_among_others(name):
    head = head_of(name, 2)
    x, cond = torch.randn(3, 2, generator=seeded()), torch.randn(3, 4, generator=seeded(1))
    among = head.log_density(x, cond, steps=2)
    torch.testing.assert_close(head.log_density(x[1], cond[1], steps=2), among[1])
