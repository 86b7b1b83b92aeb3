"""Sizes that no memory holds, and numbers that are none, are refused by name before any work."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from contar.attention import (
    BlockLayout,
    KVCache,
    TokenCache,
    dense_mask,
    flex_mask,
    grid_coordinates,
    rotary_table,
    sincos_2d,
    sinusoid,
    xformers_bias,
)
from contar.backbones import Block, SelfAttention, SpatialTower, TemporalTower
from contar.conditioning import (
    AdaptiveLayerNorm,
    FrameTimes,
    MotionTokens,
    ScalarEmbedding,
    ScaleShiftAdapter,
    TextProjection,
)
from contar.diffusion import NoiseProcess, SamplerTable
from contar.heads import DiffusionMLP, EnergyHead, MeanFlowHead, MixtureHead
from contar.ordering import SetSchedule, full_mask, random_order, raster_order, set_sizes
from contar.ordering import truncated_normal_mask as normal_mask
from contar.tokenizers import CausalVAE, OpenSoraVAE, patchify
from recipes import mar, nova
from recipes._shared.sizes import check_tower

HUGE = [10**9, 2**63]  # test_errors.py has others
SIZES: list[tuple[str, Callable[..., Any], dict[str, Any]]] = [
    ("layers", KVCache, {"batch": 1, "heads": 1, "width": 1, "capacity": 1}),
    ("capacity", KVCache, {"batch": 1, "heads": 1, "width": 1, "layers": 1}),
    ("tokens", TokenCache, {"batch": 1, "heads": 1, "width": 1, "layers": 1}),
    ("frames", grid_coordinates, {"height": 1, "width": 1}),
    ("height", grid_coordinates, {"frames": 1, "width": 1}),
    ("width", grid_coordinates, {"frames": 1, "height": 1}),
    ("batch", xformers_bias, {"layout": BlockLayout((1, 2))}),
    ("width", SelfAttention, {"heads": 1}),
    ("heads", SelfAttention, {"width": 8}),
    ("width", Block, {"heads": 1}),
    ("mlp_ratio", Block, {"width": 8, "heads": 1}),
    ("depth", TemporalTower, {"width": 8, "heads": 1}),
    ("width", TemporalTower, {"depth": 1, "heads": 1}),
    ("width", AdaptiveLayerNorm, {}),
    ("outputs", AdaptiveLayerNorm, {"width": 4}),
    ("width", ScalarEmbedding, {}),
    ("width", MotionTokens, {}),
    ("width", FrameTimes, {"base": 1}),
    ("width", ScaleShiftAdapter, {}),
    ("rank", ScaleShiftAdapter, {"width": 4}),
    ("text_width", TextProjection, {"width": 4, "length": 1}),
    ("rows", TextProjection, {"width": 4, "length": 1, "text_width": 2}),
    ("batch", random_order, {"tokens": 4}),
    ("tokens", random_order, {"batch": 1}),
    ("tokens", raster_order, {"batch": 1}),
    ("tokens", full_mask, {"batch": 1}),
    ("tokens", normal_mask, {"batch": 1}),
    ("tokens", set_sizes, {"sets": 1}),
    ("depth", DiffusionMLP, {"token_dim": 1, "cond_dim": 1, "width": 8}),
    ("width", DiffusionMLP, {"token_dim": 1, "cond_dim": 1, "depth": 1}),
    ("depth", EnergyHead, {"token_dim": 1, "cond_dim": 1, "width": 8}),
    ("noise", EnergyHead, {"token_dim": 1, "cond_dim": 1, "width": 8, "depth": 1}),
    ("components", MixtureHead, {"token_dim": 1, "cond_dim": 1}),
    ("steps", MeanFlowHead, {"token_dim": 1, "cond_dim": 1, "width": 8, "depth": 1}),
    ("depth", CausalVAE, {}),
    ("latent_channels", CausalVAE, {}),
    ("layers_per_block", OpenSoraVAE, {}),
]


@pytest.mark.parametrize("huge", HUGE)
@pytest.mark.parametrize(("name", "make", "given"), SIZES)
def test_a_size_that_no_memory_holds_is_refused(
    name: str, make: Any, given: dict[str, Any], huge: int, refuses: Any
) -> None:
    with refuses(name, str(huge)):
        make(**given, **{name: huge})


@pytest.mark.parametrize("huge", HUGE)
def test_a_size_that_no_memory_holds_is_refused_within_a_tuple_or_a_config(
    huge: int, refuses: Any
) -> None:
    small = (1, 8, 1)
    for place, part in enumerate(("depth", "width", "heads")):
        half = tuple(huge if i == place else size for i, size in enumerate(small))
        with refuses(f"encoder {part}", str(huge)):
            SpatialTower(4, 8, encoder=half, decoder=small)  # type: ignore[arg-type]
        with refuses(f"temporal.{part}", str(huge)):
            check_tower("temporal", half)
    tower = mar.Tower(1, 8, 1)
    with refuses("width", str(huge)):
        mar.build(mar.MarConfig(tower, tower, mar.official_head(huge, 1)), device="meta")
    with refuses("frames", str(huge)):
        nova.GenerationPlan(frames=huge)
    with refuses("grid", str(huge)):
        sincos_2d((huge, 1), 4)
    with refuses("sizes", str(huge)):
        BlockLayout((huge, 1))
    with refuses("shape", str(huge)):
        NoiseProcess.from_config({"_class_name": "FlowMatchEulerDiscreteScheduler"}).draw_indices(
            huge, generator=torch.Generator()
        )
    with refuses("scheduler.num_train_timesteps", str(huge)):
        config = {"_class_name": "DDPMScheduler", "clip_sample": False}
        SamplerTable.from_config({**config, "num_train_timesteps": huge}, 2)
    with refuses("width", str(huge)):
        rotary_table(torch.zeros(1, 3), huge)
    with refuses("patch", str(huge)):
        patchify(torch.zeros(1, 2, 2), huge)


def test_sizes_whose_product_is_too_large_are_refused(refuses: Any) -> None:
    large = 2**20
    with refuses("frames, height, width", str(large)):
        grid_coordinates(large, large, 1)
    for mask in (dense_mask, flex_mask):
        with refuses("layout", str(2 * large)):
            mask(BlockLayout((large, large)))
    with refuses("layers, batch, heads, capacity, width", str(large)):
        KVCache(layers=1, batch=large, heads=1, width=1, capacity=large)
    for make in (random_order, full_mask, normal_mask):
        with refuses("batch, tokens", str(large)):
            make(large, large)
    with refuses("batch", str(large)):
        TextProjection(2**10, 4, length=2**10, rows=2**10).empty(2**20)


@pytest.mark.parametrize("prenorm", [False, True])
@pytest.mark.parametrize(
    ("name", "came", "x", "query_ids"),
    [
        ("x", "list", [1.0], None),
        ("x", "NoneType", None, None),
        ("x", "(3, 8)", torch.zeros(3, 8), None),
        ("x", "(1, 3, 9)", torch.zeros(1, 3, 9), None),
        ("x", "torch.int64", torch.zeros(1, 3, 8, dtype=torch.int64), None),
        ("x", "torch.float64", torch.zeros(1, 3, 8, dtype=torch.float64), None),
        ("x", "meta", torch.zeros(1, 3, 8, device="meta"), None),
        ("query_ids", "list", torch.zeros(1, 3, 8), [[0]]),
        ("query_ids", "(1,)", torch.zeros(1, 3, 8), torch.tensor([0])),
        ("query_ids", "(2, 1)", torch.zeros(1, 3, 8), torch.tensor([[0], [1]])),
        ("query_ids", "torch.float32", torch.zeros(1, 3, 8), torch.zeros(1, 1)),
        ("query_ids", "3", torch.zeros(1, 3, 8), torch.tensor([[3]])),
        ("query_ids", "-1", torch.zeros(1, 3, 8), torch.tensor([[-1]])),
    ],
)
def test_a_block_refuses_wrong_tensors_at_its_door(
    prenorm: bool, name: str, came: str, x: Any, query_ids: Any, refuses: Any
) -> None:
    with refuses(name, came):
        Block(8, 2, prenorm=prenorm)(x, query_ids=query_ids)


@pytest.mark.parametrize("value", [1, None])
def test_a_switch_that_is_no_bool_is_refused(value: Any, refuses: Any) -> None:
    name = type(value).__name__
    with refuses("cosine_first", name):
        sinusoid(torch.zeros(2), 4, cosine_first=value)
    with refuses("cosine_first", name):
        ScalarEmbedding(4, cosine_first=value)
    with refuses("checkpoint", name):
        TemporalTower(depth=1, width=8, heads=1)(torch.zeros(1, 1, 1, 8), checkpoint=value)
    with refuses("checkpoint", name):
        tower = SpatialTower(4, 8, encoder=(1, 8, 1), decoder=(1, 8, 1))
        ids = torch.zeros(1, 0, dtype=torch.int64)
        tower(torch.zeros(1, 2, 4), torch.zeros(1, 1, 8), ids, checkpoint=value)


def test_bytes_and_truth_values_are_no_sizes(refuses: Any) -> None:
    order = torch.arange(2)[None]
    with refuses("sizes", "b'"):
        BlockLayout(b"12")  # type: ignore[arg-type]
    with refuses("sizes", "b'"):
        SetSchedule(order, b"\1\1")  # type: ignore[arg-type]
    with refuses("grid", "b'"):
        sincos_2d(b"12", 4)  # type: ignore[arg-type]
    for index in (True, "0", 0.0, None):
        with refuses("index", repr(index)):
            SetSchedule(order, (1, 1))[index]  # type: ignore[index]
    for value in (True, torch.tensor(True), "1"):
        with refuses("depth"):
            TemporalTower(depth=value, width=8, heads=1)  # type: ignore[arg-type]
        with refuses("width"):
            rotary_table(torch.zeros(1, 3), value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "column", ["timestep", "input_scale", "state", "prediction", "noise", "noise_high"]
)
@pytest.mark.parametrize("value", ["1", math.nan, [1.0]])
def test_a_table_holds_finite_numbers(column: str, value: Any, refuses: Any) -> None:
    row: dict[str, Any] = {
        "timestep": (1.0,), "input_scale": (1.0,), "state": ((1.0,),), "prediction": ((0.0,),),
        "noise": (0.0,), "noise_high": (0.0,),
    }  # fmt: skip
    SamplerTable(**row)
    nested = column in ("state", "prediction")
    with refuses(column):
        SamplerTable(**{**row, column: ((value,),) if nested else (value,)})
    with refuses(column):
        SamplerTable(**{**row, column: "1"})
    if value != [1.0]:
        with refuses("initial"):
            SamplerTable(**{**row, "initial": value})


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("widths", {"widths": "abc"}), ("widths", {"widths": (8, 8)}),
        ("widths", {"widths": (8, True, 8)}), ("widths", {"widths": None}),
        ("latents_mean", {"latents_mean": [0.0]}), ("latents_std", {"latents_std": ["1"] * 4}),
        ("latents_std", {"latents_std": [math.nan] * 4}), ("latents_mean", {"latents_mean": 1.0}),
    ],
)  # fmt: skip
def test_the_small_tokenizer_refuses_other_sizes_and_measures(
    name: str, changes: dict[str, Any], refuses: Any
) -> None:
    with refuses(name):
        CausalVAE(**changes)
