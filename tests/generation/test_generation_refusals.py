"""Every public name of `contar.generation` refuses bad input by the argument's name."""

import pytest
import torch

from contar.conditioning import Guidance
from contar.generation import GenerationPlan, Monitor, fill
from contar.ordering import SetSchedule, raster_order

NAN, INF = float("nan"), float("inf")
NO_COUNTS = [0, 1.0]  # test_errors.py has all
SCHEDULE = SetSchedule(raster_order(2, 4), (1, 3))


@pytest.mark.parametrize(
    "argument",
    [
        "frames", "sets", "diffusion_steps", "window", "last_diffusion_steps", "refresh",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", NO_COUNTS)
def test_a_plan_refuses_counts_below_one(argument, value, refuses):
    with refuses(argument, repr(value)):
        GenerationPlan(**{argument: value})


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("frames", "None", {"frames": None}),
        ("sets", "None", {"sets": None}),
        ("guidance", "3.0", {"guidance": 3.0}),
        ("guidance", "None", {"guidance": None}),
        ("guidance", "'5'", {"guidance": "5"}),
        ("temperature", "-0.1", {"temperature": -0.1}),
        ("temperature", "nan", {"temperature": NAN}),
        ("temperature", "inf", {"temperature": INF}),
        ("temperature", "None", {"temperature": None}),
        ("temperature", "True", {"temperature": True}),
        ("curve", "'sine'", {"curve": "sine"}),
        ("curve", "None", {"curve": None}),
        ("rounding", "'up'", {"rounding": "up"}),
        ("grid", "8", {"grid": 8}),
        ("grid", "'88'", {"grid": "88"}),
        ("grid", "()", {"grid": ()}),
        ("grid", "(8, 8, 8)", {"grid": (8, 8, 8)}),
        ("grid", "0", {"grid": (8, 0)}),
        ("grid", "8.0", {"grid": (8.0, 8)}),
        ("pinned", "-1", {"pinned": -1}),
        ("pinned", "None", {"pinned": None}),
        ("pinned", "1.0", {"pinned": 1.0}),
        ("pinned", "2", {"pinned": 2}),
        ("overlap", "2", {"overlap": 2}),
        ("chunk", "2", {"chunk": 2, "overlap": 2}),
        ("last_diffusion_steps", "26", {"diffusion_steps": 25, "last_diffusion_steps": 26}),
        ("order", "'raster'", {"order": "raster"}),
        ("order", "None", {"order": None}),
        ("filling_sets", "2", {"filling_sets": 2}),
        ("filling_sets", "0", {"filling_sets": 0, "order": "checkerboard"}),
        ("filling_sets", "64", {"filling_sets": 64, "order": "checkerboard"}),
    ],
)
def test_a_plan_refuses_values_outside_their_range(argument, came, changes, refuses):
    with refuses(argument, came):
        GenerationPlan(**changes)


@pytest.mark.parametrize("scale", [NAN, -1.0, INF])
def test_a_plan_with_a_guidance_that_is_none_cannot_be_made(scale, refuses):
    with refuses("guidance.scale", repr(scale)):
        GenerationPlan(guidance=Guidance(scale))


def test_a_temperature_of_two_changes_evenly_from_the_first_frame_to_the_last():
    plan = GenerationPlan(frames=5, temperature=(1.0, 0.6))
    assert [plan.temperature_at(t) for t in range(5)] == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6])
    assert GenerationPlan(temperature=(0.5, 0.6)).temperature_at(0) == 0.5


@pytest.mark.parametrize("tokens", [0, -4, 4.0, None])
def test_a_plan_refuses_frames_without_tokens(tokens, refuses):
    with refuses("tokens", repr(tokens)):
        GenerationPlan(sets=1).sizes(tokens)


def test_a_plan_refuses_more_sets_than_tokens(refuses):
    with refuses("sets", "64", "16 tokens"):
        GenerationPlan().sizes(16)


@pytest.mark.parametrize("shape", [(2, 1, 2), (2, 2, 3), (1, 1, 3), (2, 3)])
def test_drawn_tokens_of_another_shape_fill_nothing_in(shape, refuses):
    with refuses("drawn", repr(shape)):
        fill(torch.zeros(2, 4, 3), torch.zeros(2, 1, dtype=torch.int64), torch.ones(shape))


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("total", "-1", {"total": -1}),
        ("total", "1.0", {"total": 1.0}),
        ("total", "None", {"total": None}),
        ("progress", "str", {"progress": "yes"}),
        ("progress", "NoneType", {"progress": None}),
        ("callback", "str", {"callback": "print"}),
        ("callback", "bool", {"callback": False}),
        ("cancel", "bool", {"cancel": True}),
        ("cancel", "list", {"cancel": []}),
    ],
)
def test_a_monitor_refuses_what_it_cannot_call(argument, came, changes, refuses):
    with refuses(argument, came):
        Monitor(**{"total": 3, **changes})
