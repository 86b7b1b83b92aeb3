"""Graphs refuse what they cannot replay; where there is no GPU a step runs as ever."""

from dataclasses import replace

import pytest
import torch
from tiny_mar import PLAN, tiny_mar
from tiny_nova import TEXT_LENGTH, TEXT_WIDTH, tiny_nova  # type: ignore[import-not-found]

from contar.generation import GenerationPlan, Graphs
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


@pytest.mark.parametrize("changes", [{"refresh": 2}, {"guidance_every": 3}])
def test_a_plan_says_so_itself(changes, refuses):
    GenerationPlan().check_graphs(Graphs())
    with refuses("graphs", "reuses features"):
        GenerationPlan(**changes).check_graphs(Graphs())


@pytest.mark.parametrize("model", [None, "nova", torch.ones(2), {"weight": torch.ones(2)}])
def test_graphs_of_no_model_are_refused(model, refuses):
    with refuses("model"):
        Graphs().bind(model)


def test_a_step_is_a_function_of_tensors(refuses):
    with refuses("step"):
        Graphs()("kind", torch.ones(2), torch.ones(2))  # type: ignore[arg-type]
    with refuses("tensors", "none"):
        Graphs()("kind", torch.sin)
    assert Graphs()("kind", torch.add, torch.ones(2), torch.ones(2)).tolist() == [2, 2]
