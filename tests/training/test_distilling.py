"""A head learns to draw at once what a trained one draws in many steps."""

import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch

from contar._random import seeded_weights
from contar.conditioning import Guidance
from contar.heads import make_head
from contar.training import RunConfig, distill_head
from recipes._nova.distilling import with_head
from recipes.moving_digits.model import build, network

VALUES, COND = 3, 4
QUICK = RunConfig(
    steps=150, batch=64, learning_rate=5e-3, warmup=10, ema=0.98, save_every=150, log_every=50
)

PARTS = replace(QUICK, parts=2)


def head(seed: int = 0, **sizes: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make_head({"width": 32, "depth": 1, **sizes}, VALUES, COND)


def conditions(indices: Any, step: int | str) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(hash((step, *indices)) % 2**31)
    cond = torch.randn(len(indices), COND, generator=draws)
    return cond, cond * torch.tensor([0.0, 1.0, 1.0, 1.0])  # all but its first number


def test_first_weights_are_those_of_the_seed_and_no_generator_is_changed(monkeypatch):
    touched: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", touched.append)
    before = torch.get_rng_state()
    with seeded_weights(3):
        drawn = torch.randn(5)
    assert torch.get_rng_state().equal(before)
    assert drawn.equal(torch.randn(5, generator=torch.Generator().manual_seed(3)))
    model = build(network(1))
    with_head(model, {"name": "mean_flow", "width": 8, "depth": 1})
    assert torch.get_rng_state().equal(before)
    assert not touched


@pytest.mark.parametrize("kind", ["mean_flow", "flow_map"])
def test_a_student_draws_from_the_same_noise_what_its_guided_teacher_draws(kind, tmp_path):
    teacher = head(1, name="flow")
    with torch.no_grad():  # a field that bends, and that the condition steers
        for parameter in teacher.parameters():
            parameter.mul_(1.5)
    before = {name: x.clone() for name, x in teacher.state_dict().items()}
    student = head(2, name=kind)
    options: Any = {"count": 1000, "guidance": Guidance(4.0), "teacher_steps": 8, "repeats": 2}
    trained = distill_head(student, teacher, conditions, QUICK, tmp_path / "run", **options)

    cond, uncond = (x[None] for x in conditions(range(500), 10**6))
    with torch.no_grad():
        options = {"uncond": uncond, "guidance": Guidance(4.0), "steps": 8}
        guided = teacher.sample(cond, noise=torch.Generator().manual_seed(5), **options)
        plain = teacher.sample(cond, noise=torch.Generator().manual_seed(5), steps=8)
        drawn = trained.sample(cond, noise=torch.Generator().manual_seed(5))
    error, spread = (drawn - guided).square().mean(), guided.var()
    assert error < 0.15 * spread
    assert (drawn - plain).square().mean() > 2 * error  # the guidance is in it
    assert all(torch.equal(x, before[name]) for name, x in teacher.state_dict().items())


def test_a_pool_draws_for_its_steps_once_and_a_run_that_is_gone_on_with_draws_the_same(tmp_path):
    asked = []

    def noted(indices: Any, step: int | str) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(step)
        return conditions(indices, step)

    long = replace(QUICK, steps=6, save_every=3, warmup=1)
    options: Any = {"count": 1000, "pool": 2}
    parts = (head(1, name="flow"), noted, long, tmp_path / "whole")
    whole: Any = distill_head(head(2, name="mean_flow"), *parts, **options)
    assert asked == [0, 1]
    for save in (tmp_path / "whole" / "saves").glob("*6"):
        shutil.rmtree(save)
    again: Any = distill_head(head(2, name="mean_flow"), *parts, **options, resume=True)
    assert asked == [0, 1, 1, 0]
    for name, x in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], x)


def test_a_run_is_not_gone_on_with_by_another_teacher_or_guidance(tmp_path, refuses):
    short = replace(QUICK, steps=2, save_every=2, warmup=1)
    options: Any = {"count": 1000, "resume": True}
    teacher = {"name": "flow", "steps": 3}
    parts = (conditions, short, tmp_path / "run")
    distill_head(head(2, name="mean_flow"), head(1, **teacher), *parts, **options)
    distill_head(head(2, name="mean_flow"), head(1, **teacher), *parts, **options)
    others: list[tuple[str, int, int, dict[str, Any]]] = [
        ("teacher", 7, 3, {}),
        ("drawing", 1, 4, {}),
        ("guidance", 1, 3, {"guidance": Guidance(2.0)}),
        ("student_steps", 1, 3, {"steps": 2}),
        ("teacher_steps", 1, 3, {"teacher_steps": 4}),
        ("repeats", 1, 3, {"repeats": 2}),
        ("pool", 1, 3, {"pool": 2}),
    ]
    for named, seed, steps, changed in others:
        other = head(seed, name="flow", steps=steps)
        with refuses("resume", f"({named}: "):
            distill_head(head(2, name="mean_flow"), other, *parts, **options, **changed)


def test_a_run_is_not_gone_on_with_by_a_teacher_of_other_times(tmp_path, refuses):
    short = replace(QUICK, steps=2, save_every=2, warmup=1)
    flow, few = head(1, name="flow"), {"name": "mean_flow", "steps": 2}
    shifted = [flow.with_solver(flow.drawing, flow_shift=shift) for shift in (1.0, 5.0)]
    scaled = [head(1, **few, time_scale=scale) for scale in (1.0, 1000.0)]
    for name, (teacher, other) in {"shifted": shifted, "scaled": scaled}.items():
        parts, options = (conditions, short, tmp_path / name), {"count": 1000, "resume": True}
        distill_head(head(2, name="mean_flow"), teacher, *parts, **options)
        distill_head(head(2, name="mean_flow"), teacher, *parts, **options)
        with refuses("resume", "(drawing: "):
            distill_head(head(2, name="mean_flow"), other, *parts, **options)


@pytest.mark.parametrize(
    ("argument", "student", "teacher", "options"),
    [
        ("student.cond_dim", {"name": "mean_flow"}, {"name": "flow"}, {}),
        ("student", {"name": "energy"}, {"name": "flow"}, {}),
        ("teacher", {"name": "mean_flow"}, {"name": "diffusion"}, {}),
        ("repeats", {"name": "mean_flow"}, {"name": "flow"}, {"repeats": 0}),
        ("pool", {"name": "mean_flow"}, {"name": "flow"}, {"pool": 0}),
        ("pool", {"name": "mean_flow"}, {"name": "flow"}, {"pool": 2, "config": PARTS}),
        ("steps", {"name": "mean_flow"}, {"name": "flow"}, {"steps": 0}),
        ("config", {"name": "mean_flow"}, {"name": "flow"}, {"config": {"steps": 3}}),
        ("conditions", {"name": "mean_flow"}, {"name": "flow"}, {"conditions": None}),
        ("conditions", {"name": "mean_flow"}, {"name": "flow"}, {"guidance": Guidance(2.0)}),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    argument, student, teacher, options, refuses, tmp_path
):
    learner = head(**student)
    if argument == "student.cond_dim":
        learner = make_head({"width": 8, "depth": 1, **student}, VALUES, COND + 1)

    def alone(indices: Any, step: int | str) -> tuple[torch.Tensor, None]:
        return conditions(indices, step)[0], None

    given: Any = {"conditions": alone, "config": QUICK, "count": 100, **options}
    parts = (learner, head(**teacher), given.pop("conditions"), given.pop("config"))
    with refuses(argument):
        distill_head(*parts, tmp_path / "run", **given)
