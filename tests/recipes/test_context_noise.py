"""Noise in the context: what the temporal tower sees of earlier frames, and nothing else."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from contar.ordering import truncated_normal_mask
from recipes import nova

TOWER = nova.Tower(1, 32, 1)
SIZES = nova.NovaConfig(
    temporal=TOWER, encoder=TOWER, decoder=TOWER,
    head={"name": "flow", "width": 16, "depth": 1}, text_width=6,
    text_length=3, text_rows=4, channels=2, patch=1, latent=(4, 4), frames=4, adapter=2,
)  # fmt: skip
BATCH, FRAMES = 3, 4
TEXT = torch.randn(BATCH, 3, 6, generator=torch.Generator().manual_seed(1))
LATENTS = torch.randn(BATCH, 2, FRAMES, 4, 4, generator=torch.Generator().manual_seed(2))
PLAN = nova.GenerationPlan(frames=3, sets=2, diffusion_steps=2, guidance=nova.Guidance(2.0))


@pytest.fixture(scope="module")
def model() -> nova.Nova:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nova.build(SIZES).eval()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def watched(monkeypatch: pytest.MonkeyPatch, model: nova.Nova) -> dict[str, list[Any]]:
    """Record what the temporal tower is shown, and what the spatial one and the head are given."""
    seen: dict[str, list[Any]] = {"temporal": [], "spatial": [], "head": []}
    frame_tokens, spatial, loss = model.frame_tokens, model.spatial.forward, model.head.loss

    def of_frames(previous: Tensor | None, batch: int, count: int) -> Tensor:
        seen["temporal"] += [] if previous is None else [previous]
        return frame_tokens(previous, batch, count)

    def of_tokens(tokens: Tensor, *rest: Any, **named: Any) -> Tensor:
        seen["spatial"].append(tokens)
        return spatial(tokens, *rest, **named)

    def of_target(target: Tensor, *rest: Any, **named: Any) -> Tensor:
        seen["head"].append(target)
        return loss(target, *rest, **named)

    monkeypatch.setattr(model, "frame_tokens", of_frames)
    monkeypatch.setattr(model.spatial, "forward", of_tokens)
    monkeypatch.setattr(model.head, "loss", of_target)
    return seen


def losses(model: nova.Nova, latents: Tensor = LATENTS, **options: Any) -> nova.FrameLosses:
    options = {"generator": seeded(), **options}
    return nova.training_losses(model, latents, TEXT[: len(latents)], **options)


@pytest.mark.parametrize("level", [0, 0.0, (0.0, 0.0), np.float32(0)])
def test_no_noise_draws_nothing_and_changes_no_number_in_training(model, level, unchecked):
    plain, none = seeded(), seeded()
    without = losses(model, generator=plain)
    assert losses(model, generator=none, context_noise=level).total == without.total
    assert torch.equal(plain.get_state(), none.get_state())


def test_no_noise_draws_nothing_and_changes_no_number_in_generation(model):
    plain, none = seeded(), seeded()
    without = nova.generate(model, TEXT, PLAN, generator=plain)
    same = nova.generate(model, TEXT, replace(PLAN, context_noise=0.0), generator=none)
    assert torch.equal(same, without)
    assert torch.equal(plain.get_state(), none.get_state())


def test_a_first_frame_alone_has_no_context_and_draws_no_noise(model):
    plain, noisy = seeded(), seeded()
    without = losses(model, LATENTS[:, :, :1], generator=plain)
    assert (
        losses(model, LATENTS[:, :, :1], generator=noisy, context_noise=0.5).total == without.total
    )
    assert torch.equal(plain.get_state(), noisy.get_state())
    one = replace(PLAN, frames=1)
    alone = nova.generate(model, TEXT, one, generator=seeded())
    same = nova.generate(model, TEXT, replace(one, context_noise=0.5), generator=seeded())
    assert torch.equal(same, alone)


def test_in_training_noise_reaches_what_the_temporal_tower_sees_and_nothing_else(
    model, monkeypatch
):
    seen = watched(monkeypatch, model)
    mask = truncated_normal_mask(BATCH * FRAMES, 16, generator=seeded(5))
    draws: dict[str, Any] = {
        "mask": mask, "noise": torch.randn(4, int(mask.hidden.sum()), 2, generator=seeded(6)),
        "index": torch.randint(1000, (4, int(mask.hidden.sum())), generator=seeded(7)),
    }  # fmt: skip
    latents = LATENTS.clone()
    before = losses(model, latents, **draws)
    after = losses(model, latents, **draws, context_noise=0.5)
    assert torch.equal(latents, LATENTS)
    for part in ("spatial", "head"):
        clean, again = seen[part]
        assert torch.equal(clean, again)
    clean, noisy = seen["temporal"]
    assert torch.equal(clean, latents[:, :, :-1])
    assert (noisy - clean).std().item() == pytest.approx(0.5, rel=0.2)
    assert after.later is not None
    assert after.total != before.total
    assert after.first == before.first  # which has nothing before it
    assert after.later != before.later


def test_a_clips_level_lies_between_the_least_and_the_largest(model, monkeypatch):
    seen = watched(monkeypatch, model)
    one = torch.zeros(1, 2, 4, 16, 16)
    many = one.expand(30, -1, -1, -1, -1)
    text = torch.zeros(30, 3, 6)
    nova.training_losses(model, many, text, generator=seeded(), repeats=1, context_noise=(0.2, 0.6))
    levels = seen["temporal"][0].flatten(1).std(1)
    assert 0.2 * 0.9 < levels.min() < 0.3
    assert 0.5 < levels.max() < 0.6 * 1.1


def test_noise_that_is_passed_as_seen_gives_the_same_losses(model):
    generator = seeded(4)
    level = 0.1 + (0.3 - 0.1) * torch.rand(BATCH, 1, 1, 1, 1, generator=generator)
    fresh = torch.randn(BATCH, 2, FRAMES - 1, 4, 4, generator=generator)
    seen = LATENTS[:, :, :-1] + level * fresh
    passed = losses(model, generator=generator, seen=seen)
    drawn = losses(model, generator=seeded(4), context_noise=(0.1, 0.3))
    assert torch.allclose(passed.total, drawn.total, rtol=1e-6)
    same = losses(model, seen=LATENTS[:, :, :-1])
    assert same.total == losses(model).total


def test_equal_seeds_give_equal_results_and_others_do_not(model):
    def trained(seed: int) -> float:
        return losses(model, generator=seeded(seed), context_noise=0.3).total.item()

    def made(seed: int) -> Tensor:
        plan = replace(PLAN, context_noise=0.3)
        return nova.generate(model, TEXT, plan, generator=seeded(seed))

    assert trained(3) == trained(3) != trained(4)
    assert torch.equal(made(3), made(3))
    assert not torch.equal(made(3), made(4))


def test_in_generation_only_what_the_temporal_tower_sees_of_earlier_frames_is_noised(
    model, monkeypatch
):
    seen = watched(monkeypatch, model)
    plan = replace(PLAN, context_noise=0.5, guidance=nova.Guidance(1.0))
    frames = nova.generate(model, TEXT, plan, generator=seeded(), context=LATENTS[:, :, :1])
    assert torch.equal(frames[:, :, :1], LATENTS[:, :, :1])
    shown = torch.cat(seen["temporal"], dim=2)
    assert shown.shape[2] == 2  # all frames but the last
    noise = shown - frames[:, :, :2]
    assert noise.std(dim=(0, 1, 3, 4)).tolist() == pytest.approx([0.5, 0.5], rel=0.2)
    assert noise.mean().abs() < 0.1


def test_with_generators_of_their_own_samples_do_not_depend_on_their_batch(model):
    plan = replace(PLAN, context_noise=0.4)
    both = nova.generate(model, TEXT[:2], plan, generator=[seeded(1), seeded(2)])
    alone = nova.generate(model, TEXT[1:2], plan, generator=[seeded(2)])
    torch.testing.assert_close(both[1:], alone)


def test_frames_that_are_given_are_shown_and_not_learned(model):
    mask = truncated_normal_mask(BATCH * FRAMES, 16, ratio="sample", generator=seeded(5))
    count = int(mask.hidden.sum())
    options: dict[str, Any] = {
        "mask": mask, "noise": torch.randn(4, count, 2, generator=seeded(6)),
        "index": torch.randint(1000, (4, count), generator=seeded(7)),
    }  # fmt: skip
    whole = losses(model, **options)
    none = losses(model, **options, given=torch.zeros(BATCH, dtype=torch.long))
    assert none.total == whole.total
    one = losses(model, **options, given=torch.ones(BATCH, dtype=torch.long))
    assert one.later is not None
    assert one.first == 0
    assert one.later == whole.later
    parts = [
        losses(model, **options, given=torch.tensor([0 if i == row else 3 for i in range(BATCH)]))
        for row in range(BATCH)
    ]
    # Each learns one clip's frames, and of the other clips the last one's.
    last = losses(model, **options, given=torch.full((BATCH,), 3))
    assert math.isclose(sum(p.first.item() for p in parts), whole.first.item(), rel_tol=1e-5)
    assert whole.later is not None
    assert last.later is not None
    later = sum(p.later.item() for p in parts if p.later is not None)
    others = (BATCH - 1) * last.later.item()
    assert math.isclose(later - others, whole.later.item(), rel_tol=1e-5)


BAD = [
    ("context_noise", "-0.1", {"context_noise": -0.1}),
    ("context_noise", "nan", {"context_noise": float("nan")}),
    ("context_noise", "inf", {"context_noise": (0.0, float("inf"))}),
    ("context_noise", "True", {"context_noise": True}),
    ("context_noise", "'a little'", {"context_noise": "a little"}),
    ("context_noise", "None", {"context_noise": None}),
]


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        *BAD,
        ("context_noise", "0.1", {"context_noise": (0.3, 0.1)}),
        ("context_noise", "(0.1,)", {"context_noise": (0.1,)}),
        ("context_noise", "(0.1, 0.2, 0.3)", {"context_noise": (0.1, 0.2, 0.3)}),
        ("context_noise", "0.2", {"context_noise": 0.2, "seen": LATENTS[:, :, :-1]}),
        ("seen", "(3, 2, 4, 4, 4)", {"seen": LATENTS}),
        ("seen", "str", {"seen": "frames"}),
        ("seen", "torch.int64", {"seen": LATENTS[:, :, :-1].long()}),
        ("seen", "meta", {"seen": LATENTS[:, :, :-1].to("meta")}),
        ("given", "4", {"given": torch.tensor([0, 4, 0])}),
        ("given", "-1", {"given": torch.tensor([0, -1, 0])}),
        ("given", "(2,)", {"given": torch.tensor([0, 1])}),
        ("given", "torch.float32", {"given": torch.zeros(3)}),
        ("given", "list", {"given": [0, 1, 0]}),
        ("given", "meta", {"given": torch.zeros(3, dtype=torch.long, device="meta")}),
    ],
)
def test_training_refuses_other_noise_other_contexts_and_other_counts(
    model, argument, came, changes, refuses
):
    generator = seeded()
    state = generator.get_state()
    with refuses(argument, came):
        losses(model, generator=generator, **changes)
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [*BAD, ("context_noise", "(0.0", {"context_noise": (0.0, 0.3)})],
)
def test_a_plan_refuses_noise_that_is_no_deviation(argument, came, changes, refuses):
    with refuses(argument, came):
        replace(PLAN, **changes)
