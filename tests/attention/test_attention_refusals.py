"""Every public name of `contar.attention` refuses bad input by the argument's name."""

from typing import Any

import pytest
import torch

from contar.attention import (
    BlockLayout,
    KVCache,
    attend,
    dense_mask,
    flex_mask,
    grid_coordinates,
    prepare_mask,
    rotary_table,
    rotate,
    sincos_2d,
    sinusoid,
    why_unavailable,
    xformers_bias,
)

NAN, INF = float("nan"), float("inf")
LAYOUT = BlockLayout((1, 2))
NO_COUNTS = [0, 1.0]  # test_errors.py has all
NO_DEVICES = ["tpu5", "cuda:99"]


def qkv(*shape: int, **options: Any) -> torch.Tensor:
    return torch.zeros(*shape, **options)


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("q", "NoneType", {"q": None}),
        ("q", "list", {"q": [1.0]}),
        ("q", "(2, 3, 4)", {"q": qkv(2, 3, 4)}),
        ("q", "(1, 2, 3, 5)", {"q": qkv(1, 2, 3, 5)}),
        ("q", "as many heads as k, 2: grouped", {"q": qkv(1, 4, 3, 4)}),
        ("q", "(2, 2, 3, 4)", {"q": qkv(2, 2, 3, 4)}),
        ("q", "torch.int64", {"q": qkv(1, 2, 3, 4, dtype=torch.int64)}),
        ("k", "(3, 4)", {"k": qkv(3, 4)}),
        ("k", "torch.bool", {"k": qkv(1, 2, 3, 4, dtype=torch.bool)}),
        ("k", "torch.bfloat16", {"k": qkv(1, 2, 3, 4, dtype=torch.bfloat16)}),
        ("k", "meta", {"k": qkv(1, 2, 3, 4, device="meta")}),
        ("v", "NoneType", {"v": None}),
        ("v", "(1, 2, 2, 4)", {"v": qkv(1, 2, 2, 4)}),
        ("v", "torch.float64", {"v": qkv(1, 2, 3, 4, dtype=torch.float64)}),
        ("mask", "torch.float32", {"mask": torch.ones(3, 3)}),
        ("mask", "torch.int64", {"mask": torch.ones(3, 3, dtype=torch.int64)}),
        ("mask", "(3, 4)", {"mask": torch.ones(3, 4, dtype=torch.bool)}),
        ("mask", "(1, 1, 1, 3, 3)", {"mask": torch.ones(1, 1, 1, 3, 3, dtype=torch.bool)}),
        ("mask", "meta", {"mask": torch.ones(3, 3, dtype=torch.bool, device="meta")}),
        ("mask", "(4, 4)", {"mask": BlockLayout((2, 2))}),
        ("mask", "str", {"mask": "causal"}),
        ("mask", "list", {"mask": [[True]]}),
        ("mask", "tensor", {"mask": torch.ones(3, 3, dtype=torch.bool), "backend": "flex"}),
        ("backend", "'flash'", {"backend": "flash"}),
        ("backend", "True", {"backend": True}),
        ("backend", "1", {"backend": 1}),
        ("backend", "'xformers'", {"backend": "xformers"}),
    ],
)
def test_attend_refuses_what_does_not_fit(argument, came, changes, refuses):
    good = {name: qkv(1, 2, 3, 4) for name in ("q", "k", "v")}
    with refuses(argument, came):
        attend(**{**good, **changes})


@pytest.mark.parametrize("backend", ["flash", "", None, 3, []])
def test_an_unknown_backend_is_refused_with_the_list(backend, refuses):
    with refuses("backend", repr(backend), "plain", "sdpa", "flex", "xformers"):
        why_unavailable(backend, "cpu")
    if backend is not None:
        with refuses("backend", repr(backend), "plain", "sdpa", "flex", "xformers"):
            prepare_mask(LAYOUT, backend, "cpu")


@pytest.mark.parametrize("device", NO_DEVICES)
@pytest.mark.parametrize(
    "call",
    [
        lambda device: why_unavailable("sdpa", device),
        lambda device: prepare_mask(LAYOUT, None, device),
        lambda device: dense_mask(LAYOUT, device),
        lambda device: flex_mask(LAYOUT, device),
        lambda device: xformers_bias(LAYOUT, device=device),
        lambda device: grid_coordinates(1, 2, 2, device),
        lambda device: sincos_2d((2, 2), 4, device=device),
        lambda device: KVCache(layers=1, batch=1, heads=1, width=1, capacity=1, device=device),
    ],
)
def test_a_device_that_torch_does_not_have_is_refused(call, device, refuses):
    with refuses("device", repr(device)):
        call(device)


@pytest.mark.parametrize("layout", ["causal", (1, 2)])
@pytest.mark.parametrize(
    "call", [lambda x: prepare_mask(x, None, "cpu"), dense_mask, flex_mask, xformers_bias]
)
def test_a_mask_is_made_of_a_layout_only(call, layout, refuses):
    with refuses("layout", type(layout).__name__):
        call(layout)


@pytest.mark.parametrize("call", [dense_mask, flex_mask, xformers_bias])
def test_no_layout_is_no_mask(call, refuses):
    with refuses("layout", "NoneType"):
        call(None)


@pytest.mark.parametrize("batch", NO_COUNTS)
def test_an_xformers_bias_needs_a_batch(batch, refuses):
    with refuses("batch", repr(batch)):
        xformers_bias(LAYOUT, batch)


def test_an_xformers_bias_has_no_pinned_blocks_beside_a_window(refuses):
    with refuses("layout", "pinned=1"):
        xformers_bias(BlockLayout((1, 1, 1), window=1, pinned=1))


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("sizes", "()", {"sizes": ()}),
        ("sizes", "None", {"sizes": None}),
        ("sizes", "3", {"sizes": 3}),
        ("sizes", "0", {"sizes": (2, 0)}),
        ("sizes", "-1", {"sizes": (2, -1)}),
        ("sizes", "1.5", {"sizes": (1.5,)}),
        ("sizes", "nan", {"sizes": (NAN,)}),
        ("sizes", "True", {"sizes": (True,)}),
        ("sizes", "'ab'", {"sizes": "ab"}),
        ("window", "0", {"window": 0}),
        ("window", "-2", {"window": -2}),
        ("window", "1.0", {"window": 1.0}),
        ("window", "True", {"window": True}),
        ("pinned", "-1", {"pinned": -1}),
        ("pinned", "None", {"pinned": None}),
        ("pinned", "inf", {"pinned": INF}),
        ("cached", "-1", {"cached": -1}),
        ("cached", "2", {"cached": 2}),
        ("cached", "'1'", {"cached": "1"}),
    ],
)
def test_a_layout_refuses_sizes_that_are_none(argument, came, changes, refuses):
    with refuses(argument, came):
        BlockLayout(**{"sizes": (1, 2), **changes})


@pytest.mark.parametrize("block", [2, -1, 0.0, None, True])
def test_a_layout_refuses_a_block_that_it_does_not_have(block, refuses):
    with refuses("block", repr(block)):
        LAYOUT.spans(block)


@pytest.mark.parametrize("argument", ["layers", "batch", "heads", "width", "capacity", "window"])
@pytest.mark.parametrize("value", NO_COUNTS)
def test_a_cache_refuses_sizes_below_one(argument, value, refuses):
    good = {"layers": 1, "batch": 1, "heads": 1, "width": 1, "capacity": 1}
    with refuses(argument, repr(value)):
        KVCache(**{**good, argument: value})


@pytest.mark.parametrize("changes", [{"pinned": -1}, {"pinned": 1.5}, {"pinned": None}])
def test_a_cache_refuses_pinned_blocks_below_zero(changes, refuses):
    with refuses("pinned", repr(changes["pinned"])):
        KVCache(layers=1, batch=1, heads=1, width=1, capacity=1, **changes)


@pytest.mark.parametrize("dtype", ["float32", torch.int64])
def test_a_cache_holds_floats_only(dtype, refuses):
    with refuses("dtype", repr(dtype)):
        KVCache(layers=1, batch=1, heads=1, width=1, capacity=1, dtype=dtype)


@pytest.mark.parametrize(
    ("sizes", "came"),
    [
        ((), "()"),
        ((0,), "0"),
        ((-1,), "-1"),
        ((1.0,), "1.0"),
        (("2",), "'2'"),
        (((1, 2),), "(1, 2)"),
        ((True,), "True"),
        ((3, 3), "(3, 3)"),
    ],
)
def test_a_reservation_that_does_not_fit_leaves_the_cache_as_it_was(sizes, came, refuses):
    cache = KVCache(layers=1, batch=1, heads=1, width=2, capacity=6)
    cache.reserve(2)
    with refuses("sizes", came):
        cache.reserve(*sizes)
    assert cache.sizes == (2,)
    assert cache.reserve(4).keys == 6


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("layer", "2", {"layer": 2}),
        ("layer", "-1", {"layer": -1}),
        ("k", "(3, 4)", {"k": qkv(3, 4)}),
        ("k, v", "(1, 2, 2, 4)", {"v": qkv(1, 2, 2, 4)}),
        ("k, v", "(1, 2, 3, 5)", {"k": qkv(1, 2, 3, 5), "v": qkv(1, 2, 3, 5)}),
        ("k, v", "(2, 2, 3, 4)", {"k": qkv(2, 2, 3, 4), "v": qkv(2, 2, 3, 4)}),
        ("k, v", "(1, 2, 4, 4)", {"k": qkv(1, 2, 4, 4), "v": qkv(1, 2, 4, 4)}),
    ],
)
def test_a_cache_refuses_to_write_what_does_not_fit(argument, came, changes, refuses):
    cache = KVCache(layers=2, batch=1, heads=2, width=4, capacity=6)
    cache.reserve(3)
    good = {"layer": 0, "k": qkv(1, 2, 3, 4), "v": qkv(1, 2, 3, 4)}
    with refuses(argument, came):
        cache.write(**{**good, **changes})


@pytest.mark.parametrize("argument", ["frames", "height", "width"])
@pytest.mark.parametrize("value", NO_COUNTS)
def test_coordinates_need_sizes(argument, value, refuses):
    with refuses(argument, repr(value)):
        grid_coordinates(**{"frames": 1, "height": 1, "width": 1, argument: value})


@pytest.mark.parametrize(
    ("argument", "came", "values", "width"),
    [
        ("width", "3", torch.zeros(2), 3),
        ("width", "0", torch.zeros(2), 0),
        ("width", "4.0", torch.zeros(2), 4.0),
        ("width", "None", torch.zeros(2), None),
        ("values", "list", [1.0], 4),
        ("values", "float", 1.0, 4),
        ("values", "torch.int64", torch.zeros(2, dtype=torch.int64), 4),
        ("values", "torch.complex64", torch.zeros(2, dtype=torch.complex64), 4),
    ],
)
def test_a_sinusoid_refuses_odd_widths_and_what_are_no_floats(
    argument, came, values, width, refuses
):
    with refuses(argument, came):
        sinusoid(values, width)


@pytest.mark.parametrize("argument", ["grid", "base"])
@pytest.mark.parametrize("value", [3, (2, 2, 2), (0, 2)])
def test_embeddings_refuse_a_grid_that_is_none(argument, value, refuses):
    with refuses(argument):
        sincos_2d(**{"grid": (2, 2), "width": 4, argument: value})


@pytest.mark.parametrize("width", [2, 0, 4.0])
def test_embeddings_refuse_a_width_that_does_not_split_in_four(width, refuses):
    with refuses("width", repr(width)):
        sincos_2d((2, 2), width)


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("coordinates", "NoneType", {"coordinates": None}),
        ("coordinates", "list", {"coordinates": [(0, 0, 0)]}),
        ("coordinates", "(5, 2)", {"coordinates": torch.zeros(5, 2)}),
        ("coordinates", "(5, 4)", {"coordinates": torch.zeros(5, 4)}),
        ("coordinates", "(3,)", {"coordinates": torch.zeros(3)}),
        ("coordinates", "torch.int64", {"coordinates": torch.zeros(5, 3, dtype=torch.int64)}),
        ("width", "7", {"width": 7}),
        ("width", "0", {"width": 0}),
        ("width", "-32", {"width": -32}),
        ("width", "32.0", {"width": 32.0}),
        ("width", "None", {"width": None}),
        ("sections", "(16, 16)", {"sections": (16, 16)}),
        ("sections", "(8, 8, 8, 8)", {"sections": (8, 8, 8, 8)}),
        ("sections", "(1, 15, 16)", {"sections": (1, 15, 16)}),
        ("sections", "(4, 4, 4)", {"sections": (4, 4, 4)}),
        ("sections", "-4", {"sections": (-4, 18, 18)}),
        ("sections", "4.0", {"sections": (4.0, 14, 14)}),
        ("sections", "32", {"sections": 32}),
        ("theta", "0", {"theta": 0}),
        ("theta", "-1.0", {"theta": -1.0}),
        ("theta", "nan", {"theta": NAN}),
        ("theta", "inf", {"theta": INF}),
        ("theta", "'1e4'", {"theta": "1e4"}),
    ],
)
def test_a_rotary_table_refuses_what_does_not_fit(argument, came, changes, refuses):
    with refuses(argument, came):
        rotary_table(**{"coordinates": torch.zeros(5, 3), "width": 32, **changes})


@pytest.mark.parametrize(
    ("argument", "came", "x", "table"),
    [
        ("x", "NoneType", None, torch.zeros(3, 4, 2)),
        ("x", "(3, 8)", torch.zeros(3, 8), torch.zeros(3, 4, 2)),
        ("x", "(1, 2, 3, 7)", torch.zeros(1, 2, 3, 7), torch.zeros(3, 3, 2)),
        ("x", "torch.int64", torch.zeros(1, 2, 3, 8, dtype=torch.int64), torch.zeros(3, 4, 2)),
        ("table", "NoneType", torch.zeros(1, 2, 3, 8), None),
        ("table", "(1, 4, 2)", torch.zeros(1, 2, 3, 8), torch.zeros(1, 4, 2)),
        ("table", "(3, 8, 2)", torch.zeros(1, 2, 3, 8), torch.zeros(3, 8, 2)),
        ("table", "(3, 4)", torch.zeros(1, 2, 3, 8), torch.zeros(3, 4)),
        ("table", "(5, 3, 4, 2)", torch.zeros(1, 2, 3, 8), torch.zeros(5, 3, 4, 2)),
        ("table", "(1, 2, 3, 4, 2)", torch.zeros(1, 2, 3, 8), torch.zeros(1, 2, 3, 4, 2)),
    ],
)
def test_a_rotation_refuses_a_table_of_other_tokens(argument, came, x, table, refuses):
    with refuses(argument, came):
        rotate(x, table)
