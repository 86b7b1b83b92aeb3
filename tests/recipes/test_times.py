"""The laws of frames' times, and windows whose positions are counted anew."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from recipes import nova

TOWER = nova.Tower(2, 32, 1)
SIZES = nova.NovaConfig(
    temporal=TOWER, encoder=nova.Tower(1, 32, 1), decoder=nova.Tower(1, 32, 1),
    head={"name": "flow", "width": 16, "depth": 1}, text_width=6,
    text_length=3, text_rows=4, channels=2, patch=1, latent=(4, 4), frames=4, adapter=2,
)  # fmt: skip
TEXT = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(1))
PLAN = nova.GenerationPlan(sets=2, diffusion_steps=2, guidance=nova.Guidance(2.0))


def build(positions: Any) -> nova.Nova:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nova.build(replace(SIZES, positions=positions)).eval()
        torch.nn.init.normal_(model.head.network.out.weight, std=0.1)
        assert model.adapter is not None
        torch.nn.init.normal_(model.adapter.up.weight, std=0.1)
        return model


@pytest.fixture(scope="module")
def absolute() -> nova.Nova:
    return build("absolute")


@pytest.fixture(scope="module")
def rotary() -> nova.Nova:
    return build("rotary")


def make(model: nova.Nova, **plan: Any) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return nova.generate(model, TEXT, replace(PLAN, **plan), generator=generator)


@pytest.mark.parametrize(("chunk", "window"), [(None, None), (4, None), (None, 3), (6, 3), (5, 6)])
def test_at_the_trained_length_the_laws_of_times_agree(absolute, rotary, chunk, window):
    """With all frames in sight, as with a window and a pinned frame that make up the length."""
    plan = {"frames": 4, "chunk": chunk, "window": window}
    for model, laws in ((absolute, ("stretch", "continue")), (rotary, nova_laws)):
        released = make(model, **plan)
        for law in laws:
            assert torch.equal(make(model, times=law, **plan), released), law


nova_laws = ("stretch", "continue", "window")


@pytest.mark.parametrize("frames", [2, 7])
def test_at_another_length_none_is_the_law_by_which_a_model_was_released(absolute, rotary, frames):
    for model, own, other in ((absolute, "stretch", "continue"), (rotary, "continue", "stretch")):
        assert torch.equal(make(model, frames=frames), make(model, frames=frames, times=own))
        assert not torch.allclose(
            make(model, frames=frames), make(model, frames=frames, times=other)
        )


def test_the_first_frames_do_not_depend_on_a_length_past_which_times_go_on(absolute, rotary):
    for model in (absolute, rotary):
        short, long = (make(model, frames=n, times="continue") for n in (4, 9))
        torch.testing.assert_close(long[:, :, :4], short)
        stretched = make(model, frames=9, times="stretch")
        assert not torch.allclose(stretched[:, :, :4], short)


@given(frames=st.integers(1, 9), window=st.integers(1, 4), pinned=st.integers(0, 2))
def test_the_frames_in_sight_are_those_that_the_temporal_tower_keeps(
    absolute, frames, window, pinned
):
    plan = replace(PLAN, frames=frames, window=window, pinned=pinned)
    cache = absolute.temporal.allocate_cache(1, 2 * (window + pinned), window=window, pinned=pinned)
    for t in range(frames):
        seen = plan.in_sight(t)
        assert seen == sorted(set(seen))
        assert seen[-1] == t
        assert len(cache.reserve(2).sizes) == len(seen)


@given(window=st.integers(1, 4), pinned=st.integers(0, 2))
def test_in_a_window_that_is_timed_anew_a_frame_is_where_it_stands_in_sight(rotary, window, pinned):
    plan = replace(PLAN, frames=9, window=window, pinned=pinned)
    options: Any = {"law": "window"}
    for t in range(9):
        seen = plan.in_sight(t)
        found = rotary.rotary_positions(9, (2, 2), 0, seen=seen, **options)
        expected = rotary.rotary_positions(9, (2, 2), 0, seen=range(len(seen)))
        assert torch.equal(found, expected)
    assert make(rotary, frames=9, window=window, pinned=pinned, times="window").isfinite().all()


def test_timed_anew_a_window_differs_once_frames_are_out_of_sight(rotary):
    anew, on = (make(rotary, frames=8, window=2, times=law) for law in ("window", "continue"))
    assert torch.equal(anew[:, :, :3], on[:, :, :3])
    assert not torch.allclose(anew[:, :, 3:], on[:, :, 3:])


def test_a_model_of_absolute_times_refuses_to_count_them_anew(absolute, refuses):
    with refuses("plan.times", "'window'", "chunk"):
        make(absolute, frames=4, window=2, times="window")
    with refuses("times", "'stretched'"):
        replace(PLAN, times="stretched")  # type: ignore[arg-type]
