"""Token heads: tokens of a set x steps x width x batch, sampling with guidance."""

import copy
from typing import Any

import pytest
import torch
from machine import HEADS as SIZES
from oracles import close, largest, plain

from contar.conditioning import Guidance
from contar.cpu import speed_up
from contar.heads import Noise, make_head

COND, VALUES = 384, 16


def named(size):
    width, depth, values, _ = SIZES[size]
    return f"{size.replace('-', ' ')} {depth} x {width} for {values} values"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("steps", [1, 4, 25], ids="{} steps".format)
@pytest.mark.parametrize("tokens", [1, 16, 256, 4096], ids="{} tokens".format)
@pytest.mark.parametrize("size", SIZES, ids=named)
def test_diffusion_mlp_samples_a_set(row, size, tokens, steps, dtype, device):
    width, depth, values, cond_width = SIZES[size]
    if device == "cpu" and tokens * steps * depth * width**2 > 2**34:
        pytest.skip("of the size of a GPU's work")
    generator = torch.Generator().manual_seed(0)
    named = {"name": "flow", "width": width, "depth": depth, "steps": steps}
    head: Any = make_head(named, values, cond_width)
    head = speed_up(head.to(device, getattr(torch, dtype)))
    like = head.network.token.weight
    cond, uncond = torch.randn(2, 1, tokens, cond_width, generator=generator).to(like)
    start = torch.randn(1, tokens, values, generator=generator).to(device)

    class Start(Noise):
        def __init__(self) -> None:
            pass

        def normal(self, *shape: int) -> torch.Tensor:
            return start

    def sample():
        return head.sample(cond, uncond=uncond, guidance=Guidance(5.0), noise=Start())

    def check(result):
        """Written out in float32: every step by the network's own forward."""
        net = copy.deepcopy(head.network).float()
        with plain():
            condition = net.condition(torch.cat([cond, uncond]).float())

            def predict(x, timestep):
                time = torch.full((1, 1), timestep, device=device)
                both = net(torch.cat([x, x]), time, condition)
                return both[1:] + 5.0 * (both[:1] - both[1:])

            wanted = head.table().sample(predict, start.float(), start.float)
        allowed = 1e-3 if dtype == "float32" else 0.2
        error = largest(result, wanted)
        assert error < allowed, error
        return error

    with torch.no_grad():
        row(sample, check, device=device, dtype=dtype)


HEADS: dict[str, dict[str, Any]] = {
    "ddpm-50": {"name": "diffusion", "width": 640, "depth": 3, "steps": 50},
    "flow-25": {"name": "flow", "width": 640, "depth": 3, "steps": 25},
    "mixture": {"name": "mixture", "components": 24, "width": 640},
    "energy": {"name": "energy", "width": 640, "depth": 3},
    "mean-flow-2": {"name": "mean_flow", "width": 640, "depth": 3, "steps": 2},
}


@pytest.mark.parametrize("kind", HEADS)
def test_heads_of_like_size_draw_16_tokens(row, kind, device):
    head: Any = make_head(HEADS[kind], VALUES, COND)
    head = speed_up(head.to(device))
    cond = torch.randn(1, 16, COND, generator=torch.Generator().manual_seed(0)).to(device)

    def sample():
        return head.sample(cond, noise=torch.Generator().manual_seed(1))

    def check(result):
        with plain():
            torch.testing.assert_close(result, sample(), **close("float32"))

    with torch.no_grad():
        row(sample, check, device=device)
