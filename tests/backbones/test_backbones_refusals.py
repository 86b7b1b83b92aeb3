"""Every public name of `contar.backbones` refuses bad input by the argument's name."""

from typing import Any

import pytest
import torch

from contar._random import Dropout
from contar.attention import BlockLayout, KVCache, Positions
from contar.backbones import Block, SelfAttention, SpatialTower, TemporalTower

NAN = float("nan")
NO_COUNTS = [0, 8.0]  # test_errors.py has all
GOOD_SPATIAL = {"token_dim": 4, "prefix_width": 8, "encoder": (1, 8, 2), "decoder": (1, 8, 2)}
IDS = torch.tensor([[0, 1], [4, 2]])


@pytest.mark.parametrize("value", NO_COUNTS)
@pytest.mark.parametrize(
    ("argument", "make"),
    [
        ("width", lambda width: SelfAttention(width, 1)),
        ("heads", lambda heads: SelfAttention(8, heads)),
        ("width", lambda width: Block(width, 1)),
        ("heads", lambda heads: Block(8, heads)),
        ("depth", lambda depth: TemporalTower(depth=depth, width=8, heads=2)),
        ("width", lambda width: TemporalTower(depth=1, width=width, heads=2)),
        ("heads", lambda heads: TemporalTower(depth=1, width=8, heads=heads)),
        ("token_dim", lambda token_dim: SpatialTower(**{**GOOD_SPATIAL, "token_dim": token_dim})),
        ("prefix_width", lambda width: SpatialTower(**{**GOOD_SPATIAL, "prefix_width": width})),
    ],
)
def test_sizes_below_one_are_refused(argument, make, value, refuses):
    with refuses(argument, repr(value)):
        make(value)


@pytest.mark.parametrize("make", [SelfAttention, Block])
def test_heads_that_do_not_divide_the_width_are_refused(make, refuses):
    with refuses("heads", "3", "8"):
        make(8, 3)


@pytest.mark.parametrize("ratio", [0, -1.0, 0.01, NAN, float("inf"), None, "4", True])
def test_an_mlp_without_a_hidden_value_is_refused(ratio, refuses):
    with refuses("mlp_ratio", repr(ratio)):
        Block(8, 2, mlp_ratio=ratio)
    with refuses("mlp_ratio", repr(ratio)):
        TemporalTower(depth=1, width=8, heads=2, mlp_ratio=ratio)
    with refuses("mlp_ratio", repr(ratio)):
        SpatialTower(**GOOD_SPATIAL, mlp_ratio=ratio)


def test_a_block_s_norms_are_placed_by_yes_or_no_and_have_an_epsilon(refuses):
    value: Any
    for value in (None, 1, "pre"):
        with refuses("prenorm", type(value).__name__):
            Block(8, 2, prenorm=value)
    for value in (-1e-6, NAN, None, "0", True):
        with refuses("eps", repr(value)):
            Block(8, 2, eps=value)


@pytest.mark.parametrize("argument", ["encoder", "decoder"])
@pytest.mark.parametrize(
    ("part", "came", "half"),
    [
        ("", "None", None),
        ("", "3", 3),
        ("", "(1, 8)", (1, 8)),
        ("", "'187'", "187"),
        (" depth", "-1", (-1, 8, 2)),
        (" depth", "1.0", (1.0, 8, 2)),
        (" width", "0", (1, 0, 2)),
        (" heads", "0", (1, 8, 0)),
        (" heads", "3", (1, 8, 3)),
        (" heads", "True", (1, 8, True)),
    ],
)
def test_halves_of_a_spatial_tower_are_depth_width_and_heads(argument, part, came, half, refuses):
    with refuses(argument + part, came):
        SpatialTower(**{**GOOD_SPATIAL, argument: half})


def test_only_the_encoder_half_may_be_left_out(refuses):
    SpatialTower(**{**GOOD_SPATIAL, "encoder": (0, 8, 2)})
    with refuses("decoder depth", "0"):
        SpatialTower(**{**GOOD_SPATIAL, "decoder": (0, 8, 2)})


CACHE = KVCache(layers=1, batch=2, heads=2, width=4, capacity=8)


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("x", "NoneType", {"x": None}),
        ("x", "(5, 8)", {"x": torch.zeros(5, 8)}),
        ("x", "(2, 5, 9)", {"x": torch.zeros(2, 5, 9)}),
        ("x", "torch.int64", {"x": torch.zeros(2, 5, 8, dtype=torch.int64)}),
        ("x", "torch.bfloat16", {"x": torch.zeros(2, 5, 8, dtype=torch.bfloat16)}),
        ("x", "meta", {"x": torch.zeros(2, 5, 8, device="meta")}),
        ("rope", "str", {"rope": "rotary"}),
        ("rope", "(4, 2, 2)", {"rope": torch.zeros(4, 2, 2)}),
        ("rope", "(5, 4, 2)", {"rope": torch.zeros(5, 4, 2)}),
        ("rope", "(3, 5, 2, 2)", {"rope": torch.zeros(3, 5, 2, 2)}),
        ("mask", "(4, 4)", {"mask": BlockLayout((2, 2))}),
        ("mask", "torch.float32", {"mask": torch.zeros(5, 5)}),
        ("backend", "'flash'", {"backend": "flash"}),
        ("cache", "KVCache", {"cache": CACHE}),
        ("cache", "dict", {"cache": {}}),
        ("cache", "NoneType", {"cache": (None, 0)}),
        ("layer", "1", {"cache": (CACHE, 1)}),
        ("k, v", "(2, 2, 5, 4)", {"cache": (CACHE, 0)}),
    ],
)
@pytest.mark.parametrize("make", [SelfAttention, Block])
def test_a_block_refuses_what_does_not_fit(make, argument, came, changes, refuses):
    good = {"x": torch.zeros(2, 5, 8)}
    with refuses(argument, came):
        make(8, 2)(**{**good, **changes})


@pytest.mark.parametrize("argument", ["batch", "capacity"])
@pytest.mark.parametrize("value", NO_COUNTS)
def test_a_tower_allocates_no_cache_without_sizes(argument, value, refuses):
    tower = TemporalTower(depth=1, width=8, heads=2)
    with refuses(argument, repr(value)):
        tower.allocate_cache(**{"batch": 2, "capacity": 4, argument: value})


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("frames", "NoneType", {"frames": None}),
        ("frames", "(2, 3, 8)", {"frames": torch.zeros(2, 3, 8)}),
        ("frames", "(2, 2, 3, 4)", {"frames": torch.zeros(2, 2, 3, 4)}),
        ("frames", "(2, 0, 3, 8)", {"frames": torch.zeros(2, 0, 3, 8)}),
        ("frames", "(2, 2, 0, 8)", {"frames": torch.zeros(2, 2, 0, 8)}),
        ("frames", "torch.int64", {"frames": torch.zeros(2, 2, 3, 8, dtype=torch.int64)}),
        ("frames", "torch.float64", {"frames": torch.zeros(2, 2, 3, 8, dtype=torch.float64)}),
        ("prefix", "str", {"prefix": "text"}),
        ("prefix", "(1, 4, 8)", {"prefix": torch.zeros(1, 4, 8)}),
        ("prefix", "(2, 4, 7)", {"prefix": torch.zeros(2, 4, 7)}),
        ("prefix", "(4, 8)", {"prefix": torch.zeros(4, 8)}),
        ("rope", "(5, 2, 2)", {"rope": torch.zeros(5, 2, 2)}),
        ("rope", "(6, 1, 2)", {"rope": torch.zeros(6, 1, 2)}),
        ("window", "0", {"window": 0}),
        ("window", "1.0", {"window": 1.0}),
        ("pinned", "-1", {"pinned": -1}),
        ("backend", "'flash'", {"backend": "flash"}),
        ("backend", "'xformers'", {"backend": "xformers"}),
        ("cache", "dict", {"cache": {}}),
        ("cache", "tuple", {"cache": (CACHE, 0)}),
    ],
)
def test_a_temporal_tower_refuses_what_does_not_fit(argument, came, changes, refuses):
    tower = TemporalTower(depth=1, width=8, heads=2)
    with refuses(argument, came):
        tower(**{"frames": torch.zeros(2, 2, 3, 8), **changes})


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("backend", "'flash'", {"backend": "flash"}),
        ("backend", "'xformers'", {"backend": "xformers"}),
        ("frames", "(2, 1, 3, 7)", {"frames": torch.zeros(2, 1, 3, 7)}),
        ("prefix", "(2, 1, 8)", {"prefix": torch.zeros(2, 1, 8)}),
        ("window", "(2, 0)", {"window": 2}),
        ("window", "(None, 1)", {"pinned": 1}),
        ("rope", "(4, 2, 2)", {"rope": torch.zeros(4, 2, 2)}),
        ("cache", "'batch': 2", {"frames": torch.zeros(3, 1, 3, 8)}),
        ("sizes", "(3, 3, 3)", {"frames": torch.zeros(2, 3, 3, 8)}),
        ("cache", "'layers': 2", {"cache": {"layers": 2}}),
        ("cache", "'heads': 4", {"cache": {"heads": 4}}),
        ("cache", "'width': 8", {"cache": {"width": 8}}),
    ],
)
def test_a_refused_frame_leaves_the_cache_as_it_was(argument, came, changes, refuses):
    tower = TemporalTower(depth=1, width=8, heads=2)
    other = changes.get("cache", {})
    cache = KVCache(**{"layers": 1, "batch": 2, "heads": 2, "width": 4, "capacity": 8, **other})
    cache.reserve(3)
    with refuses(argument, came):
        tower(**{"frames": torch.zeros(2, 1, 3, 8), **changes, "cache": cache})
    assert cache.sizes == (3,)


ADDED, TURNED = Positions(add=torch.zeros(5, 8)), Positions(rope=torch.zeros(5, 2, 2))


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("tokens", "NoneType", {"tokens": None}),
        ("tokens", "(5, 4)", {"tokens": torch.zeros(5, 4)}),
        ("tokens", "(2, 5, 3)", {"tokens": torch.zeros(2, 5, 3)}),
        ("tokens", "torch.int64", {"tokens": torch.zeros(2, 5, 4, dtype=torch.int64)}),
        ("prefix", "NoneType", {"prefix": None}),
        ("prefix", "(1, 3, 8)", {"prefix": torch.zeros(1, 3, 8)}),
        ("prefix", "(2, 3, 9)", {"prefix": torch.zeros(2, 3, 9)}),
        ("prefix", "torch.bfloat16", {"prefix": torch.zeros(2, 3, 8, dtype=torch.bfloat16)}),
        ("visible_ids", "list", {"visible_ids": [[0], [1]]}),
        ("visible_ids", "(2,)", {"visible_ids": torch.tensor([0, 1])}),
        ("visible_ids", "(1, 2)", {"visible_ids": IDS[:1]}),
        ("visible_ids", "torch.float32", {"visible_ids": IDS.float()}),
        ("visible_ids", "torch.bool", {"visible_ids": IDS.bool()}),
        ("visible_ids", "to 5", {"visible_ids": IDS + 1}),
        ("visible_ids", "from -1", {"visible_ids": IDS - 1}),
        ("padding_mask", "bool", {"padding_mask": True}),
        ("padding_mask", "(2, 5)", {"padding_mask": torch.zeros(2, 5, dtype=torch.bool)}),
        ("padding_mask", "torch.float32", {"padding_mask": torch.zeros(2, 2)}),
        ("positions", "None", {"positions": None}),
        ("positions", "Positions", {"positions": ADDED}),
        ("positions", "None", {"positions": (ADDED, None)}),
        ("positions.add", "(6, 8)", {"positions": (Positions(add=torch.zeros(6, 8)), ADDED)}),
        ("positions.add", "(5, 4)", {"positions": (ADDED, Positions(add=torch.zeros(5, 4)))}),
        ("positions.add", "(2, 5, 8)", {"positions": (Positions(add=torch.zeros(2, 5, 8)),) * 2}),
        ("positions.rope", "(4, 2, 2)", {"positions": (Positions(rope=torch.zeros(4, 2, 2)),) * 2}),
        ("positions.rope", "(5, 1, 2)", {"positions": (Positions(rope=torch.zeros(5, 1, 2)),) * 2}),
        ("backend", "'flash'", {"backend": "flash"}),
        ("dropout", "float", {"dropout": 0.1}),
        ("checkpoint", "True", {"dropout": Dropout(0.1, torch.Generator()), "checkpoint": True}),
        ("backend", "'sdpa'", {"dropout": Dropout(0.1, torch.Generator()), "backend": "sdpa"}),
    ],
)
def test_a_spatial_tower_refuses_what_does_not_fit(argument, came, changes, refuses):
    tower = SpatialTower(**GOOD_SPATIAL)
    good = {"tokens": torch.zeros(2, 5, 4), "prefix": torch.zeros(2, 3, 8), "visible_ids": IDS}
    with refuses(argument, came):
        tower(**{**good, **changes})


def test_a_tower_works_after_a_refusal(refuses):
    tower = SpatialTower(**GOOD_SPATIAL)
    good = {"tokens": torch.zeros(2, 5, 4), "prefix": torch.zeros(2, 3, 8), "visible_ids": IDS}
    before = tower(**good, positions=(ADDED, TURNED))
    with refuses("visible_ids"):
        tower(**{**good, "visible_ids": IDS + 9})
    assert torch.equal(tower(**good, positions=(ADDED, TURNED)), before)


def test_a_backend_that_cannot_serve_is_refused_before_the_cache_changes(refuses):
    tower = TemporalTower(depth=1, width=32, heads=1)
    cache = tower.allocate_cache(1, 8)
    with refuses("backend", "flex", "no_grad"):
        tower(torch.zeros(1, 1, 4, 32), cache=cache, backend="flex")
    assert cache.sizes == ()
