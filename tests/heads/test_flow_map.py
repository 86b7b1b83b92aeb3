"""The flow map's loss: its derivatives, its parts, its shares and its weighting."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor

from contar.heads import FlowMapHead, flow_map

FORMS: list[dict[str, Any]] = [
    {"prenorm": True, "projection": "linear", "time_norm": "deviation"},
    {"time_norm": "rms"},
    {"norm": "rms", "gated": True, "hidden": 8, "bias": False},
]


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=draws(seed), dtype=torch.float64)


def double(seed: int = 0, **options: Any) -> FlowMapHead:
    """Return a head in float64 that learns jumps alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes: Any = {"width": 6, "depth": 2, "share": 1.0, "diagonal": 0.0, **options}
        head = FlowMapHead(3, 4, **sizes).double()
        for parameter in head.parameters():  # none may stand where its gradient is 0
            parameter.data += 0.3 * torch.randn_like(parameter)
    return head


@pytest.mark.parametrize("form", FORMS)
def test_gradients_through_the_jvp_are_those_of_finite_differences(form, monkeypatch):
    head = double(**form)
    given = {"noise": randn(1, 2, 5, 3), "times": torch.rand(3, 2, 5, generator=draws(2)).double()}
    token, cond = randn(3, 5, 3), randn(4, 5, 4)
    head.loss(token, cond, repeats=2, generator=draws(), **given).sum().backward()

    frozen = deepcopy(head)  # a jump's target learns nothing
    condition = frozen.network.condition(cond).expand(2, -1, -1).flatten(0, 1)
    monkeypatch.setattr(
        flow_map, "functional_call", lambda _, __, inputs: frozen(*inputs[:3], condition)
    )

    @torch.no_grad()
    def loss_at(parameter: Tensor, step: Tensor) -> float:
        kept = parameter.clone()
        parameter += step
        loss = head.loss(token, cond, repeats=2, generator=draws(), **given).sum()
        parameter.copy_(kept)
        return float(loss)

    for name, parameter in head.named_parameters():
        step = 1e-6 * torch.randn(parameter.shape, generator=draws(5), dtype=torch.float64)
        found = (loss_at(parameter, step) - loss_at(parameter, -step)) / 2e-6
        assert parameter.grad is not None
        wanted = float((parameter.grad * step).sum()) / 1e-6
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-5), name


def test_a_jump_is_asked_to_go_on_with_the_flow_from_where_it_ends():
    head = double(weighting=0)
    noise, times = randn(1, 1, 5, 3), torch.rand(3, 1, 5, generator=draws(2)).double()
    token, cond = randn(3, 5, 3), randn(4, 5, 4)
    condition = head.network.condition(cond)[None]
    start, end = times[1:].sort(0).values
    x = noise + start[..., None] * (token - noise)

    def jump(end: Tensor) -> Tensor:
        return x + (end - start)[..., None] * head(x, start, end, condition)

    step = 1e-5
    moved = (jump(end + step) - jump(end - step)) / (2 * step)
    wanted = (moved - head(jump(end), end, end, condition)).square().mean(-1)
    found = head.loss(token, cond, noise=noise, times=times)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)


def test_the_flows_own_loss_is_that_of_the_velocity_on_the_diagonal():
    head = double(share=0.0, diagonal=0.5, weighting=0)
    noise, times = randn(1, 1, 5, 3), torch.rand(3, 1, 5, generator=draws(2)).double()
    token, cond = randn(3, 5, 3), randn(4, 5, 4)
    t = times[0, ..., None]
    velocity = head(
        (1 - t) * noise + t * token, times[0], times[0], head.network.condition(cond)[None]
    )
    wanted = 0.5 * (velocity - (token - noise)).square().mean(-1)
    torch.testing.assert_close(head.loss(token, cond, noise=noise, times=times), wanted)


def test_a_share_of_the_draws_stands_for_all():
    head, token, cond = double(), randn(3, 4, 3), randn(4, 4, 4)
    options: Any = {"repeats": 4000, "times": None, "noise": None}
    whole = head.loss(token, cond, generator=draws(), **options)
    head.share = 0.25
    part = head.loss(token, cond, generator=draws(), **options)
    learned = part != 0
    assert learned.double().mean() == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close(part[learned], 4 * whole[learned])


def test_the_weight_learns_the_mean_of_a_loss_and_begins_as_1():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weighed, plain = (FlowMapHead(3, 4, width=6, depth=1, weighting=w) for w in (8, 0))
    plain.load_state_dict(weighed.state_dict(), strict=False)
    token, cond = torch.randn(4, 3, generator=draws(3)), torch.randn(4, 4, generator=draws(4))
    losses = [head.loss(token, cond, generator=draws()) for head in (weighed, plain)]
    torch.testing.assert_close(*losses)
    last: Any = weighed.weighting
    losses[0].sum().backward()
    learning = [p for p in last.parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert [id(p) for p in learning] == [id(last[-1].bias)]  # one weight for all times
    constant = torch.tensor([2.0, 6.0])  # whose mean is 4, so that w is -log 4
    optimizer = torch.optim.Adam([last[-1].bias], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        weighed._weighted(constant, torch.zeros(2), torch.ones(2)).sum().backward()
        optimizer.step()
    assert last[-1].bias.exp().item() == pytest.approx(1 / 4, rel=1e-3)


def test_a_target_that_is_a_constant_is_not_learned_through():
    grads = []
    for through in (True, False):
        head = double(through_target=through)
        loss = head.loss(randn(3, 5, 3), randn(4, 5, 4), generator=draws())
        loss.sum().backward()
        grads.append((loss.detach(), head.network.out.weight.grad))
    torch.testing.assert_close(grads[0][0], grads[1][0])
    assert not torch.allclose(grads[0][1], grads[1][1])


@pytest.mark.parametrize(
    ("argument", "came", "given"),
    [
        ("noise", "(5, 3)", {"noise": torch.zeros(5, 3)}),
        ("times", "(2, 1, 5)", {"times": torch.zeros(2, 1, 5)}),
        ("times", "from 0.0 to 1.5", {"times": torch.linspace(0, 1.5, 15).view(3, 1, 5)}),
        ("times", "from -1.0 to", {"times": torch.linspace(-1, 1, 15).view(3, 1, 5)}),
        (
            "times",
            "nan",
            {"times": torch.tensor([0.5, float("nan"), 0.5])[:, None, None].expand(3, 1, 5)},
        ),
        ("times", "torch.int64", {"times": torch.zeros(3, 1, 5, dtype=torch.int64)}),
    ],
)
def test_what_is_given_instead_of_draws_has_to_fit(argument, came, given, refuses):
    with refuses(argument, came):
        double().loss(randn(3, 5, 3), randn(4, 5, 4), **given)
