"""CUDA graphs refuse what they cannot replay, and change nothing where there is no GPU."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_mar import PLAN, tiny_mar
from tiny_nova import TEXT_LENGTH, TEXT_WIDTH, tiny_nova  # type: ignore[import-not-found]

from contar.generation import GenerationPlan, Graphs
from contar.heads import Noise, make_head
from recipes import mar, nova

SETS = nova.GenerationPlan(frames=2, sets=3, diffusion_steps=2)
LABELS = torch.tensor([0, 2])


def made_by_nova(plan=SETS, **options):
    text = torch.ones(1, TEXT_LENGTH, TEXT_WIDTH)
    draws = torch.Generator().manual_seed(0)
    return nova.generate(tiny_nova("absolute"), text, plan, generator=draws, **options)


def made_by_mar(plan=PLAN, **options):
    draws = torch.Generator().manual_seed(0)
    return mar.generate(tiny_mar(), LABELS, plan, generator=draws, **options)


@pytest.mark.parametrize("make", [made_by_nova, made_by_mar])
def test_on_a_cpu_graphs_change_nothing_and_capture_nothing(make):
    graphs, wanted = Graphs(), make()
    for _ in range(3):
        torch.testing.assert_close(make(graphs=graphs), wanted, rtol=0, atol=0)
    assert len(graphs) == 0


@pytest.mark.parametrize("kind", [True, "yes", {}, Graphs, torch.nn.Identity()])
@pytest.mark.parametrize("make", [made_by_nova, made_by_mar])
def test_another_kind_of_graphs_is_refused(make, kind, refuses):
    with refuses("graphs"):
        make(graphs=kind)


@pytest.mark.parametrize("make", [made_by_nova, made_by_mar])
def test_a_plan_that_reuses_features_is_refused(make, refuses):
    plan = SETS if make is made_by_nova else PLAN
    with refuses("graphs", "reuses features"):
        make(replace(plan, refresh=2), graphs=Graphs())


def test_a_plan_that_reuses_features_refuses_graphs(refuses):
    GenerationPlan().check_graphs(Graphs())
    with refuses("graphs", "reuses features"):
        GenerationPlan(refresh=2).check_graphs(Graphs())


def test_frames_of_other_temperatures_are_steps_of_other_kinds():
    kinds = []

    class Watched(Graphs):
        def __call__(self, kind, step, noise, *tensors):
            kinds.append(kind)
            return super().__call__(kind, step, noise, *tensors)

    falling = replace(SETS, frames=3, temperature=(1.0, 0.5))
    assert torch.equal(made_by_nova(falling, graphs=Watched()), made_by_nova(falling))
    assert len(set(kinds)) == 3
    kinds.clear()
    made_by_nova(replace(falling, temperature=0.7), graphs=Watched())
    assert len(set(kinds)) == 1


def test_draws_are_told_apart_by_solver_and_steps_and_not_by_the_object_that_draws():
    """A plan's solver is a new head in each generation, for which no new graph is captured."""
    head, plan = tiny_nova("absolute").head, GenerationPlan()
    heun = {"_class_name": "FlowMatchHeunDiscreteScheduler"}
    first, second = (head.with_solver(heun) for _ in range(2))
    told = plan.draws_by(first, 4)
    assert told == plan.draws_by(second, 4)
    assert told not in (plan.draws_by(first, 3), plan.draws_by(head, 4))
    own = make_head({"name": "energy", "width": 8, "depth": 1}, 4, 4)
    assert plan.draws_by(own, None) != plan.draws_by(deepcopy(own), None)


@pytest.mark.parametrize("model", [None, "nova", torch.ones(2), {"weight": torch.ones(2)}])
def test_graphs_of_no_model_are_refused(model, refuses):
    with refuses("model"):
        Graphs().bind(model)


def test_a_step_is_a_function_of_noise_and_tensors(refuses):
    noise = Noise(torch.Generator().manual_seed(0))
    with refuses("step"):
        Graphs()("kind", torch.ones(2), noise, torch.ones(2))  # type: ignore[arg-type]
    with refuses("noise", "Generator"):
        Graphs()("kind", torch.add, noise.generator, torch.ones(2))  # type: ignore[arg-type]
    with refuses("tensors", "none"):
        Graphs()("kind", torch.sin, noise)
    drawn = Graphs()("kind", lambda source, x: x + source.normal(2), noise, torch.ones(2))
    wanted = 1 + torch.randn(2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn, wanted)


def test_a_pipeline_passes_graphs_on_and_refuses_others(refuses):
    pipe = nova.from_pretrained("moving-digits", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    options: Any = {"num_frames": 1, "num_inference_steps": 2, "num_diffusion_steps": 2}

    def made(**more: Any) -> torch.Tensor:
        draws = torch.Generator().manual_seed(0)
        return pipe("a seven", generator=draws, output_type="latent", **options, **more).frames

    assert torch.equal(made(graphs=Graphs()), made())
    with refuses("graphs", "str"):
        made(graphs="yes")
