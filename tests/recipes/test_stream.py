"""A stream gives a call's frames, each as soon as its latent frame is there."""

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from contar.media import read_video, write_video
from contar.tokenizers import CausalVAE, VAETokenizer
from recipes import nova

CHECKPOINT = Path(__file__).parents[1] / "goldens" / "checkpoint"  # with an Open-Sora-Plan VAE
SEVEN, TWO = "a seven moves to the left", ["a seven moves to the left", "a 3 moves up"]
FAST: dict[str, Any] = {"num_inference_steps": 2, "num_diffusion_steps": 2}


def quiet(pipe: nova.NovaPipeline) -> nova.NovaPipeline:
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipe() -> nova.NovaPipeline:
    return quiet(nova.from_pretrained("moving-digits", dtype=torch.float32))


@pytest.fixture(scope="module")
def pooled() -> nova.NovaPipeline:
    return quiet(nova.from_pretrained(CHECKPOINT, num_heads=(4, 4)))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def joined(pieces: Any) -> np.ndarray:
    return np.concatenate(list(pieces), axis=-4)


def assert_same(streamed: np.ndarray, whole: np.ndarray) -> None:
    """As good as equal: a library may add up pieces of another length in another order."""
    assert streamed.dtype == whole.dtype == np.uint8
    assert streamed.shape == whole.shape
    apart = np.abs(streamed.astype(int) - whole)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 1e-3


def digits(frames: int) -> np.ndarray:
    clip = np.zeros((frames, 64, 64, 3), np.uint8)
    for t in range(frames):
        clip[t, 20:44, 20 + t : 26 + t] = 255
    return clip


GIVEN = {
    "words": {},
    "image": {"image": digits(1)[0]},
    "video": {"video": digits(5)},
    "all": {"video": digits(9), "num_frames": 9},
    "chunks": {"plan_changes": {"chunk": 3, "overlap": 1}, "num_frames": 21},
    "video and chunks": {
        "video": digits(5), "plan_changes": {"chunk": 3, "overlap": 2}, "num_frames": 17,
    },
    "one frame": {"num_frames": 1},
}  # fmt: skip


@settings(max_examples=min(settings().max_examples, 12))
@given(st.sampled_from(sorted(GIVEN)), st.booleans(), st.integers(1, 2), st.booleans(),
       st.integers(0, 99))  # fmt: skip
def test_a_stream_is_the_whole_call_in_pieces(pipe, kind, several, copies, each, seed):
    prompt = TWO if several else SEVEN
    batch = copies * (2 if several else 1)
    options = {"num_frames": 9, **FAST, **GIVEN[kind], "num_images_per_prompt": copies}

    def draws() -> Any:
        return [seeded(seed + i) for i in range(batch)] if each else seeded(seed)

    whole = pipe(prompt, **options, generator=draws()).frames
    pieces = list(pipe.stream(prompt, **options, generator=draws()))
    latents = (options["num_frames"] + 3) // 4
    assert [piece.shape[-4] for piece in pieces] == [1, *[4] * (latents - 1)]
    assert_same(joined(pieces), whole if batch > 1 else whole[0])


def test_a_list_of_one_text_and_embeddings_keep_their_axis(pipe):
    states = torch.zeros(1, 2, pipe.transformer.sizes.text_width)
    for options in ({"prompt": [SEVEN]}, {"prompt_embeds": states}):
        (piece,) = pipe.stream(**options, num_frames=1, **FAST, generator=seeded())
        assert piece.shape == (1, 1, 64, 64, 3)


class Counted:
    """What a pipeline does, counted: sets of tokens, latent frames that are decoded."""

    def __init__(self, pipe: nova.NovaPipeline) -> None:
        self.sets = self.latents = 0
        decode = CausalVAE.decode_next

        def decode_next(vae: Any, z: Any, state: Any = None) -> Any:
            self.latents += z.shape[2]
            return decode(vae, z, state)

        self.patch = mock.patch.object(CausalVAE, "decode_next", decode_next)

    def set_done(self, *_: Any) -> None:
        self.sets += 1


def test_the_first_frame_comes_after_a_fifth_of_the_work_and_the_others_likewise(pipe):
    counts = Counted(pipe)
    with counts.patch:
        frames = pipe.stream(SEVEN, callback_on_step_end=counts.set_done, generator=seeded())
        assert (counts.sets, counts.latents) == (0, 0)  # nothing is done before it is asked for
        seen = [(piece.shape[0], counts.sets, counts.latents) for piece in frames]
    sets = counts.sets // 5  # of each of the 5 latent frames, each of which is decoded once
    assert sets > 1
    assert seen == [(n, i * sets, i) for i, n in enumerate((1, 4, 4, 4, 4), start=1)]


def test_given_frames_come_before_anything_is_generated(pipe):
    counts = Counted(pipe)
    options = {"video": digits(5), "num_frames": 9, **FAST}
    frames = pipe.stream(SEVEN, **options, callback_on_step_end=counts.set_done)
    assert [(len(piece), counts.sets) for piece in frames] == [(1, 0), (4, 0), (4, 2)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("num_frames", {"num_frames": 6}),
        ("num_inference_steps", {"num_inference_steps": 0}),
        ("guidance_scale", {"guidance_scale": -1}),
        ("video", {"video": digits(9), "num_frames": 5}),
        ("image", {"image": digits(1)[0][:32]}),
        ("motion_flow", {"motion_flow": [1.0, 2.0]}),
        ("generator", {"generator": [seeded()] * 2}),
        ("plan_changes", {"plan_changes": {"frames": 3}}),
        ("callback_on_step_end", {"callback_on_step_end": 3}),
        ("negative_prompt", {"negative_prompt": ["a", "b"]}),
        ("prompt", {"prompt": None}),
    ],
)
def test_what_a_call_refuses_is_refused_before_a_frame_is_asked_for(pipe, refuses, name, options):
    with refuses(name):
        pipe.stream(**{"prompt": SEVEN, **options})


def test_what_says_how_a_call_answers_is_no_argument_of_a_stream(pipe):
    for name, value in (("output_type", "pt"), ("return_dict", True), ("frames", 5)):
        with pytest.raises(TypeError, match=name):
            pipe.stream(SEVEN, **{name: value})


def test_streams_in_turns_equal_streams_one_after_the_other_and_leave_the_model_as_it_was(pipe):
    before = {k: v.clone() for part in (pipe.transformer, pipe.vae)
              for k, v in part.state_dict().items()}  # fmt: skip
    options = {"num_frames": 9, **FAST}
    alone = [joined(pipe.stream(SEVEN, **options, generator=seeded(i))) for i in range(2)]
    one, two = (pipe.stream(SEVEN, **options, generator=seeded(i)) for i in range(2))
    turns = list(zip(one, two, strict=True))
    for i in range(2):
        assert np.array_equal(joined(pair[i] for pair in turns), alone[i])
    after = {k: v for part in (pipe.transformer, pipe.vae) for k, v in part.state_dict().items()}
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_stream_that_is_left_or_fails_frees_what_it_held_and_the_pipeline_goes_on(pipe):
    with mock.patch.object(type(pipe), "maybe_free_model_hooks") as free:
        frames = pipe.stream(SEVEN, num_frames=9, **FAST)
        next(frames)
        assert free.call_count == 0
        frames.close()
        assert free.call_count == 1

        def fail(*_: Any) -> None:
            raise RuntimeError("stop")

        with pytest.raises(RuntimeError, match="stop"):
            next(pipe.stream(SEVEN, num_frames=9, **FAST, callback_on_step_end=fail))
        assert free.call_count == 2
    options = {"num_frames": 9, **FAST}
    whole = pipe(SEVEN, **options, generator=seeded()).frames[0]
    assert_same(joined(pipe.stream(SEVEN, **options, generator=seeded())), whole)


def test_gradients_are_the_callers_between_frames_and_off_within(pipe):
    for piece in pipe.stream(SEVEN, num_frames=5, **FAST):
        assert torch.is_grad_enabled()
        assert piece.shape[1:] == (64, 64, 3)
    with torch.no_grad():
        next(pipe.stream(SEVEN, num_frames=5, **FAST))
        assert not torch.is_grad_enabled()


class Apart:
    """Offloading by hand: of these parts only the one that was woken last has its weights."""

    def __init__(self, module: nn.Module, others: list["Apart"]) -> None:
        self.module, self.others = module, others
        self.weights = {name: value.clone() for name, value in module.state_dict().items()}
        self.sleep()
        module._hf_hook = self  # type: ignore[assignment]

    def sleep(self) -> None:
        for value in self.module.state_dict().values():
            value.fill_(float("nan"))

    def pre_forward(self, module: nn.Module, *arguments: Any) -> Any:
        for other in self.others:
            other.sleep()
        module.load_state_dict(self.weights)
        return arguments


def test_parts_that_are_offloaded_are_woken_for_each_frame(pipe):
    options = {"num_frames": 9, **FAST, "image": digits(1)[0]}
    expected = joined(pipe.stream(SEVEN, **options, generator=seeded()))
    other = quiet(nova.from_pretrained("moving-digits", dtype=torch.float32))
    parts: list[Apart] = []
    for module in (other.transformer, other.vae):
        parts.append(Apart(module, []))
    parts[0].others, parts[1].others = [parts[1]], [parts[0]]
    assert np.array_equal(joined(other.stream(SEVEN, **options, generator=seeded())), expected)


def test_a_tokenizer_that_pools_over_time_streams_the_frames_of_its_pieces(pooled):
    options: Any = {"num_frames": 9, **FAST, "generator": seeded()}
    latents = pooled("", **options, output_type="latent").frames
    pieces = list(pooled.stream("", **{**options, "generator": seeded()}))
    assert [piece.shape for piece in pieces] == [(n, 64, 96, 3) for n in (1, 4, 4)]
    tokenizer = VAETokenizer(pooled.vae)
    assert not tokenizer.incremental
    last = tokenizer.decode(latents)[0, :, 5:].permute(1, 2, 3, 0)  # the last piece is the whole
    assert_same(pieces[2], last.mul(127.5).add(127.5).clamp(0, 255).byte().numpy())


def test_a_stream_is_written_as_it_comes(pipe, tmp_path):
    options = {"num_frames": 9, **FAST}
    path = write_video(pipe.stream(SEVEN, **options, generator=seeded()), tmp_path / "a.gif", fps=8)
    shown = read_video(path)[0]
    assert shown.shape == (9, 64, 64, 3)

    def stop(pipe: Any, done: int, frame: int, kept: Any) -> None:
        if frame == 2:
            raise KeyboardInterrupt

    again = pipe.stream(SEVEN, **options, generator=seeded(), callback_on_step_end=stop)
    with pytest.raises(KeyboardInterrupt):
        write_video(again, tmp_path / "b.gif", fps=8)
    assert read_video(tmp_path / "b.gif")[0].equal(shown[:5])
