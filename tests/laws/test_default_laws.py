"""Nothing depends on torch's default dtype and default device, which are other libraries' too."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from other_defaults import OTHERS, assert_independent, defaults, randn, seeded
from tiny_mar import PLAN, tiny_mar
from tiny_nova import texts, tiny_nova
from torch import Tensor

from contar.attention import (
    BlockLayout,
    KVCache,
    TokenCache,
    dense_mask,
    grid_coordinates,
    rotary_table,
    sincos_2d,
)
from contar.conditioning import encode_texts
from contar.diffusion import NoiseProcess, SamplerTable, iddpm_table, sampler
from contar.ordering import (
    checkerboard_order,
    full_mask,
    random_order,
    raster_order,
    truncated_normal_mask,
)
from contar.training import batch_indices, draw_step
from recipes import mar, nova
from recipes.moving_digits import BouncingDigits, MovingDigits

FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}


def test_mar_generates_the_same_whatever_torchs_defaults_are() -> None:
    model, labels = tiny_mar(), torch.tensor([0, 2])
    assert_independent(lambda: mar.generate(model, labels, PLAN, generator=seeded()))
    latents = randn(2, 2, 4, 8)
    assert_independent(lambda: mar.training_losses(model, latents, labels, generator=seeded()))


@pytest.mark.parametrize("name", ["absolute, adapter", "rotary", "image"])
def test_nova_generates_the_same_whatever_torchs_defaults_are(name: str) -> None:
    model, states = tiny_nova(name), texts(2, 0)
    frames = 1 if name == "image" else 2
    plan = nova.GenerationPlan(frames=frames, sets=3, diffusion_steps=3, refresh=2)
    assert_independent(lambda: nova.generate(model, states, plan, generator=seeded()))
    latents = randn(2, 2, frames, 4, 4)
    assert_independent(lambda: nova.training_losses(model, latents, states, generator=seeded()))


@pytest.mark.parametrize(
    "config",
    [
        FLOW,
        {"_class_name": "DDPMScheduler", "clip_sample": False},
        {"_class_name": "DDIMScheduler", "clip_sample": False},
        {"_class_name": "UniPCMultistepScheduler"},
        {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True},
        {"_class_name": "EulerDiscreteScheduler"},
        {"_class_name": "HeunDiscreteScheduler"},
        {"_class_name": "LMSDiscreteScheduler"},
        {"_class_name": "DEISMultistepScheduler"},
    ],
)
def test_noise_and_solvers_do_not_depend_on_torchs_defaults(config: dict[str, Any]) -> None:
    def read() -> SamplerTable:
        sampler._remembered.cache_clear()  # or it would be the table that was read before
        return SamplerTable.from_config(config, 5)

    assert_independent(read)
    assert_independent(lambda: NoiseProcess.from_config(config))
    assert_independent(lambda: iddpm_table(7))


def test_orders_masks_places_and_caches_do_not_depend_on_torchs_defaults() -> None:
    layout = BlockLayout((2, 3))
    sizes: dict[str, Any] = {"layers": 1, "batch": 1, "heads": 1, "width": 2}
    for make_it in (
        lambda: random_order(2, 6, generator=seeded()),
        lambda: raster_order(2, 6),
        lambda: checkerboard_order(2, 6, columns=3, generator=seeded()),
        lambda: full_mask(2, 6),
        lambda: truncated_normal_mask(2, 60, ratio="sample", generator=seeded()),
        lambda: dense_mask(layout),
        lambda: grid_coordinates(2, 3, 4),
        lambda: sincos_2d((3, 4), 8, base=(2, 2)),
        lambda: rotary_table(grid_coordinates(1, 2, 2), 32),
        lambda: batch_indices(7, 3, 4, seed=0),
        lambda: draw_step(
            0, 1, [3, 4], latent=(2, 2, 4, 4), patch=2, repeats=2,
            process=NoiseProcess.from_config(FLOW), shares=(0.5, 0.3),
        ),
    ):  # fmt: skip
        assert_independent(make_it)
    for dtype, device in OTHERS:
        with defaults(dtype, device):
            for cache in (KVCache(capacity=3, **sizes), TokenCache(tokens=3, **sizes)):
                assert cache._memory.dtype == torch.float32
                assert cache._memory.device.type == "cpu"


def test_models_are_built_the_same_whatever_torchs_defaults_are() -> None:
    def built(build: Callable[[], Any]) -> list[Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return list(build().state_dict().values())

    for build in (
        lambda: mar.build(tiny_mar().sizes),
        lambda: nova.build(tiny_nova("absolute, adapter").sizes),
    ):
        assert_independent(lambda build=build: built(build))


def test_clips_of_moving_digits_are_the_same() -> None:
    assert_independent(lambda: MovingDigits("train", 3)[1])
    assert_independent(lambda: BouncingDigits("train", 3, frames=21, cut=0.5)[1])
    assert_independent(lambda: BouncingDigits("train", 9, cut=0.5).draw(range(9)))


def test_words_and_pixels_of_a_pipeline_are_the_same() -> None:
    def run() -> Any:
        pipe = nova.from_pretrained("moving-digits", dtype=torch.float32)
        states = encode_texts(["a seven", ""], pipe.tokenizer, pipe.text_encoder, length=8)
        pipe.set_progress_bar_config(disable=True)
        options: Any = {"num_frames": 5, "num_inference_steps": 2, "num_diffusion_steps": 2}
        out = pipe("a seven moves", generator=seeded(), output_type="pt", **options)
        return states, out.frames

    assert_independent(run)
