"""Stages of NOVA's training: what they compute again, freeze and refuse."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_run import COUNT, SIZES, make_cache
from torch import nn

from contar.backbones import Block
from contar.data import Cache, Sample, write_cache
from contar.diffusion import NoiseProcess
from contar.heads import head_scheduler, make_head, registry
from contar.training import RunConfig, draw_step, freeze, train
from recipes import nova
from recipes._nova.training import (
    Batches,
    NovaObjective,
    NovaStage,
    quieten,
    validation,
)


def test_blocks_that_are_computed_again_give_the_same_gradients(tmp_path):
    load = Batches(make_cache(tmp_path / "cache"), SIZES, NovaStage(RunConfig(), repeats=2))

    def gradients(*, checkpoint: bool) -> tuple[list[torch.Tensor], int]:
        torch.manual_seed(0)
        objective = NovaObjective(nova.build(SIZES), repeats=2, checkpoint=checkpoint)
        calls: list[nn.Module] = []
        for module in objective.modules():
            if isinstance(module, Block):
                module.register_forward_pre_hook(lambda block, *rest: calls.append(block))
        objective(*load([0, 1, 2], 0))["loss"].backward()
        return [p.grad for p in objective.parameters() if p.grad is not None], len(calls)

    plain, once = gradients(checkpoint=False)
    again, twice = gradients(checkpoint=True)
    assert all(map(torch.equal, plain, again))
    assert twice == 2 * once == 6


def test_a_head_s_own_law_of_timesteps_is_that_of_its_training(tmp_path):
    cache = make_cache(tmp_path / "cache")
    noise = []
    for mean in (-1.5, 1.5):
        sizes = replace(SIZES, head={**SIZES.head, "logit": (mean, 0.5)})
        load = Batches(cache, sizes, NovaStage(RunConfig(), repeats=20))
        process = NoiseProcess.from_config(head_scheduler(sizes.head))
        noise.append(process.sigma[load([0, 1, 2], 0)[0].index].mean().item())
    assert noise == pytest.approx([0.19, 0.81], abs=0.02)


HEADS: tuple[dict[str, Any], ...] = (
    {"name": "diffusion", "width": 16, "depth": 1},
    {"name": "mixture", "components": 2, "width": 16},
    {"name": "energy", "width": 16, "depth": 1},
    {"name": "mean_flow", "width": 16, "depth": 1},
    {"name": "flow_map", "width": 16, "depth": 1},
)


def flow_of_another_name(token_dim: int, cond_dim: int) -> Any:
    return make_head({"name": "flow", "width": 16, "depth": 1}, token_dim, cond_dim)


@pytest.mark.parametrize("head", HEADS, ids=[head["name"] for head in HEADS])
def test_any_head_is_trained_on_a_cache_and_a_run_taken_up_again_ends_as_one_in_one_go(
    head, tmp_path, monkeypatch
):
    cache, sizes = make_cache(tmp_path / "cache"), replace(SIZES, head=head)
    run = RunConfig(steps=4, batch=4, warmup=1, save_every=2, log_every=1)
    load = Batches(cache, sizes, NovaStage(run, repeats=2))

    def trained(out: str, *, resume: bool = False) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        objective = NovaObjective(nova.build(sizes), repeats=2)
        ended: Any = train(objective, load, run, tmp_path / out, count=16, resume=resume)
        return {name: x.clone() for name, x in ended.model.head.state_dict().items()}

    whole = trained("whole")
    torch.manual_seed(0)
    start = nova.build(sizes).head.state_dict()
    assert any(not torch.equal(x, start[name]) for name, x in whole.items())
    step, taken = torch.optim.AdamW.step, itertools.count(1)

    def fall(self: Any, *arguments: Any, **options: Any) -> Any:
        if next(taken) == 4:
            raise InterruptedError
        return step(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", fall)
        with pytest.raises(InterruptedError):
            trained("halves")
    again = trained("halves", resume=True)
    assert all(torch.equal(x, whole[name]) for name, x in again.items())


@pytest.mark.parametrize("head", [HEADS[3], {"name": "own flow"}], ids=["mean flow", "own flow"])
def test_what_a_head_draws_for_a_batch_is_a_step_s_own(head, tmp_path, monkeypatch):
    monkeypatch.setitem(registry._HEADS, "own flow", flow_of_another_name)
    sizes = replace(SIZES, head=head)
    load = Batches(make_cache(tmp_path / "cache"), sizes, NovaStage(RunConfig(), repeats=2))
    (first,), (again,), (later,) = load([0, 1], 0), load([0, 1], 0), load([0, 1], 1)
    assert (first.noise, first.index) == (None, None)
    assert first.seed == again.seed != later.seed
    objective = NovaObjective(nova.build(sizes), repeats=2)
    loss, same = objective(first)["loss"], objective(again)["loss"]
    assert torch.equal(loss, same)
    assert not torch.equal(loss, objective(replace(first, seed=later.seed))["loss"])


def test_a_head_of_one_s_own_is_trained_on_a_cache_of_a_config_that_names_a_flow(tmp_path):
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token_dim, self.cond_dim = 16, 16
            self.mean = nn.Linear(16, 16)

        def loss(self, target, cond, *, repeats=1, generator=None):
            return (self.mean(cond) - target).square().mean(-1)[None]

        def sample(self, cond, **options):
            return self.mean(cond)

    load = Batches(make_cache(tmp_path / "cache"), SIZES, NovaStage(RunConfig()))
    objective = NovaObjective(nova.build(SIZES, head=Mean()))
    objective(*load([0, 1], 0))["loss"].backward()
    assert objective.model.head.mean.weight.grad.abs().sum() > 0


def test_what_is_held_out_is_looked_at_in_batches_no_larger_than_a_step_s():
    run = RunConfig(batch=8, parts=2)
    assert validation(run, 20, 31) == [range(20, 24), range(24, 28), range(28, 31)]
    assert validation(replace(run, batch=512), 20, 90) == [range(20, 84), range(84, 90)]


def test_pictures_leave_a_video_network_s_motion_score_unset(tmp_path):
    samples = (
        Sample(
            {"latents": np.ones((8, 1, 8, 8), np.float16), "text": np.ones((3, 8), np.float16)},
            {"caption": "red", "fps": 7.0, "motion_flow": None},
        )
        for _ in range(4)
    )
    cache = Cache(write_cache(samples, tmp_path / "pictures", made_with={}))
    load = Batches(cache, SIZES, NovaStage(RunConfig(), drop_motion=0))
    (batch,) = load([0, 1], 0)
    assert batch.motion_flow is not None
    assert batch.fps is not None
    assert batch.motion_flow.tolist() == [nova.UNSET] * 2
    assert batch.fps.tolist() == [7.0] * 2


def test_a_frozen_part_has_no_gradient(tmp_path):
    load = Batches(make_cache(tmp_path / "cache"), SIZES, NovaStage(RunConfig(), repeats=1))
    objective = NovaObjective(nova.build(SIZES), repeats=1)
    frozen = set(freeze(objective.model, ("temporal", "text")))
    objective(*load([0, 1], 0))["loss"].backward()
    without = {n for n, p in objective.model.named_parameters() if p.grad is None}
    assert frozen <= without
    assert not any(name.startswith(("spatial", "head")) for name in without)


def test_a_quiet_start_predicts_nothing_and_adapts_nothing():
    torch.manual_seed(0)
    model = nova.build(SIZES)
    quieten(model)
    assert model.adapter is not None
    anchor, features = torch.randn(2, 1, 4, 16), torch.randn(2, 2, 4, 16)
    assert torch.equal(model.adapt(anchor, features), anchor.expand_as(features))
    condition = torch.randn(3, 5, 16)
    assert (model.head.network(torch.randn(3, 5, 16), torch.rand(3, 5), condition) == 0).all()


def test_texts_and_motion_scores_are_left_out_as_often_as_asked_each_on_its_own(tmp_path):
    stage = NovaStage(RunConfig(), repeats=1, drop_text=0.3, drop_motion=0.6)
    cache = make_cache(tmp_path / "cache")
    load, dropped = Batches(cache, SIZES, stage), []
    for step in range(60):
        (batch,) = load(range(COUNT), step)
        assert batch.motion_flow is not None
        assert set(batch.lengths.tolist()) <= {0, 3}
        for index, (length, flow) in enumerate(
            zip(batch.lengths.tolist(), batch.motion_flow.tolist(), strict=True)
        ):
            assert flow in (nova.UNSET, pytest.approx(index / COUNT))
            dropped.append((length == 0, flow == nova.UNSET))
    shares = np.mean([(text, flow, text and flow) for text, flow in dropped], axis=0)
    assert shares == pytest.approx([0.3, 0.6, 0.18], abs=0.04)  # three deviations of 1,260 draws


def test_the_hidden_share_keeps_to_the_stages_range_and_is_one_for_the_step():
    process = NoiseProcess.from_config(head_scheduler(SIZES.head))
    latent = (4, 2, 8, 8)  # 16 tokens in each of 2 frames

    def hidden(step: int, **options) -> list[int]:
        draws = draw_step(
            0, step, [3, 5], latent=latent, patch=2, repeats=1, process=process, **options
        )
        return draws.mask.hidden.sum(1).tolist()

    wide = [hidden(step, shares=(0.05, 0.4)) for step in range(100)]
    assert all(len(set(rows)) == 1 for rows in wide)
    counts = {rows[0] for rows in wide}
    assert min(counts) <= 3
    assert max(counts) == 16
    papers = {hidden(step)[0] for step in range(100)}
    assert min(papers) == 11  # 0.7 of 16, rounded


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("run", {"run": None}),
        ("repeats", {"repeats": 0}),
        ("drop_text", {"drop_text": 2.0}),
        ("drop_motion", {"drop_motion": -1.0}),
        ("shares", {"shares": (2.0, 0.25)}),
        ("shares", {"shares": (0.7,)}),
        ("shares", {"shares": (0.5, 0.0)}),
        ("frozen", {"frozen": "temporal"}),
        ("checkpoint", {"checkpoint": 1}),
    ],
)
def test_a_stage_refuses_what_is_outside_its_range(name, options, refuses):
    with refuses(name):
        NovaStage(**{"run": RunConfig(), **options})
