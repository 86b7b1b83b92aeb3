"""The laws of attention: one definition of who sees whom, and all that has to agree with it."""

import importlib.util
import itertools
import math
import random
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
import torch.utils.checkpoint
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from contar.attention import (
    BlockLayout,
    KVCache,
    Positions,
    attend,
    dense_mask,
    flex_mask,
    grid_coordinates,
    prepare_mask,
    rotary_sections,
    rotary_table,
    rotate,
    sincos_2d,
    sinusoid,
    why_unavailable,
    xformers_bias,
)
from contar.backbones import TemporalTower

Refuses = Callable[..., AbstractContextManager[None]]

# Flex traces anew where sizes or the window change, about 0.1 s each: the short profile draws few.
# Shrinking a failure would trace for minutes, so that it is left out.
few = settings(
    max_examples=8 if settings().max_examples < 1000 else 1000,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)

# Float64 rounds at 1e-16, float32 at 6e-8; scores stay below about 30 and sums have about 40 terms.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}

seeds = st.integers(0, 2**32 - 1)
dtypes = st.sampled_from(list(TOLERANCE))


@contextmanager
def shape_checks_in_a_strategy() -> Iterator[None]:
    """Hide from Hypothesis that beartype picks with `random` which elements it checks."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


@st.composite
def layouts(draw: st.DrawFn, blocks: int = 6, size: int = 4) -> BlockLayout:
    """Any layout of up to `blocks` blocks of up to `size` tokens; small windows more often."""
    count = draw(st.integers(1, blocks))
    sizes = tuple(draw(st.lists(st.integers(1, size), min_size=count, max_size=count)))
    window = draw(st.none() | st.integers(1, 2) | st.integers(1, count + 1))
    pinned = draw(st.integers(0, 1) | st.integers(0, count))
    cached = draw(st.integers(0, count - 1))
    with shape_checks_in_a_strategy():
        return BlockLayout(sizes, window, pinned, cached)


def cut(draw: st.DrawFn, count: int) -> list[range]:
    """`count` blocks cut into runs of one or more."""
    inner = sorted(draw(st.sets(st.integers(1, count - 1)))) if count > 1 else []
    return [range(start, stop) for start, stop in itertools.pairwise([0, *inner, count])]


@st.composite
def decodings(draw: st.DrawFn) -> tuple[BlockLayout, list[range]]:
    """A layout without cached blocks, and the runs in which its blocks are decoded."""
    layout = draw(layouts())
    with shape_checks_in_a_strategy():
        layout = BlockLayout(layout.sizes, layout.window, layout.pinned)
    return layout, cut(draw, len(layout.sizes))


# The least case in which a window, a pinned block, both together and spans that touch all matter.
WINDOWED = BlockLayout((2, 1, 3, 1, 2), window=2, pinned=1)
UNBOUNDED = BlockLayout((2, 1, 3, 1), cached=1)
ONE_BY_ONE = (WINDOWED, [range(i, i + 1) for i in range(5)])


def sees(layout: BlockLayout, block: int, other: int) -> bool:
    """The definition: not the future; the last `window` blocks, or the first `pinned` ones."""
    if other > block:
        return False
    return layout.window is None or block - other < layout.window or other < layout.pinned


def tokens(layout: BlockLayout, blocks: list[int]) -> list[int]:
    """The tokens of some blocks."""
    ends = [sum(layout.sizes[: block + 1]) for block in range(len(layout.sizes))]
    return [i for block in blocks for i in range(ends[block] - layout.sizes[block], ends[block])]


def seen(layout: BlockLayout, block: int) -> list[int]:
    """The keys that a block sees."""
    return tokens(layout, [b for b in range(len(layout.sizes)) if sees(layout, block, b)])


def seen_matrix(layout: BlockLayout) -> Tensor:
    """The definition as a mask [q, kv]."""
    rows = []
    for block in range(layout.cached, len(layout.sizes)):
        row = torch.zeros(sum(layout.sizes), dtype=torch.bool)
        row[seen(layout, block)] = True
        rows += [row] * layout.sizes[block]
    return torch.stack(rows)


def oracle(layout: BlockLayout, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention block by block, in float64, over the seen keys and no others."""
    q, k, v = q.double(), k.double(), v.double()
    outputs, start = [], 0
    for block in range(layout.cached, len(layout.sizes)):
        stop, keys = start + layout.sizes[block], seen(layout, block)
        scores = torch.einsum("bsqk,bsjk->bsqj", q[:, :, start:stop], k[:, :, keys])
        weights = (scores / math.sqrt(q.shape[-1])).exp()
        weights = weights / weights.sum(dim=-1, keepdim=True)
        outputs.append(torch.einsum("bsqj,bsjk->bsqk", weights, v[:, :, keys]))
        start = stop
    return torch.cat(outputs, dim=2)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_qkv(
    layout: BlockLayout, seed: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Random queries, keys and values for a layout."""
    g = generator(seed)
    lengths = (layout.queries, layout.keys, layout.keys)
    q, k, v = (torch.randn(2, 3, n, 8, generator=g, dtype=dtype) for n in lengths)
    return q, k, v


def assert_close(actual: Tensor, expected: Tensor, tolerance: float | None = None) -> None:
    tolerance = TOLERANCE[actual.dtype] if tolerance is None else tolerance
    torch.testing.assert_close(
        actual, expected, rtol=tolerance, atol=tolerance, check_dtype=False, equal_nan=False
    )


# --- Masks ---------------------------------------------------------------------------------------


@example(WINDOWED)
@given(layouts())
def test_the_dense_mask_is_the_definition(layout: BlockLayout) -> None:
    assert torch.equal(dense_mask(layout), seen_matrix(layout))


@example(WINDOWED)
@given(layouts())
def test_the_flex_mask_is_the_definition(layout: BlockLayout) -> None:
    q, kv = torch.arange(layout.queries)[:, None], torch.arange(layout.keys)
    zero = torch.tensor(0)
    assert torch.equal(flex_mask(layout).mask_mod(zero, zero, q, kv), seen_matrix(layout))


@example(BlockLayout((100, 150, 130, 140), window=1, pinned=1))
@given(layouts(blocks=4, size=150))
def test_the_flex_mask_skips_exactly_the_tiles_in_which_nothing_is_seen(
    layout: BlockLayout,
) -> None:
    mask = flex_mask(layout)
    tiles = mask.to_dense()[0, 0]
    tile = mask.BLOCK_SIZE
    exact = seen_matrix(layout)
    expected = [
        [bool(part.any()) for part in row.split(tile[1], dim=1)] for row in exact.split(tile[0])
    ]
    assert tiles.bool().tolist() == expected


@given(layouts(), st.integers(1, 3))
def test_the_xformers_bias_is_the_definition_within_each_sample(
    layout: BlockLayout, batch: int
) -> None:
    exact = seen_matrix(layout)
    gaps = exact.int().diff(dim=1).eq(1).sum(dim=1) + exact[:, 0].int()  # runs of seen keys
    if int(gaps.max()) > 1:
        with pytest.raises(ValueError, match=r"layout: got .*allowed: for xformers: no window"):
            xformers_bias(layout, batch)
        return
    shape = (1, batch * layout.queries, batch * layout.keys)
    bias = xformers_bias(layout, batch).materialize(shape)[0]
    assert torch.equal(bias == 0, torch.block_diag(*[exact] * batch).bool())
    assert bool(torch.isneginf(bias[bias != 0]).all())


@example(WINDOWED)
@given(layouts())
def test_the_spans_of_a_block_are_the_keys_it_sees_in_order(layout: BlockLayout) -> None:
    for block in range(len(layout.sizes)):
        spans = layout.spans(block)
        assert [i for start, stop in spans for i in range(start, stop)] == seen(layout, block)
        assert all(stop < start for (_, stop), (start, _) in itertools.pairwise(spans))


@given(layouts())
def test_keys_queries_and_starts_count_the_tokens(layout: BlockLayout) -> None:
    every = list(range(len(layout.sizes)))
    assert layout.keys == len(tokens(layout, every))
    assert layout.queries == len(tokens(layout, every[layout.cached :]))
    assert [*layout.starts] == [len(tokens(layout, every[:b])) for b in (*every, len(every))]


# --- Backends ------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["plain", "sdpa"])
@given(layouts(), st.sampled_from(["layout", "dense", "prepared"]), seeds, dtypes)
def test_values_and_gradients_agree_with_a_softmax_written_out(
    backend: Any, layout: BlockLayout, form: str, seed: int, dtype: torch.dtype
) -> None:
    mask = {
        "layout": lambda: layout,
        "dense": lambda: dense_mask(layout),
        "prepared": lambda: prepare_mask(layout, backend, "cpu"),
    }[form]()
    check_values_and_gradients(backend, layout, mask, seed, draw_qkv(layout, seed, dtype))


@example(WINDOWED, 0, torch.float64)
@example(UNBOUNDED, 0, torch.float64)
@given(layouts(), seeds, dtypes)
def test_values_and_gradients_of_blocks_that_attend_one_by_one_agree_with_a_softmax_written_out(
    layout: BlockLayout, seed: int, dtype: torch.dtype
) -> None:
    with mock.patch.object(sys.modules["contar.attention._kernels"], "_COARSE", 0):
        check_values_and_gradients(None, layout, layout, seed, draw_qkv(layout, seed, dtype))


@given(
    st.integers(1, 3), st.integers(1, 200), st.integers(1, 200), st.booleans(), st.integers(0, 99)
)
@example(2, 64, 200, False, 0)
@example(2, 200, 64, True, 0)
def test_in_bfloat16_values_are_as_near_as_the_rounding_of_scores_and_weights_lets_them_be(
    batch: int, queries: int, keys: int, blocks: bool, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(batch, 2, n, 16, generator=g).bfloat16() for n in (queries, keys, keys))
    mask: Any = None
    if blocks and keys > queries:  # the queries are the last block, behind one that is cached
        mask = BlockLayout((keys - queries, queries), cached=1)
    with torch.no_grad():
        result = attend(q, k, v, mask=mask)
    exact = attend(*(x.double() for x in (q, k, v)), mask=mask, backend="plain")
    assert result.dtype == torch.bfloat16
    # A score of at most 5 is rounded by 2 ** -9 of itself, a weight and a value by as much.
    torch.testing.assert_close(result.double(), exact, rtol=0, atol=0.02 * v.abs().max().item())
    if mask is None:  # a backend that is named is that backend
        named = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        assert torch.equal(attend(q, k, v, backend="sdpa"), named)


@given(st.integers(1, 3), st.integers(1, 80), st.integers(1, 80), st.booleans(), st.integers(0, 99))
@example(2, 64, 80, False, 0)
def test_in_bfloat16_gradients_are_as_near_as_its_rounding_lets_them_be(
    batch: int, queries: int, keys: int, blocks: bool, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(batch, 2, n, 16, generator=g).bfloat16() for n in (queries, keys, keys)]
    mask: Any = None
    if blocks and keys > queries:
        mask = BlockLayout((keys - queries, queries), cached=1)
    factors = torch.randn(batch, 2, queries, 16, generator=g)

    def gradients(dtype: torch.dtype, **options: Any) -> Any:
        inputs = [x.to(dtype).requires_grad_() for x in tensors]
        out = attend(*inputs, mask=mask, **options)
        assert out.dtype == dtype
        return torch.autograd.grad((out * factors.to(dtype)).sum(), inputs)

    exact = gradients(torch.float64, backend="plain")
    for grad, near in zip(gradients(torch.bfloat16), exact, strict=True):
        assert grad.dtype == torch.bfloat16
        bound = 0.02 * max(near.abs().max().item(), 1.0)
        torch.testing.assert_close(grad.double(), near, rtol=0, atol=bound)


def test_attention_by_blocks_can_be_recomputed_and_gone_back_through_twice() -> None:
    layout = BlockLayout((128,) * 4)
    q, k, v = (x.requires_grad_() for x in draw_qkv(layout, 0, torch.float32))
    out = attend(q, k, v, mask=layout)
    total = out.square().sum()
    first, again = (torch.autograd.grad(total, k, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, again)
    ran: list[int] = []

    def attention(q: Any, k: Any, v: Any) -> Any:
        ran.append(1)
        return attend(q, k, v, mask=layout)

    out = torch.utils.checkpoint.checkpoint(attention, q, k, v, use_reentrant=False)
    assert isinstance(out, torch.Tensor)
    (recomputed,) = torch.autograd.grad(out.square().sum(), k)
    assert len(ran) == 2
    assert torch.equal(recomputed, first)


def check_values_and_gradients(
    backend: Any, layout: BlockLayout, mask: Any, seed: int, inputs: Any
) -> None:
    ours = [x.clone().requires_grad_() for x in inputs]
    theirs = [x.double().requires_grad_() for x in inputs]
    out = attend(*ours, mask=mask, backend=backend)
    expected = oracle(layout, *theirs)
    assert_close(out, expected)
    weight = torch.randn(out.shape, generator=generator(seed + 1), dtype=torch.float64)
    gradients = torch.autograd.grad((out.double() * weight).sum(), ours)
    for actual, exact in zip(
        gradients, torch.autograd.grad((expected * weight).sum(), theirs), strict=True
    ):
        assert_close(actual, exact)


@few
@given(layouts(), seeds, st.sampled_from(["layout", "flex_mask", "prepared"]))
def test_flex_agrees_with_a_softmax_written_out(layout: BlockLayout, seed: int, form: str) -> None:
    mask = {
        "layout": lambda: layout,
        "flex_mask": lambda: flex_mask(layout),
        "prepared": lambda: prepare_mask(layout, "flex", "cpu"),
    }[form]()
    q, k, v = draw_qkv(layout, seed, torch.float32)
    assert_close(attend(q, k, v, mask=mask, backend="flex"), oracle(layout, q, k, v))
    if form == "flex_mask":
        assert_close(attend(q, k, v, mask=mask), oracle(layout, q, k, v))


@given(layouts(), seeds)
def test_a_mask_that_broadcasts_over_samples_and_heads_is_each_sample_s_own(
    layout: BlockLayout, seed: int
) -> None:
    q, k, v = draw_qkv(layout, seed)
    other = BlockLayout(layout.sizes, 1, 0, layout.cached)  # only the own block
    both = torch.stack([seen_matrix(layout), seen_matrix(other)])[:, None]
    expected = [
        oracle(m, *(x[i : i + 1] for x in (q, k, v))) for i, m in enumerate((layout, other))
    ]
    for backend in ("plain", "sdpa"):
        assert_close(attend(q, k, v, mask=both, backend=backend), torch.cat(expected))


@given(st.integers(1, 5), st.integers(1, 5), seeds)
def test_without_a_mask_every_query_sees_every_key(queries: int, keys: int, seed: int) -> None:
    layout = BlockLayout((keys, queries), cached=1)  # its one block of queries sees all keys
    q, k, v = draw_qkv(layout, seed)
    assert prepare_mask(layout, None, "cpu") is None
    for backend in ("plain", "sdpa"):
        assert_close(attend(q, k, v, backend=backend), oracle(layout, q, k, v))


@given(layouts(), seeds)
def test_without_a_choice_a_layout_or_a_tensor_is_read_by_sdpa(
    layout: BlockLayout, seed: int
) -> None:
    inputs = draw_qkv(layout, seed, torch.float32)
    expected = attend(*inputs, mask=layout, backend="sdpa")
    for mask in (layout, dense_mask(layout), prepare_mask(layout, None, "cpu")):
        assert torch.equal(attend(*inputs, mask=mask), expected)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_flex_refuses_gradients_on_the_cpu(refuses: Refuses, which: int) -> None:
    layout = BlockLayout((2, 1))
    inputs = draw_qkv(layout, 0, torch.float32)
    inputs[which].requires_grad_()
    with refuses("backend", "flex", "no gradients on cpu"):
        attend(*inputs, mask=layout, backend="flex")
    with torch.no_grad():
        assert_close(attend(*inputs, mask=layout, backend="flex"), oracle(layout, *inputs))


def test_xformers_refuses_the_cpu_and_says_why(refuses: Refuses) -> None:
    pytest.importorskip("xformers")
    layout = BlockLayout((2, 1))
    with refuses("backend", "xformers has no attention for cpu", "only for cuda"):
        attend(*draw_qkv(layout, 0), mask=layout, backend="xformers")


def test_xformers_refuses_where_it_is_not_installed_and_says_how_to_get_it(
    refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    hide = {"xformers": None}
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: hide[n] if n in hide else found(n))
    layout = BlockLayout((2, 1))
    with refuses("backend", "not installed", "contar[xformers]"):
        attend(*draw_qkv(layout, 0), mask=layout, backend="xformers")


def test_why_unavailable_is_none_exactly_for_what_runs_here() -> None:
    q = torch.ones(1, 1, 2, 4)
    for backend in ("plain", "sdpa", "flex", "xformers"):
        reason = why_unavailable(backend, "cpu")
        if reason is None:
            attend(q, q, q, backend=backend)
        else:
            with pytest.raises(ValueError, match=re.escape(reason)):
                attend(q, q, q, backend=backend)


def test_an_explicit_backend_refuses_a_mask_it_cannot_honour(refuses: Refuses) -> None:
    layout = BlockLayout((2, 1))
    inputs = draw_qkv(layout, 0, torch.float32)
    for backend in ("plain", "sdpa"):
        with refuses("mask", "BlockMask", backend):
            attend(*inputs, mask=flex_mask(layout), backend=backend)
    with refuses("mask", "a tensor", "flex"):
        attend(*inputs, mask=dense_mask(layout), backend="flex")


@pytest.mark.parametrize("form", [BlockLayout, lambda s: dense_mask(BlockLayout(s)), "flex"])
def test_a_mask_of_other_lengths_is_refused(refuses: Refuses, form: Any) -> None:
    make = (lambda s: flex_mask(BlockLayout(s))) if form == "flex" else form
    with refuses("mask", "3"):
        attend(*draw_qkv(BlockLayout((2, 1)), 0), mask=make((2, 2)))


# --- Causality -----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["plain", "sdpa"])
@given(layouts(), seeds, dtypes, st.data())
def test_changing_a_block_changes_the_blocks_that_see_it_and_no_other(
    backend: Any, layout: BlockLayout, seed: int, dtype: torch.dtype, data: st.DataObject
) -> None:
    changed = data.draw(st.integers(0, len(layout.sizes) - 1), label="block")
    before = draw_qkv(layout, seed, dtype)
    noise = draw_qkv(layout, seed + 1, dtype)
    after = [x.clone() for x in before]
    cached = sum(layout.sizes[: layout.cached])
    for i in tokens(layout, [changed]):
        for x, new in zip(after[1:], noise[1:], strict=True):
            x[:, :, i] = new[:, :, i]
        if i >= cached:
            after[0][:, :, i - cached] = noise[0][:, :, i - cached]
    out = [attend(*x, mask=layout, backend=backend) for x in (before, after)]
    sizes = layout.sizes[layout.cached :]
    pairs = zip(*(x.split(sizes, dim=2) for x in out), strict=True)
    for block, (old, new) in enumerate(pairs, layout.cached):
        # To the bit: a key that is not seen has a weight of exactly 0.
        assert torch.equal(old, new) != sees(layout, block, changed)


def tiny_tower(seed: int, depth: int = 2) -> TemporalTower:
    """A tower with weights from a seed."""
    tower, g = TemporalTower(depth=depth, width=16, heads=2, mlp_ratio=2.0), generator(seed)
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g) * 0.3)
    return tower.requires_grad_(False)


@st.composite
def clips(draw: st.DrawFn) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Frames [b, t, n, d], a prefix or none, and their rotary table or none."""
    g, frames, n = generator(draw(seeds)), draw(st.integers(1, 6)), draw(st.integers(1, 3))
    x = torch.randn(2, frames, n, 16, generator=g)
    length = draw(st.integers(0, 3))
    prefix = torch.randn(2, length, 16, generator=g) if length else None
    if draw(st.booleans()):
        return x, prefix, None
    with shape_checks_in_a_strategy():
        table = rotary_table(grid_coordinates(frames, 1, n), 8, sections=(4, 2, 2))
        return x, prefix, Positions(rope=table).shifted(length).rope


@given(clips(), seeds, st.none() | st.integers(1, 4), st.integers(0, 2), st.data())
def test_in_the_temporal_tower_changing_a_frame_changes_it_and_none_before(
    clip: tuple[Tensor, Tensor | None, Tensor | None],
    seed: int,
    window: int | None,
    pinned: int,
    data: st.DataObject,
) -> None:
    frames, prefix, rope = clip
    changed = data.draw(st.integers(0, frames.shape[1] - 1), label="frame")
    other = frames.clone()
    other[:, changed] = 1 - frames[:, changed]
    tower = tiny_tower(seed)
    options = {"prefix": prefix, "rope": rope, "window": window, "pinned": pinned}
    old, new = tower(frames, **options), tower(other, **options)
    # To the bit: the same operations on the same numbers.
    assert torch.equal(old[:, :changed], new[:, :changed])
    assert not torch.equal(old[:, changed], new[:, changed])


@given(clips(), seeds, st.integers(1, 4), st.integers(0, 2), st.data())
def test_one_layer_of_the_temporal_tower_carries_a_frame_to_those_that_see_it_and_no_other(
    clip: tuple[Tensor, Tensor | None, Tensor | None],
    seed: int,
    window: int,
    pinned: int,
    data: st.DataObject,
) -> None:
    frames, prefix, rope = clip
    count = frames.shape[1]
    changed = data.draw(st.integers(0, count - 1), label="frame")
    other = frames.clone()
    other[:, changed] = 1 - frames[:, changed]
    tower = tiny_tower(seed, depth=1)
    options = {"prefix": prefix, "rope": rope, "window": window, "pinned": pinned}
    old, new = tower(frames, **options), tower(other, **options)
    layout = BlockLayout((1,) * count, window, pinned)
    for frame in range(count):
        assert torch.equal(old[:, frame], new[:, frame]) != sees(layout, frame, changed)


# --- Cache ---------------------------------------------------------------------------------------


def decode(
    cache: KVCache, layout: BlockLayout, run: range, layers: list[tuple[Tensor, Tensor, Tensor]]
) -> list[Tensor]:
    """Attend the blocks of one run through the cache: one output per layer."""
    new = tokens(layout, list(run))
    step = cache.reserve(*(layout.sizes[block] for block in run))
    outputs = []
    for number, (q, k, v) in enumerate(layers):
        keys, values = cache.write(number, k[:, :, new], v[:, :, new])
        outputs.append(attend(q[:, :, new], keys, values, mask=step))
    return outputs


def room(layout: BlockLayout, runs: list[range]) -> int:
    """The most tokens that a run needs: its own, and the older ones that its first block sees."""
    older = [[b for b in range(run[0]) if sees(layout, run[0], b)] for run in runs]
    return max(len(tokens(layout, [*o, *run])) for o, run in zip(older, runs, strict=True))


def make_cache(layout: BlockLayout, capacity: int, layers: int = 2) -> KVCache:
    return KVCache(
        layers=layers,
        batch=2,
        heads=3,
        width=8,
        capacity=capacity,
        window=layout.window,
        pinned=layout.pinned,
        dtype=torch.float64,
    )


@example(ONE_BY_ONE, 0)
@given(decodings(), seeds)
def test_decoding_with_a_cache_equals_recomputing_wherever_it_is_cut_in_the_least_room(
    decoding: tuple[BlockLayout, list[range]], seed: int
) -> None:
    layout, runs = decoding
    layers = [draw_qkv(layout, seed), draw_qkv(layout, seed + 1)]
    cache = make_cache(layout, room(layout, runs))
    steps = [decode(cache, layout, run, layers) for run in runs]
    for layer, outputs in zip(layers, zip(*steps, strict=True), strict=True):
        assert_close(torch.cat(outputs, dim=2), oracle(layout, *layer))


@example(ONE_BY_ONE, 0)
@given(decodings(), seeds)
def test_two_decodings_may_be_interleaved(
    decoding: tuple[BlockLayout, list[range]], seed: int
) -> None:
    layout, runs = decoding
    both = [[draw_qkv(layout, seed)], [draw_qkv(layout, seed + 1)]]
    caches = [make_cache(layout, layout.keys, layers=1) for _ in both]
    outputs: list[list[Tensor]] = [[], []]
    for run in runs:
        for cache, layers, out in zip(caches, both, outputs, strict=True):
            out += decode(cache, layout, run, layers)
    for layers, out in zip(both, outputs, strict=True):
        assert_close(torch.cat(out, dim=2), oracle(layout, *layers[0]))


@example(ONE_BY_ONE, 0, 1)
@given(decodings(), seeds, st.integers(1, 3))
def test_a_failed_reserve_leaves_the_cache_as_it_was(
    decoding: tuple[BlockLayout, list[range]], seed: int, excess: int
) -> None:
    layout, runs = decoding
    layer = draw_qkv(layout, seed)
    cache = make_cache(layout, room(layout, runs), layers=1)
    outputs = []
    for run in runs:
        for sizes in [(cache.capacity + excess,), (cache.capacity, excess), (1, 0), (-1,), ()]:
            kept = cache.sizes
            with pytest.raises(ValueError, match=r"got .*allowed"):
                cache.reserve(*sizes)
            assert cache.sizes == kept
        outputs += decode(cache, layout, run, [layer])
    assert_close(torch.cat(outputs, dim=2), oracle(layout, *layer))


@example(ONE_BY_ONE)
@given(decodings())
def test_reserve_refuses_one_token_more_than_fits_and_says_how_many_do(
    decoding: tuple[BlockLayout, list[range]],
) -> None:
    layout, runs = decoding
    cache = make_cache(layout, room(layout, runs), layers=1)
    for run in runs[:-1]:
        cache.reserve(*(layout.sizes[block] for block in run))
    first = runs[-1][0]
    older = len(tokens(layout, [b for b in range(first) if sees(layout, first, b)]))
    free = cache.capacity - older
    with pytest.raises(ValueError, match=rf"sizes: got .*at most {free} tokens"):
        cache.reserve(free + 1)
    assert cache.reserve(free).keys == cache.capacity


def test_write_refuses_more_tokens_than_are_reserved(refuses: Refuses) -> None:
    cache = make_cache(BlockLayout((1,)), capacity=4)
    cache.reserve(2)
    kv = torch.zeros(2, 3, 3, 8, dtype=torch.float64)
    with refuses("k, v", "3", "at most 2"):
        cache.write(0, kv, kv)


@given(clips(), seeds, st.none() | st.integers(1, 3), st.integers(0, 2), st.data())
def test_decoding_through_the_temporal_tower_equals_recomputing_wherever_it_is_cut(
    clip: tuple[Tensor, Tensor | None, Tensor | None],
    seed: int,
    window: int | None,
    pinned: int,
    data: st.DataObject,
) -> None:
    frames, prefix, rope = clip
    count, n = frames.shape[1:3]
    length = 0 if prefix is None else prefix.shape[1]
    runs = data.draw(st.composite(cut)(count), label="runs")
    tower = tiny_tower(seed)
    expected = tower(frames, prefix=prefix, rope=rope, window=window, pinned=pinned)
    layout = BlockLayout((length + n, *[n] * (count - 1)), window, pinned)
    cache = tower.allocate_cache(2, room(layout, runs), window=window, pinned=pinned)
    outputs = []
    for run in runs:
        older = [block for block in range(run[0]) if sees(layout, run[0], block)]
        keys = tokens(layout, [*older, *run])
        here = {"rope": None if rope is None else rope[keys], "cache": cache}
        first = prefix if run[0] == 0 else None
        outputs.append(tower(frames[:, run[0] : run[-1] + 1], prefix=first, **here))
    # Float32 rounds at 6e-8; each of the four norms may divide by a deviation down to about 1e-2.
    assert_close(torch.cat(outputs, dim=1), expected, 1e-4)


@given(clips(), seeds, st.none() | st.integers(1, 3), st.integers(0, 2))
def test_a_window_with_retimed_positions_equals_recomputing_with_them(
    clip: tuple[Tensor, Tensor | None, Tensor | None],
    seed: int,
    window: int | None,
    pinned: int,
) -> None:
    """Positions are counted from the oldest block in sight, whatever they were when it was new."""
    frames, prefix, rope = clip
    count, n = frames.shape[1:3]
    rope = torch.zeros(0, 4, 2) if rope is None else rope  # those of the first are theirs anew
    length = 0 if prefix is None else prefix.shape[1]
    layout = BlockLayout((length + n, *[n] * (count - 1)), window, pinned)
    seen = [[b for b in range(t + 1) if sees(layout, t, b)] for t in range(count)]

    def retimed(blocks: list[int]) -> Tensor | None:
        keys = sum(layout.sizes[block] for block in blocks)
        return rope[:keys] if len(rope) else None

    tower = tiny_tower(seed)
    blocks = list(frames.unbind(1))
    if prefix is not None:
        blocks[0] = torch.cat([prefix, blocks[0]], dim=1)
    for layer in tower.blocks:
        outputs = []
        for t, block in enumerate(blocks):
            x = torch.cat([blocks[b] for b in seen[t]], dim=1)
            rows = torch.arange(x.shape[1])[-block.shape[1] :].expand(len(x), -1)
            outputs.append(layer(x, rope=retimed(seen[t]), query_ids=rows))
        blocks = outputs
    expected = torch.stack([tower.norm(block[:, -n:]) for block in blocks], dim=1)

    cache = tower.allocate_cache(2, layout.keys, window=window, pinned=pinned)
    found = [
        tower(frames[:, [t]], prefix=prefix if t == 0 else None, rope=retimed(seen[t]), cache=cache)
        for t in range(count)
    ]
    assert_close(torch.cat(found, dim=1), expected, 1e-4)


# --- Rotary embedding ----------------------------------------------------------------------------

even_sections = st.tuples(*[st.integers(0, 4).map(lambda n: 2 * n)] * 3).filter(any)
grids = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))
# Cosine and sine are in float32, 6e-8 each, of values that stay below about 5.
ROTARY_TOLERANCE = 1e-5


@given(st.integers(1, 400))
def test_an_eighth_of_a_head_turns_with_time_and_half_of_the_rest_with_either_side(
    width: int,
) -> None:
    time = width // 8
    rows = (width - time) / 2
    if time % 2 or rows % 2:
        with pytest.raises(ValueError, match=r"width: got .*allowed: a head width"):
            rotary_sections(width)
        assert width % 32
        return
    assert rotary_sections(width) == (time, rows, rows)
    where = grid_coordinates(2, 1, 2)
    own = rotary_table(where, width)
    assert torch.equal(own, rotary_table(where, width, sections=rotary_sections(width)))


@given(grids, even_sections, st.floats(10.0, 1e6))
def test_a_rotary_table_holds_the_angles_of_its_formula_for_any_grid(
    grid: tuple[int, int, int], sections: tuple[int, int, int], theta: float
) -> None:
    table = rotary_table(grid_coordinates(*grid), sum(sections), sections=sections, theta=theta)
    assert table.shape == (math.prod(grid), sum(sections) // 2, 2)
    expected = [
        [
            (math.cos(angle), math.sin(angle))
            for value, section in zip(place, sections, strict=True)
            for angle in [value * theta ** (-2 * i / section) for i in range(section // 2)]
        ]
        for place in itertools.product(*map(range, grid))
    ]
    # Angles below 5 whose frequencies come from a float32 power: a few 1e-6 at the largest theta.
    assert_close(table.double(), torch.tensor(expected, dtype=torch.float64), 1e-5)


@given(grids)
def test_grid_coordinates_run_fastest_along_x(grid: tuple[int, int, int]) -> None:
    assert grid_coordinates(*grid).tolist() == [
        list(p) for p in itertools.product(*map(range, grid))
    ]


@given(seeds, even_sections, st.integers(1, 5), st.booleans())
def test_rotation_keeps_the_length_of_every_pair_and_the_dtype(
    seed: int, sections: tuple[int, int, int], n: int, batched: bool
) -> None:
    g, width = generator(seed), sum(sections)
    coordinates = torch.randn(*([2] if batched else []), n, 3, generator=g) * 100
    x = torch.randn(2, 3, n, width, generator=g)
    turned = rotate(x, rotary_table(coordinates, width, sections=sections))
    pairs = [t.unflatten(-1, (-1, 2)).norm(dim=-1) for t in (turned, x)]
    assert_close(pairs[0], pairs[1], ROTARY_TOLERANCE)
    assert rotate(x.bfloat16(), rotary_table(coordinates, width, sections=sections)).dtype == (
        torch.bfloat16
    )


@given(seeds, even_sections, grids)
def test_scores_depend_only_on_differences_of_coordinates(
    seed: int, sections: tuple[int, int, int], shift: tuple[int, int, int]
) -> None:
    g, width = generator(seed), sum(sections)
    coordinates = grid_coordinates(2, 2, 3)
    q, k = (torch.randn(1, 2, len(coordinates), width, generator=g) for _ in "qk")

    def scores(where: Tensor) -> Tensor:
        table = rotary_table(where, width, sections=sections)
        return rotate(q, table) @ rotate(k, table).transpose(-2, -1)

    moved = scores(coordinates + torch.tensor(shift))
    # A sum of up to 24 products of values up to 5, with angles that are off by 1e-6.
    assert_close(moved, scores(coordinates), 1e-4)


@given(seeds, even_sections)
def test_scores_depend_on_differences_of_coordinates_along_every_axis_that_has_a_section(
    seed: int, sections: tuple[int, int, int]
) -> None:
    width = sum(sections)
    x = torch.randn(1, 1, 2, width, generator=generator(seed))
    still = rotary_table(torch.zeros(2, 3), width, sections=sections)
    for axis, section in enumerate(sections):
        where = torch.zeros(2, 3)
        where[1, axis] = 1.0
        turned = rotate(x, rotary_table(where, width, sections=sections))
        assert torch.equal(turned, rotate(x, still)) == (section == 0)


@given(seeds, even_sections, st.integers(1, 5))
def test_zero_coordinates_turn_nothing(seed: int, sections: tuple[int, int, int], n: int) -> None:
    x = torch.randn(2, 3, n, sum(sections), generator=generator(seed))
    table = rotary_table(torch.zeros(n, 3), sum(sections), sections=sections)
    assert torch.equal(rotate(x, table), x)  # cos 0 and sin 0 are exact


# --- Sine-cosine embeddings ----------------------------------------------------------------------

sides = st.integers(1, 12)
widths = st.integers(1, 6).map(lambda n: 4 * n)


@given(st.tuples(sides, sides), widths)
def test_sincos_on_its_base_grid_equals_no_base(grid: tuple[int, int], width: int) -> None:
    assert torch.equal(sincos_2d(grid, width, base=grid), sincos_2d(grid, width))


@given(st.tuples(sides, sides), widths)
def test_sincos_holds_the_column_and_then_the_row(grid: tuple[int, int], width: int) -> None:
    def wave(value: int) -> list[float]:
        angles = [value / 10000 ** (4 * i / width) for i in range(width // 4)]
        return [*map(math.sin, angles), *map(math.cos, angles)]

    expected = [wave(x) + wave(y) for y, x in itertools.product(*map(range, grid))]
    # Angles below 12 with frequencies that float32 rounds: a few 1e-6.
    exact = torch.tensor(expected, dtype=torch.float64)
    assert_close(sincos_2d(grid, width).double(), exact, 1e-5)


@given(st.tuples(sides, sides), st.tuples(st.integers(0, 2), st.integers(0, 2)), widths)
def test_sincos_of_a_finer_grid_is_stretched_over_the_base(
    base: tuple[int, int], powers: tuple[int, int], width: int
) -> None:
    steps = (2 ** powers[0], 2 ** powers[1])
    grid = (base[0] * steps[0], base[1] * steps[1])
    fine = sincos_2d(grid, width, base=base).unflatten(0, grid)
    coarse = fine[:: steps[0], :: steps[1]].flatten(0, 1)
    assert torch.equal(coarse, sincos_2d(base, width))  # a division by a power of 2 is exact


@given(st.tuples(st.integers(1, 40), st.integers(1, 40)), widths)
def test_distinct_positions_get_distinct_sincos_embeddings(
    grid: tuple[int, int], width: int
) -> None:
    table = sincos_2d(grid, width).double()
    distances = (table[:, None] - table).norm(dim=-1)
    distances.fill_diagonal_(1.0)
    # m steps are 2|sin(m/2)| apart in the pair of frequency 1 alone; least at m = 25: 0.133.
    assert float(distances.min()) > 0.13


@given(seeds, widths)
def test_cosine_first_swaps_the_halves_of_a_sinusoid(seed: int, width: int) -> None:
    values = torch.randn(3, generator=generator(seed)) * 100
    sine, cosine = sinusoid(values, width).chunk(2, dim=-1)
    swapped = sinusoid(values, width, cosine_first=True)
    assert torch.equal(swapped, torch.cat([cosine, sine], dim=-1))
    assert_close(sine**2 + cosine**2, torch.ones_like(sine), 1e-6)


# --- Positions -----------------------------------------------------------------------------------


@given(seeds, st.integers(1, 6), st.integers(0, 6), st.booleans(), st.booleans())
def test_taken_positions_are_those_of_the_tokens_taken(
    seed: int, n: int, m: int, adds: bool, turns: bool
) -> None:
    g = generator(seed)
    add = torch.randn(n, 4, generator=g) if adds else None
    rope = torch.randn(n, 3, 2, generator=g) if turns else None
    ids = torch.randint(n, (2, m), generator=g)
    taken = Positions(add, rope).take(ids)
    for whole, part in ((add, taken.add), (rope, taken.rope)):
        assert (part is None) == (whole is None)
        if whole is not None and part is not None:
            assert part.shape == (2, m, *whole.shape[1:])
            for b, i in itertools.product(range(2), range(m)):
                assert torch.equal(part[b, i], whole[ids[b, i]])


@given(seeds, st.integers(1, 4), st.integers(0, 4), st.booleans(), st.booleans())
def test_behind_a_prefix_the_prefix_is_not_turned_and_the_rest_as_before(
    seed: int, n: int, prefix: int, batched: bool, adds: bool
) -> None:
    g = generator(seed)
    coordinates = torch.randn(*([2] if batched else []), n, 3, generator=g)
    positions = Positions(
        torch.randn(n, 4, generator=g) if adds else None,
        rotary_table(coordinates, 8, sections=(4, 2, 2)),
    )
    moved = positions.shifted(prefix)
    assert moved.add is positions.add
    assert moved.rope is not None
    assert positions.rope is not None
    x = torch.randn(2, 3, prefix + n, 8, generator=g)
    turned = rotate(x, moved.rope)
    assert torch.equal(turned[:, :, :prefix], x[:, :, :prefix])
    assert torch.equal(turned[:, :, prefix:], rotate(x[:, :, prefix:], positions.rope))


def test_positions_that_turn_nothing_are_the_same_behind_a_prefix() -> None:
    positions = Positions(add=torch.ones(2, 4))
    assert positions.shifted(3) is positions
