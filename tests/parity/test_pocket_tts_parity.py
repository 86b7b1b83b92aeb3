"""Pocket TTS equals transformers' implementation: states, losses, gradients, what it says.

Bounds are relative to the largest value of each tensor, 1e-4, as for the other recipes.
"""

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from recipes import pocket_tts
from recipes._pocket_tts.keys import to_transformers

pytest.importorskip("transformers", minversion="5.24", reason="transformers below 5.24")
transformers = importlib.import_module("transformers.models.pocket_tts")
# transformers' loss is made by torch's jvp, which calls torch.jit
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
VOICE, LATENT, VOICE_MARK, BEGIN, PAD = 36, 37, 38, 39, 3  # tokens of transformers' sequences
SIZES = {
    "small": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
              "intermediate_size": 56, "head": {"hidden_size": 24, "num_hidden_layers": 2}},
    "wide": {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
             "intermediate_size": 193, "hidden_act": "gelu", "layer_norm_eps": 1e-4,
             "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
             "head": {"hidden_size": 32, "num_hidden_layers": 1, "layer_norm_eps": 1e-4,
                      "loss_weighting_hidden_size": 8}},
}  # fmt: skip


def close(ours: Tensor, theirs: Tensor) -> None:
    ours, theirs = ours.detach(), theirs.detach()
    bound = 1e-4 * float(theirs.abs().max())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=max(bound, 1e-7))


def pair_of(name: str, folder: Any, **options: Any) -> tuple[Any, pocket_tts.PocketTTS]:
    """Return transformers' model with random weights, and ours, loaded from its folder."""
    sizes = {**SIZES[name], **options}
    head = {**sizes.pop("head"), "latent_dim": 4, "condition_dim": sizes["hidden_size"]}
    config = transformers.PocketTTSConfig(
        **sizes, latent_dim=4, vocab_size=40, audio_prompt_token_id=VOICE,
        audio_latent_token_id=LATENT, audio_prompt_bos_token_id=VOICE_MARK,
        audio_bos_token_id=BEGIN, pad_token_id=PAD, latent_stats_ema_steps=0, frame_rate=2.5,
        lsd_distill_probability=1.0, flow_head_config=head,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = transformers.PocketTTSForConditionalGeneration(config).eval()
        with torch.no_grad():
            for parameter in theirs.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.15)
            theirs.latent_mean.normal_()
            theirs.latent_std.uniform_(0.5, 2)
    theirs.save_pretrained(folder)
    return theirs, pocket_tts.from_pretrained(folder)


@pytest.fixture(scope="module", params=list(SIZES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return pair_of(request.param, tmp_path_factory.mktemp("theirs"))


DRAWS = torch.Generator().manual_seed(1)
TEXTS = [torch.randint(4, 30, (length,), generator=DRAWS) for length in (5, 8)]
VOICES = [torch.randn(frames, 4, generator=DRAWS) for frames in (3, 2)]
LATENTS = [torch.randn(frames, 4, generator=DRAWS) for frames in (6, 4)]


def their_inputs(voices: bool, latents: bool) -> dict[str, Tensor]:
    """Return the prompts as transformers' processor lays them out, filled up on the left."""
    rows = []
    for i, text in enumerate(TEXTS):
        voice = [VOICE_MARK, *[VOICE] * len(VOICES[i])] if voices else []
        after = [LATENT] * len(LATENTS[i]) if latents else []
        rows.append(torch.tensor([*voice, *text.tolist(), BEGIN, *after]))
    ids = pad_sequence(rows, batch_first=True, padding_value=PAD, padding_side="left")
    known = [torch.ones(len(row), dtype=torch.int64) for row in rows]
    inputs = {"input_ids": ids}
    inputs["attention_mask"] = pad_sequence(known, batch_first=True, padding_side="left")
    for name, given, sounds in (
        ("audio_prompt_latents", voices, VOICES),
        ("labels", latents, LATENTS),
    ):
        if given:
            inputs[name] = pad_sequence(sounds, batch_first=True)
            of_each = [torch.ones(len(sound), dtype=torch.int64) for sound in sounds]
            inputs[f"{name}_mask"] = pad_sequence(of_each, batch_first=True)
    return inputs


class TheirNoise(pocket_tts.Noise):
    """Draws from torch's global generator, as transformers do."""

    def __init__(self) -> None:
        super().__init__(torch.Generator())

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape)


def test_weights_come_back_as_they_were(pair: Any) -> None:
    theirs, ours = pair
    back, known = ours.official_state_dict(), theirs.state_dict()
    others = {name for name in known if name.endswith((".freqs", "latent_stats_num_updates"))}
    assert back.keys() == known.keys() - others
    assert all(torch.equal(back[name], known[name]) for name in back)


@pytest.mark.parametrize("voices", [False, True])
def test_the_towers_states_and_end_logits_are_equal(pair: Any, voices: bool) -> None:
    theirs, ours = pair
    inputs = their_inputs(voices, latents=True)
    with torch.no_grad():
        known = theirs(**inputs)
        clean = [ours.normalize(x) for x in LATENTS]
        x, pads = ours.sequences(TEXTS, VOICES if voices else [None] * 2, clean)
        rope, padding = ours.places(x.shape[1], pads)
        z = ours(x, rope=rope, padding_mask=padding)
    seen = inputs["attention_mask"].bool()
    close(z[seen], known.last_hidden_state[seen])
    close(ours.end(z)[seen], known.logits[seen])


def their_draws(repeats: int, count: int) -> dict[str, Tensor]:
    """Return what transformers' loss draws from the global generator."""
    noise = torch.randn(repeats * count, 4)
    logits = torch.cat([torch.randn(repeats * count, 1), torch.randn(repeats * count, 2)], dim=1)
    times = (logits + 0.4).sigmoid().view(repeats, count, 3).permute(2, 0, 1)
    return {"noise": noise.view(repeats, count, 4), "times": times}


@pytest.mark.parametrize("voices", [False, True])
def test_losses_and_their_gradients_are_equal(pair: Any, voices: bool) -> None:
    theirs, ours = pair
    for model in pair:
        model.zero_grad()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        known = theirs(**their_inputs(voices, latents=True)).loss
        torch.manual_seed(7)
        draws = their_draws(4, sum(map(len, LATENTS)))
    sounds = VOICES if voices else None
    losses = pocket_tts.training_losses(ours, TEXTS, LATENTS, voices=sounds, head_options=draws)
    close(losses.total, known)
    known.backward()
    losses.total.backward()
    grads = {name: x.grad for name, x in ours.named_parameters() if x.grad is not None}
    of_theirs = {name: x.grad for name, x in theirs.named_parameters() if x.grad is not None}
    renamed = to_transformers(grads, ours.sizes.tower.heads)
    assert renamed.keys() == of_theirs.keys()
    for name, grad in renamed.items():
        close(grad, of_theirs[name])


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("voices", [False, True])
def test_generation_from_given_noise_is_equal_with_the_cache(
    pair: Any, voices: bool, steps: int
) -> None:
    theirs, ours = pair
    limit = float(theirs.eos_head.bias.detach())  # some samples end early, others do not
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        known = theirs.generate(
            **their_inputs(voices, latents=False), max_new_tokens=12, do_sample=True,
            temperature=0.5, num_flow_steps=steps, eos_threshold=limit, min_frames_before_eos=2,
            frames_after_eos=torch.tensor([3, 1]), return_dict_in_generate=True,
        )  # fmt: skip
        torch.manual_seed(5)
        plan = pocket_tts.SpeechPlan(
            frames=12, steps=steps, temperature=0.5, threshold=limit, least=2, tail=(3, 1)
        )
        sounds = VOICES if voices else None
        said = pocket_tts.generate(ours, TEXTS, plan, voices=sounds, noise=TheirNoise())
    assert torch.equal(said.lengths, known.audio_latents_mask.sum(1))
    close(said.latents, known.audio_latents)


def test_the_longest_speech_is_as_long(pair: Any) -> None:
    theirs, ours = pair
    never = {"eos_threshold": 1e9, "do_sample": False, "frames_after_eos": 0}
    known = theirs.generate(**their_inputs(False, False), **never, return_dict_in_generate=True)
    said = pocket_tts.generate(
        ours, TEXTS, pocket_tts.SpeechPlan(temperature=0.0, threshold=1e9, tail=0)
    )
    assert said.latents.shape == known.audio_latents.shape
    close(said.latents, known.audio_latents)
