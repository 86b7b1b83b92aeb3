"""Pocket TTS: what it says, when it stops, how it learns, what it refuses."""

import math
from typing import Any

import pytest
import torch
from tiny_pocket import HEAD, SIZES, TEXTS, VOICES, tiny_pocket
from torch import nn

from recipes import pocket_tts
from recipes.pocket_tts import SpeechPlan

NEVER = SpeechPlan(frames=5, threshold=1e9)


@pytest.fixture(scope="module")
def model():
    return tiny_pocket()


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_generation_leaves_the_model_as_it_was_and_repeats_itself(model):
    before = {name: x.clone() for name, x in model.state_dict().items()}
    first, again = (pocket_tts.generate(model, TEXTS, NEVER, noise=draws()) for _ in range(2))
    assert first.latents.shape == (2, 5, 4)
    assert first.latents.dtype == torch.float32
    assert torch.equal(first.latents, again.latents)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_a_sample_depends_on_its_own_text_voice_and_generator_alone(model):
    both = pocket_tts.generate(model, TEXTS, NEVER, voices=VOICES, noise=[draws(1), draws(2)])
    for i, seed in enumerate((1, 2)):
        alone = pocket_tts.generate(
            model, TEXTS[i : i + 1], NEVER, voices=VOICES[i : i + 1], noise=[draws(seed)]
        )
        torch.testing.assert_close(both.latents[i], alone.latents[0], rtol=1e-4, atol=1e-5)


def test_text_and_voice_are_heard(model):
    said = pocket_tts.generate(model, TEXTS[:1], NEVER, voices=VOICES[:1], noise=draws())
    for text, voice in (([3, 1, 4, 1, 6], VOICES[0]), (TEXTS[0], VOICES[1]), (TEXTS[0], None)):
        other = pocket_tts.generate(model, [text], NEVER, voices=[voice], noise=draws())
        assert not torch.allclose(said.latents, other.latents, atol=1e-3)


def test_with_its_cache_it_says_what_the_whole_sequence_says(model):
    said = pocket_tts.generate(model, TEXTS, NEVER, voices=VOICES, noise=draws(3)).latents
    source = pocket_tts.Noise(draws(3))
    latents = torch.zeros(2, 0, 4)
    with torch.no_grad():
        for _ in range(5):
            texts = [torch.tensor(text) for text in TEXTS]
            x, pads = model.sequences(texts, VOICES, list(latents))
            rope, padding = model.places(x.shape[1], pads)
            z = model(x, rope=rope, padding_mask=padding)[:, -1:]
            drawn = model.head.sample(z, temperature=math.sqrt(0.7), noise=source)
            latents = torch.cat([latents, drawn], dim=1)
    torch.testing.assert_close(said, model.denormalize(latents), rtol=1e-4, atol=1e-5)


def test_a_stream_has_the_latents_of_a_call_and_generations_may_take_turns(model):
    whole = pocket_tts.generate(model, TEXTS, NEVER, noise=draws())
    streams = [pocket_tts.stream(model, TEXTS, NEVER, noise=draws(seed)) for seed in (0, 1)]
    pairs = list(zip(*streams, strict=True))
    assert torch.is_grad_enabled()
    assert not pairs[-1][0].latents.requires_grad
    assert torch.equal(torch.stack([first.latents for first, _ in pairs], dim=1), whole.latents)


def ended(model, logits, **plan):
    """Return the lengths of samples whose end-of-speech logits are given, [frames][sample]."""
    rows = iter(logits)
    end, model.end = model.end, nn.Identity()
    model.end.register_forward_hook(lambda _, z, __: z[0].new_tensor(next(rows))[:, None, None])
    try:
        said = pocket_tts.generate(model, TEXTS, SpeechPlan(**plan), noise=draws())
    finally:
        model.end = end
    for latents, length in zip(said.latents, said.lengths, strict=True):
        assert latents[:length].any(dim=1).all()
        assert not latents[length:].any()
    return said.lengths.tolist()


def test_a_sample_ends_its_tail_after_the_first_logit_above_the_threshold(model):
    logits = [(9, 9), (-1, -1), (1, -1), (-1, -1), (1, 1), (-1, -1), (-1, -1)]
    assert ended(model, logits, frames=7, threshold=0.0, least=1, tail=2) == [5, 7]
    assert ended(model, logits, frames=7, threshold=0.0, least=1, tail=0) == [3, 5]
    assert ended(model, logits, frames=7, threshold=0.0, least=0, tail=(1, 3)) == [2, 4]
    assert ended(model, logits, frames=4, threshold=0.0, least=1, tail=9) == [4, 4]


def test_nothing_is_said_beyond_what_the_longest_text_may_take(model):
    said = pocket_tts.generate(model, [[1], [1, 2, 3]], SpeechPlan(threshold=1e9), noise=draws())
    assert said.latents.shape[1] == math.ceil((3 / 3 + 2) * 12.5)


def test_without_temperature_noise_does_not_matter(model):
    cold = SpeechPlan(frames=3, threshold=1e9, temperature=0.0)
    first, other = (pocket_tts.generate(model, TEXTS, cold, noise=draws(s)) for s in (0, 1))
    assert torch.equal(first.latents, other.latents)


def test_latents_come_back_from_their_scale(model):
    latents = torch.randn(3, 4)
    torch.testing.assert_close(model.denormalize(model.normalize(latents)), latents)


def test_what_is_measured_brings_latents_to_mean_0_and_deviation_1():
    model = tiny_pocket()
    latents = [torch.randn(7, 4) * 3 + 2, torch.randn(5, 4)]
    pocket_tts.measure(model, latents)
    together = model.normalize(torch.cat(latents))
    torch.testing.assert_close(together.mean(0), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(together.std(0), torch.ones(4))


def test_a_step_learns_to_speak_and_to_end():
    model = tiny_pocket()
    latents = [VOICES[0], VOICES[1]]
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    seen = []
    for _ in range(20):
        losses = pocket_tts.training_losses(
            model, TEXTS, latents, end_weight=0.5, generator=draws()
        )
        torch.testing.assert_close(losses.total, losses.flow + 0.5 * losses.end)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        seen.append(losses)
    assert seen[-1].end < 0.5 * seen[0].end
    assert seen[-1].flow < seen[0].flow
    assert all(p.grad is not None for p in model.parameters() if p is not model.voice.weight)


def test_a_loss_is_that_of_its_samples_one_by_one(model):
    latents = [VOICES[0], VOICES[1]]
    options = {"repeats": 1, "end_weight": 0.0, "generator": draws()}
    noise = torch.randn(1, 5, 4)
    times = torch.rand(3, 1, 5)
    given = {"noise": noise, "times": times}
    model = tiny_pocket(head={**HEAD, "share": 0.0})  # which draws learn jumps is not given
    both = pocket_tts.training_losses(model, TEXTS, latents, **options, head_options=given)
    alone = [
        pocket_tts.training_losses(
            model, [text], [x], **options,
            head_options={"noise": noise[:, cut], "times": times[:, :, cut]},
        )
        for text, x, cut in zip(TEXTS, latents, (slice(0, 3), slice(3, 5)), strict=True)
    ]  # fmt: skip
    mean = (3 * alone[0].total + 2 * alone[1].total) / 5
    torch.testing.assert_close(both.total, mean, rtol=1e-4, atol=1e-6)


def test_checkpointing_changes_no_gradient(model):
    grads = []
    for checkpoint in (False, True):
        model.zero_grad()
        losses = pocket_tts.training_losses(
            model, TEXTS, VOICES, generator=draws(), checkpoint=checkpoint
        )
        losses.total.backward()
        grads.append(model.tower.blocks[0].attn.qkv.weight.grad.clone())
    model.zero_grad()
    torch.testing.assert_close(*grads)


def test_any_head_says_something():
    for head in ({"name": "flow", "width": 16, "depth": 1, "steps": 3},
                 {"name": "mixture", "width": 16, "components": 2}):  # fmt: skip
        model = tiny_pocket(head=head)
        plan = SpeechPlan(frames=2, temperature=1.0)
        assert pocket_tts.generate(model, TEXTS, plan, noise=draws()).latents.shape == (2, 2, 4)
        losses = pocket_tts.training_losses(model, TEXTS, VOICES, generator=draws())
        losses.total.backward()


def test_a_model_survives_saving_and_loading(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = pocket_tts.from_pretrained(tmp_path)
    assert loaded.sizes == model.sizes
    assert not loaded.training
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_model_of_bfloat16_speaks():
    model: Any = tiny_pocket()
    model.to(torch.bfloat16)
    said = pocket_tts.generate(model, TEXTS, NEVER, voices=VOICES, noise=draws())
    assert said.latents.isfinite().all()
    assert said.latents.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tower", (2, 16, 3)), ("tower", (2, 6, 2)), ("hidden", 0), ("vocabulary", 0),
        ("token_dim", 0), ("rate", 0), ("rate", -1.0), ("voice_mark", 20), ("activation", "relu"),
        ("eps", -1), ("theta", 0), ("head", {"name": "nothing"}),
    ],
)  # fmt: skip
def test_sizes_that_do_not_fit_are_refused(name, value, refuses):
    with refuses(name):
        pocket_tts.PocketTTSConfig(**{**SIZES, "voice_mark": 19, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frames", 0), ("steps", 0), ("temperature", -1), ("threshold", math.nan), ("least", -1),
        ("tail", -1), ("tail", (1, -1)),
    ],
)  # fmt: skip
def test_plans_that_mean_nothing_are_refused(name, value, refuses):
    with refuses(name):
        SpeechPlan(**{name: value})


@pytest.mark.parametrize(
    ("argument", "changed"),
    [
        ("texts", {"texts": []}),
        ("texts", {"texts": "hello"}),
        ("texts[1]", {"texts": [[1], [20]]}),
        ("texts[1]", {"texts": [[1], []]}),
        ("texts[0]", {"texts": [[1.5], [2]]}),
        ("texts[0]", {"texts": [torch.zeros(1, 2, dtype=torch.int64), [1]]}),
        ("voices", {"voices": [VOICES[0]]}),
        ("voices[0]", {"voices": [torch.zeros(2, 3), None]}),
        ("voices[1]", {"voices": [None, torch.zeros(0, 4)]}),
        ("voices[1]", {"voices": [None, torch.full((2, 4), torch.nan)]}),
        ("noise", {"noise": [torch.Generator()]}),
        ("plan", {"plan": 3}),
        ("plan.tail", {"plan": SpeechPlan(tail=(1, 2, 3))}),
        ("backend", {"backend": "none"}),
        ("model", {"model": nn.Linear(1, 1)}),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_latent(model, argument, changed, refuses):
    call = {"model": model, "texts": TEXTS, "plan": NEVER, **changed}
    with refuses(argument):
        pocket_tts.stream(**call)


@pytest.mark.parametrize(
    ("argument", "changed"),
    [
        ("latents", {"latents": VOICES[:1]}),
        ("latents[1]", {"latents": [VOICES[0], torch.zeros(2, 5)]}),
        ("latents[1]", {"latents": [VOICES[0], torch.full((2, 4), torch.inf)]}),
        ("head_options['time']", {"head_options": {"time": torch.zeros(3)}}),
        ("head_options['repeats']", {"head_options": {"repeats": 2}}),
        ("head_options", {"head_options": [3]}),
        ("repeats", {"repeats": 0}),
        ("end_weight", {"end_weight": -1}),
        ("checkpoint", {"checkpoint": 1}),
        ("generator", {"generator": 5}),
    ],
)
def test_a_step_that_does_not_fit_is_refused(model, argument, changed, refuses):
    with refuses(argument):
        pocket_tts.training_losses(**{"model": model, "texts": TEXTS, "latents": VOICES, **changed})


def test_latents_that_measure_nothing_are_refused(model, refuses):
    for latents in ([], [torch.zeros(1, 4)], [torch.zeros(3, 4)], [torch.full((2, 4), torch.nan)]):
        with refuses("latents"):
            pocket_tts.measure(model, latents)
    with refuses("latents", "int"):
        pocket_tts.measure(model, 3)  # type: ignore[arg-type]
