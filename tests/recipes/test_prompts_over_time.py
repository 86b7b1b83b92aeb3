"""Prompts that change, and temperatures that do, from frame to frame."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from contar._memory import peak_bytes
from contar.heads import DiffusionHead
from recipes import nova

SIZES = nova.NovaConfig(
    temporal=nova.Tower(2, 32, 1), encoder=nova.Tower(1, 32, 1), decoder=nova.Tower(1, 32, 1),
    head={"name": "flow", "width": 16, "depth": 1}, text_width=6,
    text_length=3, text_rows=4, channels=2, patch=1, latent=(4, 4), frames=4, adapter=2,
)  # fmt: skip
DRAWS = torch.Generator().manual_seed(1)
ONE, TWO, THREE = torch.randn(3, 2, 3, 6, generator=DRAWS)
ORDER = torch.arange(16).expand(2, -1)
PLAN = nova.GenerationPlan(sets=2, diffusion_steps=2, guidance=nova.Guidance(2.0))


@pytest.fixture(scope="module", params=["absolute", "rotary"])
def model(request) -> nova.Nova:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nova.build(replace(SIZES, positions=request.param)).eval()
        torch.nn.init.normal_(model.head.network.out.weight, std=0.1)
        assert model.adapter is not None
        torch.nn.init.normal_(model.adapter.up.weight, std=0.1)
        return model


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


half = settings(max_examples=settings().max_examples // 2)  # each of several generations


def make(model: nova.Nova, prompt: Any, generator: Any, *, context: Any = None, **plan: Any):
    options = {"generator": generator, "context": context, "order": ORDER}
    return nova.generate(model, prompt, replace(PLAN, **plan), **options)


@half
@given(frames=st.integers(2, 6), data=st.data())
def test_a_changed_prompt_is_one_that_was_given_the_frames_so_far(model, frames, data):
    """Recomputing: the second half is a generation of its own, by the second prompt alone."""
    change = data.draw(st.integers(1, frames - 1), "change")
    plan = {"frames": frames, "times": data.draw(st.sampled_from([None, "continue"]), "times")}
    found = make(model, [(0, ONE), (change, TWO)], seeded(), **plan)
    generator = seeded()
    stream = nova.stream(model, ONE, replace(PLAN, **plan), generator=generator, order=ORDER)
    first = torch.stack([next(stream) for _ in range(change)], dim=2)
    second = make(model, TWO, generator, context=first, **plan)
    torch.testing.assert_close(found, second, rtol=1e-4, atol=1e-5)
    unchanged = make(model, ONE, seeded(), **plan)
    assert torch.equal(found[:, :, :change], unchanged[:, :, :change])
    assert not torch.allclose(found[:, :, change:], unchanged[:, :, change:], atol=1e-4)


@half
@given(frames=st.integers(3, 8), window=st.integers(1, 3), pinned=st.integers(1, 2), data=st.data())
def test_under_a_window_it_is_read_with_the_frames_in_sight_and_no_others(
    model, frames, window, pinned, data
):
    """The tower sees what a clip of the frames in sight shows it, each at its own time."""
    change = data.draw(st.integers(1, frames - 1), "change")
    laws = ["continue"] + (["window"] if model.times is None else ["stretch"])
    law = data.draw(st.sampled_from(laws), "law")
    plan = replace(PLAN, frames=frames, window=window, pinned=pinned, times=law)
    seen = plan.in_sight(change)
    made = make(model, ONE, seeded(), **vars(plan))  # up to the change the same

    features: list[Tensor] = []
    hook = model.temporal.register_forward_hook(lambda _, __, out: features.append(out))
    changed = make(model, [(0, ONE), (change, TWO)], seeded(), **vars(plan))
    hook.remove()
    assert torch.equal(changed[:, :, :change], made[:, :, :change])

    tokens = [model.frame_tokens(None, 2, 4)]
    tokens += [model.frame_tokens(changed[:, :, t - 1 : t], 2, 4) for t in range(1, change + 1)]
    added = model.added_positions(frames, (2, 2), law=law if law != "window" else None)
    x = torch.cat([tokens[t] if added is None else tokens[t] + added[t] for t in seen], dim=1)
    text = torch.cat([model.text.pad(TWO), model.text.empty(2)])
    motion = torch.full((4,), 5.0), torch.full((4,), 12.0)
    prefix = model.prefix(text, *motion)
    rope = model.rotary_positions(frames, (2, 2), prefix.shape[1], seen=seen, law=law)
    options = {"window": window, "pinned": pinned}
    with torch.no_grad():
        expected = model.temporal(x.repeat(2, 1, 1, 1), prefix=prefix, rope=rope, **options)
    torch.testing.assert_close(features[change], expected, rtol=1e-4, atol=1e-5)


@half
@given(change=st.integers(1, 7), overlap=st.integers(1, 2))
def test_a_chunk_is_read_under_the_prompt_of_its_first_new_frame(model, change, overlap):
    plan = {"frames": 8, "chunk": 3, "overlap": overlap}
    found = make(model, [(0, ONE), (change, TWO)], seeded(), **plan)
    unchanged = make(model, ONE, seeded(), **plan)
    assert torch.equal(found[:, :, :change], unchanged[:, :, :change])
    assert not torch.allclose(found[:, :, change:], unchanged[:, :, change:], atol=1e-4)


def test_prompts_that_are_all_the_same_come_near_to_one(model):
    """Reading anew changes nothing but the rounding, as all of the clip is in sight."""
    for plan in ({"frames": 5}, {"frames": 7, "chunk": 3}):
        found = make(model, [(0, ONE), (2, ONE.clone()), (4, ONE.clone())], seeded(), **plan)
        expected = make(model, ONE, seeded(), **plan)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_prompt_in_force_at_the_first_new_frame_holds_for_given_ones(model):
    context = make(model, ONE, seeded(), frames=2)
    found = make(model, [(0, ONE), (1, TWO)], seeded(), context=context, frames=4)
    assert torch.equal(found, make(model, TWO, seeded(), context=context, frames=4))
    three = [(0, ONE), (2, TWO), (3, THREE)]
    assert make(model, three, seeded(), frames=4, context_noise=0.3).isfinite().all()


@pytest.mark.parametrize(
    ("argument", "came", "prompt", "plan"),
    [
        ("prompt_embeds frames", "[1]", [(1, ONE)], {}),
        ("prompt_embeds frames", "[0, 3, 2]", [(0, ONE), (3, TWO), (2, TWO)], {}),
        ("prompt_embeds frames", "[0, 2, 2]", [(0, ONE), (2, TWO), (2, TWO)], {}),
        ("prompt_embeds frames", "[0, 4]", [(0, ONE), (4, TWO)], {}),
        ("prompt_embeds frame", "-1", [(0, ONE), (-1, TWO)], {}),
        ("prompt_embeds frame", "1.5", [(0, ONE), (1.5, TWO)], {}),
        ("prompt_embeds", "Tensor", [(0, ONE), TWO], {}),
        ("prompt_embeds", "1 texts from frame 2 on", [(0, ONE), (2, TWO[:1])], {}),
        ("plan.pinned", "0", [(0, ONE), (2, TWO)], {"window": 2, "pinned": 0}),
        ("chunk", "2", ONE, {"chunk": 2, "overlap": 2}),
        ("chunk", "1", ONE, {"chunk": 1, "overlap": 3}),
        ("temperature", "(1.0, 0.5, 0.2)", ONE, {"temperature": (1.0, 0.5, 0.2)}),
        ("temperature", "-0.5", ONE, {"temperature": (1.0, -0.5)}),
    ],
)
def test_prompts_out_of_order_and_other_slips_are_refused(
    model, argument, came, prompt, plan, refuses
):
    with refuses(argument, came):
        nova.stream(model, prompt, replace(PLAN, frames=4, **plan))


def test_a_temperature_goes_evenly_from_the_first_frame_s_to_the_last_s(model, monkeypatch):
    told: list[float] = []
    sample = DiffusionHead.sample

    def recorded(self: Any, *args: Any, temperature: float, **options: Any) -> Tensor:
        told.append(temperature)
        return sample(self, *args, temperature=temperature, **options)

    monkeypatch.setattr(DiffusionHead, "sample", recorded)
    noisy = {"name": "diffusion", "width": 16, "depth": 1}
    model = nova.build(replace(model.sizes, head=noisy)).eval()
    for plan in ({}, {"chunk": 3}):
        told.clear()
        make(model, ONE, seeded(), frames=5, temperature=(1.0, 0.6), **plan)
        assert told == pytest.approx([1.0, 1.0, 0.9, 0.9, 0.8, 0.8, 0.7, 0.7, 0.6, 0.6])


def test_600_latent_frames_in_chunks_take_the_memory_of_60():
    """Bytes of tensors alive at once, counted; frames are let go as they come."""
    tower = nova.Tower(1, 16, 1)
    sizes = {"temporal": tower, "encoder": tower, "decoder": tower, "latent": (2, 2)}
    model = nova.build(replace(SIZES, adapter=None, **sizes))
    texts = [(0, ONE[:1]), (7, TWO[:1]), (40, ONE[:1])]

    def peak(frames: int) -> int:
        plan = nova.GenerationPlan(
            frames=frames, sets=1, diffusion_steps=1, guidance=nova.Guidance(1.0), chunk=6
        )

        def generate() -> None:
            for _ in nova.stream(model, texts, plan, generator=seeded()):
                pass

        return peak_bytes(generate)

    short, long = peak(60), peak(600)
    assert long <= 1.05 * short, (short, long)
    cache = 2 * 16 * 4 * (5 + 6)  # keys and values, of prefix and 6 frames of one coarse token
    assert short > cache


CHECKPOINT = Path(__file__).parents[1] / "goldens" / "checkpoint"  # 4 frames in a latent one
FOX, DOG = "the quick brown fox", "a lazy dog"
FAST: dict[str, Any] = {"num_frames": 13, "num_inference_steps": 2, "num_diffusion_steps": 2}


@pytest.fixture(scope="module")
def pipe() -> nova.NovaPipeline:
    pipe = nova.from_pretrained(CHECKPOINT, num_heads=(4, 4))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize(("frame", "latent"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3), (12, 3)])
def test_in_a_pipeline_a_prompt_holds_from_the_latent_frame_in_which_its_frame_is(
    pipe, frame, latent
):
    options = {**FAST, "output_type": "latent"}
    found = pipe([(0, FOX), (frame, DOG)], generator=seeded(), **options).frames
    fox = pipe(FOX, generator=seeded(), **options).frames
    assert torch.equal(found[:, :, :latent], fox[:, :, :latent])
    assert not torch.allclose(found[:, :, latent], fox[:, :, latent])


def test_a_pipeline_s_prompts_over_time_are_those_of_the_network_and_stream(pipe):
    options = {**FAST, "num_images_per_prompt": 2, "negative_prompt": "fog"}
    texts = [(0, [FOX, DOG]), (5, [DOG, FOX])]
    draws = [torch.Generator().manual_seed(seed) for seed in range(4)]
    made = pipe(texts, generator=draws, output_type="latent", **options).frames
    one = pipe([(0, FOX), (5, DOG)], generator=[seeded(0), seeded(1)], output_type="latent",
               **options).frames  # fmt: skip
    draws = [seeded(0), seeded(1), seeded(2), seeded(3)]
    again = pipe(texts, generator=draws, output_type="latent", **options).frames
    torch.testing.assert_close(again, made, rtol=0, atol=2e-3)
    torch.testing.assert_close(again[:2], one, rtol=0, atol=2e-3)
    pieces = list(pipe.stream([(0, FOX), (5, DOG)], generator=seeded(), **FAST))
    assert [piece.shape[:-3] for piece in pieces] == [(1,), (4,), (4,), (4,)]


@pytest.mark.parametrize(
    ("argument", "came", "prompt", "options"),
    [
        ("prompt frames", "[9, 0]", [(9, DOG), (0, FOX)], {}),
        ("prompt frames", "[0, 13]", [(0, FOX), (13, DOG)], {}),
        ("prompt frames", "[0, 5, 8]", [(0, FOX), (5, DOG), (8, FOX)], {}),
        ("prompt frame", "0.5", [(0, FOX), (0.5, DOG)], {}),
        ("prompt", "lazy", [(0, FOX), DOG], {}),
        ("prompt", "2 texts", [(0, FOX), (5, [DOG, DOG])], {}),
        ("prompt", "None", [(0, FOX), (5, None)], {}),
        ("prompt", "3", [(0, FOX), (5, 3)], {}),
        ("plan.pinned", "0", [(0, FOX), (5, DOG)], {"plan_changes": {"window": 2, "pinned": 0}}),
        ("mix", "prompts that change", [(0, FOX), (5, DOG)], {"mix": (DOG, 0.5)}),
        ("plan.times", "window", FOX, {"plan_changes": {"times": "window"}}),
        ("chunk", "2", FOX, {"plan_changes": {"chunk": 2, "overlap": 3}}),
    ],
)
def test_a_pipeline_refuses_prompts_out_of_order_before_work(
    pipe, argument, came, prompt, options, refuses, monkeypatch
):
    monkeypatch.setattr(pipe, "_states", None)  # the first thing that is done
    with refuses(argument, came):
        pipe(prompt, **FAST, **options)
