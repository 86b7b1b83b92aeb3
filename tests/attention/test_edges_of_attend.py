"""One answer of all backends where a mask is short, a query sees nothing, or scores are large."""

import math
import sys
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from contar.attention import BlockLayout, _kernels, attend, dense_mask, prepare_mask
from contar.attention._kernels import _blindfold, _plain, _xformers

BACKENDS: list[Any] = [None, "plain", "sdpa"]
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def draw(dtype: torch.dtype = torch.float32, queries: int = 4, keys: int = 3) -> list[Tensor]:
    draws = torch.Generator().manual_seed(0)
    shapes = [(2, 2, count, 8) for count in (queries, keys, keys)]
    return [torch.randn(shape, generator=draws).to(dtype) for shape in shapes]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mask_of_one_axis_says_which_keys_all_queries_see(backend: Any) -> None:
    q, k, v = draw()
    mask = torch.tensor([True, True, False])
    expected = attend(q, k[:, :, :2], v[:, :, :2], backend="plain")
    torch.testing.assert_close(attend(q, k, v, mask=mask, backend=backend), expected)
    one, none = torch.tensor(True), torch.tensor([False])
    whole = attend(q, k, v, backend="plain")
    torch.testing.assert_close(attend(q, k, v, mask=one, backend=backend), whole)
    assert not attend(q, k, v, mask=none, backend=backend).any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(4, 3), (2, 1, 4, 3), (1, 2, 4, 1), (2, 1, 1, 1)])
def test_a_query_that_sees_nothing_gets_0_and_gives_no_gradient(
    backend: Any, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    mask = torch.ones(shape, dtype=torch.bool)
    mask[(0,) * (len(shape) - 2)][0] = False  # of the first sample, the first query or all
    seen = mask.expand(2, 2, 4, 3).any(-1)
    inputs = [x.requires_grad_() for x in draw(dtype)]
    out = attend(*inputs, mask=mask, backend=backend)
    gradients = torch.autograd.grad(out.float().square().sum(), inputs)
    assert not out[~seen].any()
    assert out[seen].all()
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert not gradients[0][~seen].any()


@pytest.mark.parametrize("shape", [(4, 3), (2, 1, 4, 3), (1, 2, 4, 1), (2, 1, 1, 1)])
def test_a_gpu_s_kernel_never_meets_a_query_that_sees_nothing(shape: tuple[int, ...]) -> None:
    mask = torch.ones(shape, dtype=torch.bool)
    mask[(0,) * (len(shape) - 2)][0] = False
    attention, met = torch.nn.functional.scaled_dot_product_attention, []

    def kernel(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor) -> Tensor:
        met.append(bool(attn_mask.any(-1).all()))
        return attention(q, k, v, attn_mask=attn_mask)

    results = []
    for run in (_plain, _blindfold):
        inputs = [x.requires_grad_() for x in draw()]
        with mock.patch("torch.nn.functional.scaled_dot_product_attention", kernel):
            out = run(*inputs, mask)  # type: ignore[reportCallIssue]
        results.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
    assert met == [True]


@pytest.mark.parametrize(("device", "kept"), [("cpu", False), ("meta", True)])
def test_only_a_cpus_kernel_meets_queries_that_see_nothing(device: str, kept: bool) -> None:
    inputs = [x.to(device) for x in draw()]
    mask = torch.ones(4, 3, dtype=torch.bool, device=device)
    with mock.patch.object(_kernels, "_blindfold", wraps=_blindfold) as blindfold:
        assert attend(*inputs, mask=mask).shape == inputs[0].shape
    assert blindfold.called == kept


@pytest.mark.parametrize(
    ("dtype", "masked", "learns", "taken"),
    [
        (torch.bfloat16, False, False, True),
        (torch.bfloat16, True, False, False),
        (torch.bfloat16, False, True, False),
        (torch.float32, False, False, False),
    ],
)
def test_products_by_themselves_are_for_bfloat16_that_sees_all_and_learns_nothing(
    dtype: torch.dtype, masked: bool, learns: bool, taken: bool
) -> None:
    q, k, v = (x.requires_grad_(learns) for x in draw(dtype, queries=64, keys=64))
    mask = torch.ones(64, 64, dtype=torch.bool) if masked else None
    with mock.patch.object(_kernels, "_by_products", wraps=_kernels._by_products) as products:
        attend(q, k, v, mask=mask)
    assert products.called == taken


@pytest.mark.parametrize(
    ("dtype", "keys", "learns", "taken"),
    [
        (torch.bfloat16, 512, True, True),
        (torch.bfloat16, 513, True, False),
        (torch.bfloat16, 16, False, False),
        (torch.float32, 16, True, False),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_with_gradients_the_formula_is_for_bfloat16_of_not_too_many_keys(
    dtype: torch.dtype, keys: int, learns: bool, taken: bool, masked: bool
) -> None:
    q, k, v = (x.requires_grad_(learns) for x in draw(dtype, queries=4, keys=keys))
    mask = torch.ones(4, keys, dtype=torch.bool) if masked else None
    with mock.patch.object(_kernels, "_plain", wraps=_kernels._plain) as formula:
        attend(q, k, v, mask=mask)
    assert formula.called == taken


def test_flex_gives_0_to_a_query_that_sees_nothing() -> None:
    q, k, v = draw()
    mask = create_block_mask(lambda b, h, i, j: (i > 0) & (j < 2), None, None, 4, 3, device="cpu")
    out = attend(q, k, v, mask=mask)
    assert not out[:, :, 0].any()
    expected = attend(q, k, v, mask=torch.tensor([True, True, False]))
    torch.testing.assert_close(out[:, :, 1:], expected[:, :, 1:])


@pytest.mark.parametrize("backend", [*BACKENDS, "flex"])
@pytest.mark.parametrize("masked", [False, True])
def test_float16_products_above_its_largest_number_are_scaled_before_they_overflow(
    backend: Any, masked: bool
) -> None:
    q, k, v = draw(torch.float16, queries=3)
    q[..., 0], k[..., 0] = 300.0, 300.0  # a product of 90,000, whose scaled score is 31,820
    mask = torch.ones(3, 3, dtype=torch.bool).tril() if masked and backend != "flex" else None
    exact = attend(*(x.double() for x in (q, k, v)), mask=mask, backend="plain")
    out = attend(q, k, v, mask=mask, backend=backend)
    assert out.dtype == torch.float16
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=5e-3)
    if backend != "flex":
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        result = attend(*inputs, mask=mask, backend=backend)
        gradients = torch.autograd.grad(result.float().sum(), inputs)
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_score_beyond_float16_is_no_infinity() -> None:
    q = torch.full((1, 1, 2, 64), 200.0, dtype=torch.float16)
    k = q.clone()
    k[:, :, 1] = 199.0
    v = torch.eye(2, 64, dtype=torch.float16)[None, None]
    assert 200 * 200 * 64 / math.sqrt(64) > torch.finfo(torch.float16).max
    for backend in (*BACKENDS, "flex"):
        out = attend(q, k, v, backend=backend)
        assert torch.equal(out[..., :2], torch.tensor([[[[1.0, 0.0]] * 2]]).half())


def test_attending_counts_no_devices_which_a_compiled_graph_of_a_gpu_cannot_do(monkeypatch):
    def count(*_):
        raise AssertionError("devices are counted")

    module = sys.modules["contar.attention.attending"]  # beside the function of its name
    monkeypatch.setattr(module, "check_device", count)
    q = torch.zeros(1, 1, 2, 8)
    assert attend(q, q, q).shape == q.shape
    assert attend(q, q, q, backend="plain").shape == q.shape


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("layout", [BlockLayout((2, 1, 3), cached=1), BlockLayout((1, 2, 1), 2)])
def test_xformers_gets_the_samples_end_to_end_and_gives_them_back_in_their_places(
    layout: BlockLayout, batch: int
) -> None:
    ops = pytest.importorskip("xformers.ops")

    def kernel(q: Tensor, k: Tensor, v: Tensor, attn_bias: Any) -> Tensor:  # [1, b·n, s, k]
        seen = attn_bias.materialize((1, q.shape[1], k.shape[1]))[0] == 0
        out = _plain(*(x.transpose(1, 2) for x in (q, k, v)), seen)  # type: ignore[reportCallIssue]
        return out.transpose(1, 2).contiguous()

    draws = torch.Generator().manual_seed(0)
    counts = (layout.queries, layout.keys, layout.keys)
    q, k, v = (torch.randn(batch, 2, count, 8, generator=draws) for count in counts)
    with mock.patch.object(ops, "memory_efficient_attention", kernel):
        out = _xformers(q, k, v, layout)
    torch.testing.assert_close(out, attend(q, k, v, mask=layout, backend="plain"))


def test_xformers_without_a_mask_gets_each_sample_by_itself() -> None:
    ops = pytest.importorskip("xformers.ops")

    def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # [b, n, s, k]
        return _plain(*(x.transpose(1, 2) for x in (q, k, v)), None).transpose(1, 2)  # type: ignore[reportCallIssue]

    q, k, v = draw()
    with mock.patch.object(ops, "memory_efficient_attention", kernel):
        torch.testing.assert_close(_xformers(q, k, v, None), attend(q, k, v, backend="plain"))


def test_a_mask_is_prepared_once_in_the_form_that_its_backend_reads() -> None:
    small, fine, coarse = (BlockLayout(sizes) for sizes in ((2, 1, 3), (127, 128), (128, 128)))
    for layout in (small, fine, coarse):
        assert prepare_mask(layout, "xformers", "cpu") is layout
        assert isinstance(prepare_mask(layout, "flex", "cpu"), BlockMask)
        assert torch.equal(prepare_mask(layout, "plain", "cpu"), dense_mask(layout))  # type: ignore[reportArgumentType]
    for backend in (None, "sdpa"):
        for layout in (small, fine):
            assert torch.equal(prepare_mask(layout, backend, "cpu"), dense_mask(layout))  # type: ignore[reportArgumentType]
        assert prepare_mask(coarse, backend, "cpu") is coarse  # to each block its own call
    for backend in (None, *BACKENDS, "flex", "xformers"):
        for all_seen in (None, BlockLayout((4,)), BlockLayout((2, 3), cached=1)):
            assert prepare_mask(all_seen, backend, "cpu") is None
