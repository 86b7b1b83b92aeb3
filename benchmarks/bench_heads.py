"""Token heads: tokens of a set x steps x width x batch, sampling with guidance."""

from typing import Any

import pytest
import torch
from oracles import close, plain

from contar.conditioning import Guidance
from contar.heads import Noise, make_head

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
    named = {"name": "flow", "width": width, "depth": 3, "steps": steps}
    head: Any = make_head(named, VALUES, COND).to(device, getattr(torch, dtype))  # type: ignore[attr-defined]
    cond, uncond = torch.randn(2, batch, tokens, COND, generator=generator).to(
        head.network.token.weight
    )
    start = torch.randn(batch, tokens, VALUES, generator=generator).to(device)

    class Start(Noise):
        def __init__(self, order: Any) -> None:
            self.order = order

        def normal(self, *shape: int) -> torch.Tensor:
            return start[:, self.order]

    def sample(order: Any = slice(None)):
        parts: Any = {"uncond": uncond[:, order], "noise": Start(order)}
        return head.sample(cond[:, order], guidance=Guidance(5.0), **parts)

    def check(result):
        """Tokens are independent: the other way round they come out the other way round."""
        backwards = torch.arange(tokens).flip(0)
        allowed = 1e-3 if dtype == "float32" else 0.2
        torch.testing.assert_close(
            result, sample(backwards)[:, backwards], rtol=allowed, atol=allowed
        )

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
    head: Any = make_head(HEADS[kind], VALUES, COND).to(device)  # type: ignore[attr-defined]
    cond = torch.randn(1, 16, COND, generator=torch.Generator().manual_seed(0)).to(device)

    def sample():
        return head.sample(cond, noise=torch.Generator().manual_seed(1))

    def check(result):
        with plain():
            torch.testing.assert_close(result, sample(), **close("float32"))

    with torch.no_grad():
        row(sample, check, device=device)
