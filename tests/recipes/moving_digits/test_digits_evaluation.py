"""Beside the judged model stands its own network, untrained."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)

from contar.evaluation import Scores
from contar.tokenizers import CausalVAE
from recipes import nova
from recipes.moving_digits import DEFAULTS, TEXT, build, load_text, network
from recipes.moving_digits.evaluation import pipeline

OUT = nova.NovaOutput(frames=np.zeros((1, 17, 64, 64, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def pipe():
    words, encoder = load_text()
    tower = nova.Tower(depth=1, width=64, heads=2)
    sizes = replace(network(5), temporal=tower, encoder=tower, decoder=tower)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model, vae = nova.build(sizes).eval(), CausalVAE(widths=(8, 16, 16)).eval()
    parts = (model, vae, FlowMatchEulerDiscreteScheduler(), encoder, words)
    return nova.NovaPipeline(*parts, defaults=DEFAULTS, text_package=TEXT)


def test_the_untrained_network_has_the_judged_ones_sizes_and_none_of_its_weights(
    pipe, tmp_path, monkeypatch
):
    judged = []
    monkeypatch.setattr(pipeline, "abilities_of", lambda pipe, **_: judged.append(pipe))
    monkeypatch.setattr(pipeline, "evaluate", lambda *_, **__: Scores({}, {}))
    state = torch.get_rng_state()
    report = pipeline.evaluate_pipeline(pipe, tmp_path, count=2)
    assert set(report.rows) == {"model", "real clips", "untrained"}
    assert torch.equal(torch.get_rng_state(), state)
    model, raw = (each.transformer for each in judged)
    assert model is pipe.transformer
    assert raw.sizes == model.sizes
    assert not raw.training
    assert not torch.equal(raw.head.network.out.weight, model.head.network.out.weight)
    assert torch.equal(raw.head.network.out.weight, build(model.sizes).head.network.out.weight)


def test_a_count_too_small_is_refused_before_anything_is_made(pipe, tmp_path, refuses):
    with refuses("count", "1"):
        pipeline.evaluate_pipeline(pipe, tmp_path / "scores", count=1)
    assert not (tmp_path / "scores").exists()


@pytest.mark.parametrize("fast", [False, True])
def test_fast_is_asked_of_the_model_and_of_the_untrained_one_in_every_task(
    pipe, tmp_path, monkeypatch, fast
):
    abilities, asked = [], []

    def remember(*arguments, **_):
        abilities.append(arguments[0])
        return Scores({}, {})

    monkeypatch.setattr(pipeline, "evaluate", remember)
    pipeline.evaluate_pipeline(pipe, tmp_path, count=2, fast=fast)
    monkeypatch.setattr(
        nova.NovaPipeline, "__call__", lambda self, *_, **options: asked.append(options) or OUT
    )
    for each in (abilities[0], abilities[2]):
        each.text_to_video(["a"], 0, None)
        each.longer(["a"], 0)
    changes = [dict(options.get("plan_changes") or {}) for options in asked]
    assert [("sets" in change) for change in changes] == [fast] * 4
    assert [change.get("chunk") for change in changes] == [None, 5] * 2
    assert [options["num_frames"] for options in asked] == [17, 49] * 2
