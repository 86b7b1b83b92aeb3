"""Block-causal attention: layouts x backends x types, forward and backward."""

from typing import Any

import pytest
import torch
from oracles import largest

from contar.attention import BlockLayout, attend, dense_mask, prepare_mask, why_unavailable

LAYOUTS = {
    "3 frames of 64, prefix 16": (3, 64, 16),
    "9 frames of 64, prefix 64": (9, 64, 64),
    "9 frames of 360, prefix 258": (9, 360, 258),
}
HEADS, WIDTH = 16, 64


def inputs(layout, device, dtype):
    frames, tokens, prefix = LAYOUTS[layout]
    blocks = BlockLayout((prefix + tokens, *[tokens] * (frames - 1)))
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(3, 1, HEADS, blocks.keys, WIDTH, generator=generator)
    return blocks, qkv.to(device, getattr(torch, dtype))


def masked(blocks, backend, device):
    """Return the backend's name for `attend` and its mask; "dense" is sdpa with a dense mask."""
    if backend == "dense":
        return "sdpa", dense_mask(blocks, device)
    if (reason := why_unavailable(backend, device)) is not None:
        pytest.skip(reason)
    return backend, prepare_mask(blocks, backend, device)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("backend", ["plain", "dense", "sdpa", "flex", "xformers"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=f"{{}}, {HEADS} heads of {WIDTH}".format)
def test_forward(row, layout, backend, dtype, device):
    if backend == "flex" and device == "cpu":
        pytest.skip("not fused on the CPU: the plain formula")
    blocks, (q, k, v) = inputs(layout, device, dtype)
    name: Any
    name, mask = masked(blocks, backend, device)
    expected = attend(*(x.float() for x in (q, k, v)), mask=blocks, backend="plain")
    close: Any = (
        {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {"rtol": 0.05, "atol": 0.02}
    )

    def check(result):
        torch.testing.assert_close(result.float(), expected, **close)
        return largest(result, expected)

    def run():
        return attend(q, k, v, mask=mask, backend=name)

    def dense():
        return attend(q, k, v, mask=written, backend="sdpa")

    written = dense_mask(blocks, device)
    baseline = None if backend == "dense" else dense
    with torch.no_grad():
        row(run, check, device=device, dtype=dtype, baseline=baseline)


@pytest.mark.parametrize("backend", ["dense", "sdpa", "flex"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=f"{{}}, {HEADS} heads of {WIDTH}".format)
def test_making_the_mask(row, layout, backend, device):
    blocks, _ = inputs(layout, device, "float32")
    row(lambda: masked(blocks, backend, device), lambda _: None, device=device)


@pytest.mark.parametrize("backend", ["dense", "sdpa"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=f"{{}}, {HEADS} heads of {WIDTH}".format)
def test_forward_and_backward(row, layout, backend, device):
    blocks, qkv = inputs(layout, device, "float32")
    name: Any
    name, mask = masked(blocks, backend, device)
    q, k, v = (x.clone().requires_grad_() for x in qkv)
    weight = torch.randn(q.shape, generator=torch.Generator().manual_seed(1)).to(device)

    def run(mask=mask, backend=name):
        out = attend(q, k, v, mask=mask, backend=backend)
        return torch.autograd.grad(out, (q, k, v), weight)

    def check(result):
        for ours, plain in zip(result, run(blocks, "plain"), strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-4)

    row(run, check, device=device)
