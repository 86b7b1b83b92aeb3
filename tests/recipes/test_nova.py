"""NOVA as a whole: presets, files, parts kept from training, memory under a window."""

import dataclasses
import warnings
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from contar import cpu
from contar._memory import peak_bytes
from contar.ordering import TrainingMask, truncated_normal_mask
from contar.training import freeze
from recipes import nova

TINY = nova.NovaConfig(
    temporal=nova.Tower(1, 32, 1),
    encoder=nova.Tower(1, 32, 1),
    decoder=nova.Tower(1, 32, 1),
    head={"name": "flow", "width": 32, "depth": 1},
    text_width=8,
    text_length=4,
    latent=(8, 8),
    frames=4,
    adapter=2,
)
IMAGES = dataclasses.replace(TINY, frames=1, adapter=None)
ROTARY = dataclasses.replace(TINY, positions="rotary")


def test_build_without_arguments_means_the_released_video_model():
    assert nova.build(device="meta").sizes == nova.PRESETS["nova-d48w1024-osp480"]


def test_the_published_widths_build_and_generate():
    published = dataclasses.replace(
        TINY,
        temporal=nova.Tower(1, 32, 1),
        encoder=nova.Tower(1, 64, 2),
        decoder=nova.Tower(1, 96, 3),
    )
    model = nova.build(published)
    plan = nova.GenerationPlan(frames=2, sets=2, diffusion_steps=2)
    assert nova.generate(model, torch.zeros(1, 1, 8), plan).isfinite().all()
    assert nova.training_losses(model, torch.zeros(1, 4, 2, 8, 8), torch.zeros(1, 1, 8)).total > 0


def test_a_step_without_numbers_takes_the_operations_of_one_with_them():
    hides = truncated_normal_mask(4, 16, generator=drawn())

    def operations(device):
        model = cpu.plain(nova.build(TINY, device=device))
        mask = TrainingMask(hides.hidden.to(device), hides.visible_ids.to(device))
        clips, text = (torch.zeros(shape, device=device) for shape in ((2, 4, 2, 8, 8), (2, 4, 8)))
        with FlopCounterMode(display=False) as counter:
            nova.training_losses(model, clips, text, mask=mask, backend="plain").total.backward()
        return counter.get_total_flops()

    assert operations("meta") == operations("cpu") > 0


@pytest.mark.parametrize("config", [TINY, IMAGES, ROTARY])
def test_the_frozen_parts_of_any_model_freeze(config):
    model = nova.build(config)
    for images in (False, True):
        frozen = freeze(model, nova.frozen_parts(model, images=images))
        assert "text.norm.weight" in frozen
        assert any(name.startswith("motion") for name in frozen) == (config.frames > 1)
        assert ("embed.weight" in frozen) == images


def test_a_model_survives_saving_and_loading(tmp_path):
    model = nova.build(TINY)
    model.save_pretrained(tmp_path)
    loaded = nova.Nova.from_pretrained(tmp_path)
    assert loaded.sizes == model.sizes
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True)
    )


def test_frames_have_one_dtype_that_of_given_ones_where_it_is_wider():
    model, text = nova.build(TINY), torch.zeros(1, 1, 8)
    plan = nova.GenerationPlan(frames=3, sets=2, diffusion_steps=1, chunk=2)
    given = torch.randn(1, 4, 1, 8, 8, generator=drawn())
    narrow, wide = (
        [*nova.stream(model, text, plan, context=x, generator=drawn())]
        for x in (given.bfloat16().float(), given.bfloat16().double())
    )
    assert {frame.dtype for frame in narrow} == {torch.float32}
    assert {frame.dtype for frame in wide} == {torch.float64}
    assert all(torch.equal(a.double(), b) for a, b in zip(narrow, wide, strict=True))


def test_a_bfloat16_model_is_built_without_a_word_and_generates_finite_numbers():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = nova.build(TINY, dtype=torch.bfloat16)
    plan = nova.GenerationPlan(frames=2, sets=2, diffusion_steps=2)
    latents = nova.generate(model, torch.zeros(1, 1, 8), plan)
    assert latents.dtype == torch.float32
    assert latents.isfinite().all()


def test_positions_of_one_frame_are_those_of_the_clip():
    for config in (TINY, ROTARY):
        model = nova.build(config)
        added, rope = model.added_positions(3, (2, 2)), model.rotary_positions(3, (2, 2), 5)
        for frame in range(3):
            one = model.added_positions(3, (2, 2), frame=frame)
            table = model.rotary_positions(3, (2, 2), 0, seen=[frame])
            if added is not None and one is not None:
                torch.testing.assert_close(one, added[frame : frame + 1])
            if rope is not None and table is not None:
                assert torch.equal(table, rope[5 + 4 * frame : 5 + 4 * (frame + 1)])


def test_under_a_window_memory_does_not_grow_with_the_number_of_frames():
    """Frames are let go as they come, so all that may stay is the window, whatever the length."""
    model = nova.build(TINY)
    window: Any = {"window": 3, "pinned": 1, "sets": 1, "diffusion_steps": 1}

    def peak(frames):
        plan = nova.GenerationPlan(frames=frames, **window)

        def generate():
            for _ in nova.stream(model, torch.zeros(1, 1, 8), plan, generator=drawn()):
                pass

        return peak_bytes(generate)

    peaks = [peak(frames) for frames in (9, 65)]
    assert max(peaks) <= 1.01 * peaks[0], peaks
    cache = 2 * 2 * 32 * 4 * (7 + 4 * 4)  # keys and values of two passes, of prefix and 4 frames
    assert peaks[0] > cache


def drawn():
    return torch.Generator().manual_seed(0)


def test_a_motion_scale_multiplies_the_score_alone():
    torch.manual_seed(0)
    plain = nova.build(TINY)
    scaled = nova.build(dataclasses.replace(TINY, motion_scale=20.0))
    scaled.load_state_dict(plain.state_dict())
    text, fps = torch.zeros(1, 4, 8), torch.tensor([12.0])
    found = scaled.prefix(text, torch.tensor([0.25]), fps)
    assert torch.equal(found, plain.prefix(text, torch.tensor([5.0]), fps))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), None])
def test_a_motion_scale_of_none_or_less_is_refused(scale, refuses):
    with refuses("motion_scale", repr(scale)):
        dataclasses.replace(TINY, motion_scale=scale)
