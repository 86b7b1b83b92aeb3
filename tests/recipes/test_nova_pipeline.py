"""NOVA's pipeline: what its arguments mean, what it keeps as it was, what its folders hold."""

import dataclasses
import json
import random
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from contar.conditioning import encode_texts
from contar.media import read_image
from contar.tokenizers import VAETokenizer, patchify
from recipes import nova
from recipes._nova.pixels import read_clip
from recipes._nova.request import RELEASED_DEFAULTS

CHECKPOINT = Path(__file__).parents[1] / "goldens" / "checkpoint"
WEIGHTS = "diffusion_pytorch_model.safetensors"
HEADS = (4, 4)
FOX, DOG = "the quick brown fox", "a lazy dog"
BASE: dict[str, Any] = {
    "num_frames": 5, "num_inference_steps": 2, "num_diffusion_steps": 2, "guidance_scale": 3.0,
    "guidance_renorm": 1.0, "temperature": 1.0, "motion_flow": 5.0, "fps": 12.0,
}  # fmt: skip
# Of latents near 2 after sums of float32 in another order, which these weights blow up to 2e-4.
ROUNDING: dict[str, Any] = {"rtol": 0, "atol": 2e-3}


def load(folder: Path | str = CHECKPOINT, **options: Any) -> nova.NovaPipeline:
    pipe = nova.from_pretrained(folder, **{"num_heads": HEADS, **options})
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipe() -> nova.NovaPipeline:
    return load()


@pytest.fixture(scope="module")
def plain(pipe: nova.NovaPipeline) -> Tensor:
    return run(pipe)


def rebuilt(pipe: nova.NovaPipeline, **changes: Any) -> nova.NovaPipeline:
    other = nova.NovaPipeline(**{**pipe.components, **changes})
    other.set_progress_bar_config(disable=True)
    return other


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(pipe: nova.NovaPipeline, prompt: Any = FOX, **changes: Any) -> Any:
    options = {**BASE, "generator": seeded(), "output_type": "latent", **changes}
    return pipe(prompt, **options).frames


def pixels(frames: int, seed: int = 0, height: int = 64, width: int = 96) -> np.ndarray:
    draws = np.random.default_rng(seed)
    return draws.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def every_weight(pipe: nova.NovaPipeline) -> dict[str, Tensor]:
    return {
        f"{part}.{name}": value.clone()
        for part, module in pipe.components.items()
        if isinstance(module, nn.Module)
        for name, value in module.state_dict().items()
    }


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# What comes out.


def test_the_types_of_output_are_views_of_one_result(pipe):
    latents, pt, array, pil = (
        run(pipe, output_type=kind) for kind in ("latent", "pt", "np", "pil")
    )
    assert latents.shape == (1, 4, 2, 8, 12)
    decoded = VAETokenizer(pipe.vae).decode(latents).transpose(1, 2)
    assert torch.equal(pt, ((decoded + 1) / 2).clamp(0, 1))
    assert array.shape == (1, 5, 64, 96, 3)
    assert array.dtype == np.uint8
    # Cut off, not rounded: up to a whole step below, but for float32's rounding at 255.
    below = pt.permute(0, 1, 3, 4, 2).numpy() * 255 - array
    assert below.min() > -1e-3
    assert 0.9 < below.max() < 1 + 1e-3
    assert all(isinstance(picture, Image.Image) for clip in pil for picture in clip)
    assert np.array_equal(np.stack([np.stack([*map(np.asarray, clip)]) for clip in pil]), array)


def test_a_tuple_or_a_named_output_holds_the_same_frames(pipe, plain):
    options = {**BASE, "output_type": "latent"}
    named = pipe(FOX, **options, generator=seeded())
    assert isinstance(named, nova.NovaOutput)
    (frames,) = pipe(FOX, **options, generator=seeded(), return_dict=False)
    assert torch.equal(frames, named.frames)
    assert torch.equal(frames, plain)


def test_another_size_and_another_number_of_frames_come_out_as_asked_for(pipe):
    for frames, height, width in ((1, 64, 96), (5, 96, 32), (13, 32, 32)):
        made = run(pipe, num_frames=frames, height=height, width=width, output_type="np")
        assert made.shape == (1, frames, height, width, 3)


# Whose randomness.


def test_samples_of_a_prompt_are_those_of_the_prompt_repeated(pipe):
    twice = run(pipe, [FOX, DOG], num_images_per_prompt=2)
    repeated = run(pipe, [FOX, FOX, DOG, DOG])
    assert torch.equal(twice, repeated)
    assert not torch.equal(twice[0], twice[1])
    negatives = run(pipe, [FOX, DOG], num_images_per_prompt=2, negative_prompt=["dark", "dull"])
    each = ["dark", "dark", "dull", "dull"]
    assert torch.equal(negatives, run(pipe, [FOX, FOX, DOG, DOG], negative_prompt=each))


@pytest.mark.parametrize("image", [None, pixels(1)[0]], ids=["words", "image"])
def test_with_a_generator_each_a_sample_does_not_depend_on_its_neighbours(pipe, image):
    pair = run(pipe, [FOX, DOG], generator=[seeded(1), seeded(2)], image=image)
    for i, prompt in enumerate((FOX, DOG)):
        alone = run(pipe, prompt, generator=[seeded(i + 1)], image=image)
        torch.testing.assert_close(pair[i : i + 1], alone, **ROUNDING)
    other = run(pipe, [FOX, ""], generator=[seeded(1), seeded(9)], image=image)
    torch.testing.assert_close(other[0], pair[0], **ROUNDING)
    assert (other[1] - pair[1]).abs().max() > 0.1


@pytest.mark.usefixtures("unchecked")
def test_a_call_leaves_global_random_states_and_weights_as_they_were(pipe):
    def states() -> list[Any]:
        theirs: Any = np.random.get_state(legacy=False)
        words = [*theirs["state"]["key"], theirs["state"]["pos"], theirs["gauss"]]
        return [torch.get_rng_state().tolist(), words, random.getstate()]

    weights, before = every_weight(pipe), states()
    options = {"image": pixels(1)[0], "generator": None, "output_type": "np"}
    free = [run(pipe, **options) for _ in range(2)]
    assert states() == before
    assert not np.array_equal(*free)  # a fresh seed each time
    assert same(every_weight(pipe), weights)


# Words.


def test_words_are_the_states_that_the_text_encoder_makes_of_them(pipe):
    length = pipe.transformer.sizes.text_length
    texts = [FOX, DOG, ""]
    states = encode_texts(texts, pipe.tokenizer, pipe.text_encoder, length=length)
    expected = run(pipe, texts, negative_prompt="dark")
    dark = encode_texts(["dark"], pipe.tokenizer, pipe.text_encoder, length=length)
    for other in (pipe, rebuilt(pipe, text_encoder=None, tokenizer=None)):
        given = run(other, None, prompt_embeds=states, negative_prompt_embeds=dark * 3)
        # Fewer rows through the text encoder at once, and padding to another length.
        torch.testing.assert_close(given, expected, **ROUNDING)
    assert torch.equal(run(pipe, None, prompt_embeds=states), run(pipe, texts))


def test_an_empty_prompt_leaves_the_text_encoder_asleep_and_takes_an_image(pipe):
    ran = []

    def notice(module: nn.Module, _: object) -> None:
        ran.append(type(module).__name__)

    image = pixels(1)[0]
    hook = register_module_forward_pre_hook(notice)
    try:
        made = run(pipe, "", image=image)
    finally:
        hook.remove()
    assert "Nova" not in ran
    assert "PhiModel" not in ran
    assert ran
    assert made.isfinite().all()
    assert torch.equal(made, run(pipe, [""], image=image, negative_prompt=""))
    assert not torch.equal(made[:, :, 1:], run(pipe, FOX, image=image)[:, :, 1:])


def test_a_negative_prompt_counts_under_guidance_alone(pipe):
    def made(prompt: Any = FOX, **changes: Any) -> Tensor:
        return run(pipe, prompt, num_frames=1, **changes)

    guided, away = made(), made(negative_prompt=DOG)
    assert not torch.equal(guided, away)
    assert torch.equal(guided, made(negative_prompt=""))
    once, each = (made([FOX, DOG], negative_prompt=n) for n in (DOG, [DOG, DOG]))
    assert torch.equal(once, each)
    free = made(guidance_scale=1.0)
    assert not torch.equal(free, guided)
    for scale in (0.0, 1.0):
        assert torch.equal(free, made(guidance_scale=scale, negative_prompt=DOG))


def test_guidance_rises_from_its_least_scale_and_ends_below_its_truncation(pipe, plain):
    guided, free = plain, run(pipe, guidance_scale=1.0)
    assert torch.equal(run(pipe, min_guidance_scale=3.0), guided)
    assert not torch.equal(run(pipe, min_guidance_scale=1.0), guided)
    # Every timestep is below 1000; two passes at once are summed in another order than one.
    torch.testing.assert_close(run(pipe, guidance_trunc=1000), free, **ROUNDING)
    assert torch.equal(run(pipe, guidance_trunc=0), guided)


def test_motion_numbers_are_one_for_all_or_one_for_each_sample(pipe):
    for name in ("motion_flow", "fps"):
        each, slow, fast, both = (
            run(pipe, [FOX, FOX], num_frames=1, **{name: value})
            for value in ([3.0, 30.0], 3.0, 30.0, (3, 3))
        )
        torch.testing.assert_close(each[0], slow[0], **ROUNDING)
        torch.testing.assert_close(each[1], fast[1], **ROUNDING)
        assert torch.equal(both, slow)
        assert (fast - slow).abs().max() > 1e-3


# Given frames.


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_given_frames_come_back_as_the_latents_that_the_tokenizer_makes_of_them(pipe, frames):
    clip = pixels(frames)
    centred = (torch.from_numpy(clip).float() - 127.5) / 127.5
    encoded = VAETokenizer(pipe.vae).encode(centred.permute(3, 0, 1, 2)[None], generator=seeded())
    given = encoded.shape[2]
    assert given == (frames + 3) // 4
    made = run(pipe, [FOX, DOG], video=clip, num_frames=9)
    assert torch.equal(made[:, :, :given], encoded.expand(2, -1, -1, -1, -1))
    assert made.shape[2] == 3
    assert not torch.equal(made, run(pipe, [FOX, DOG], num_frames=9))
    if frames == 1:
        assert torch.equal(run(pipe, [FOX, DOG], image=clip[0], num_frames=9), made)


def test_with_a_generator_each_the_posterior_of_an_image_is_drawn_for_each_sample(pipe):
    made = run(pipe, [FOX, FOX], image=pixels(1)[0], generator=[seeded(1), seeded(2)])
    assert not torch.equal(made[0, :, 0], made[1, :, 0])


def clip_of(pipe: nova.NovaPipeline, *, image: Any = None, video: Any = None) -> Tensor:
    """Return what is encoded of an image or a video."""
    clip = read_clip(image, video, (64, 96), VAETokenizer(pipe.vae), 9, 1)
    assert clip is not None
    return clip


def test_all_that_holds_the_same_pixels_is_the_same_image_and_video(pipe):
    clip = pixels(5)
    frozen, flipped = clip.copy(), clip[:, :, ::-1].copy()[:, :, ::-1]
    frozen.flags.writeable = False
    assert flipped.strides[2] < 0
    pictures = [Image.fromarray(frame) for frame in clip]
    image, video = clip_of(pipe, image=clip[0]), clip_of(pipe, video=clip)
    centred = (torch.from_numpy(clip).float() - 127.5) / 127.5
    assert torch.equal(video, centred.permute(3, 0, 1, 2)[None])
    assert torch.equal(image, video[:, :, :1])
    for other in (frozen, flipped, torch.from_numpy(clip)):
        assert torch.equal(clip_of(pipe, image=other[0]), image)
        assert torch.equal(clip_of(pipe, video=other), video)
    assert torch.equal(clip_of(pipe, image=pictures[0]), image)
    assert torch.equal(clip_of(pipe, image=pictures[0].convert("RGBA")), image)
    assert torch.equal(clip_of(pipe, video=pictures), video)
    assert torch.equal(clip_of(pipe, video=pictures[0]), image)
    assert torch.equal(run(pipe, video=pictures[0]), run(pipe, image=clip[0]))


# Defaults.


STORED: dict[str, Any] = {
    "num_frames": 9, "num_inference_steps": 3, "num_diffusion_steps": 1, "guidance_scale": 2.0,
    "guidance_renorm": 0.5, "temperature": (0.9, 0.5), "motion_flow": 50.0, "fps": 48.0,
}  # fmt: skip


@pytest.mark.parametrize("name", STORED)
def test_none_means_the_stored_default(pipe, plain, name):
    stored = rebuilt(pipe, defaults={name: STORED[name]})
    meant = run(pipe, **{name: STORED[name]})
    assert torch.equal(run(stored, **{name: None}), meant)
    assert meant.shape != plain.shape or not torch.equal(meant, plain)


def test_what_a_call_says_counts_before_the_stored_defaults(pipe, plain):
    assert torch.equal(run(rebuilt(pipe, defaults=STORED)), plain)


def test_defaults_survive_our_layout_and_are_the_released_ones_where_nothing_is_stored(
    pipe, tmp_path
):
    rebuilt(pipe, defaults=STORED).save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert dict(loaded.config["defaults"]) == STORED
    assert torch.equal(run(loaded, **dict.fromkeys(STORED)), run(pipe, **STORED))
    # What the network and the tokenizer hold of 33 frames and 64 sets.
    fewer = {"num_frames": 9, "num_inference_steps": 24}
    assert dict(pipe.config["defaults"]) == {**RELEASED_DEFAULTS, **fewer}


# Watching.


@pytest.mark.parametrize("given", [0, 1])
def test_a_callback_sees_every_set_once_and_what_was_made_so_far(pipe, given):
    seen: list[tuple[int, int, Tensor]] = []

    def callback(*arguments: Any) -> None:
        caller, done, frame, state = arguments
        assert caller is pipe
        assert state.keys() == {"tokens", "progress"}
        assert (state["progress"].frame, state["progress"].set) == (frame, (done - 1) % 3)
        seen.append((done, frame, state["tokens"].clone()))
        state["tokens"].fill_(float("nan"))  # what the caller does with it is its own affair

    image = pixels(1)[0] if given else None
    options = {"image": image, "num_frames": 9, "num_inference_steps": 3}
    made = run(pipe, [FOX, DOG], **options, callback_on_step_end=callback)
    assert torch.equal(made, run(pipe, [FOX, DOG], **options))
    frames = [t for t in range(given, 3) for _ in range(3)]
    assert [(done, frame) for done, frame, _ in seen] == [*enumerate(frames, 1)]
    for i, (_, frame, tokens) in enumerate(seen):
        final = patchify(made[:, :, frame], 2)
        known = (tokens == final).all(dim=-1)
        assert ((tokens == 0).all(dim=-1) | known).all()
        assert known.all() == (i % 3 == 2)


def test_what_a_callback_raises_ends_the_call_and_the_next_one_is_as_before(pipe, plain):
    class EnoughError(Exception):
        pass

    done = []

    def callback(*arguments: Any) -> None:
        done.append(arguments[1])
        if len(done) == 3:
            raise EnoughError

    with pytest.raises(EnoughError):
        run(pipe, callback_on_step_end=callback)
    assert done == [1, 2, 3]
    assert torch.equal(run(pipe), plain)


def test_the_progress_bar_counts_the_sets_or_keeps_still(pipe, capsys):
    loud = rebuilt(pipe)
    capsys.readouterr()
    for disable, total in ((True, None), (False, 4)):
        loud.set_progress_bar_config(disable=disable)
        run(loud)
        out, err = capsys.readouterr()
        assert not out
        assert (f"{total}/{total}" in err) if total else not err
    run(loud, image=pixels(1)[0])
    assert "2/2" in capsys.readouterr().err  # given frames are no work


# Memory and dtype.


class Asleep:
    """An offloaded part: its weights are NaN until it is woken."""

    def __init__(self, module: nn.Module) -> None:
        self.weights = {name: value.clone() for name, value in module.state_dict().items()}
        self.woken = 0
        for value in module.state_dict().values():
            value.fill_(float("nan"))
        module._hf_hook = self  # type: ignore[assignment]

    def pre_forward(self, module: nn.Module, *arguments: Any) -> Any:
        self.woken += 1
        module.load_state_dict(self.weights)
        return arguments


@pytest.mark.parametrize("prompt", [FOX, ""])
def test_parts_that_are_offloaded_are_woken_before_they_are_used(pipe, prompt):
    options = {"image": pixels(1)[0], "output_type": "np"}
    expected = run(pipe, prompt, **options)
    other = load()
    hooks = [Asleep(part) for part in (other.text_encoder, other.transformer, other.vae)]
    assert np.array_equal(run(other, prompt, **options), expected)
    words, network, tokenizer = (hook.woken for hook in hooks)
    assert words == (1 if prompt else 0)
    assert network == 1
    assert tokenizer == 2  # for the image, and for the frames


def test_in_bfloat16_all_runs_and_stays_finite(plain):
    moved = load()
    moved.to(torch.bfloat16)
    read = load(dtype=torch.bfloat16)
    weights = every_weight(read)
    assert same(every_weight(moved), weights)
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    for image in (None, pixels(1)[0]):
        made = run(moved, [FOX, ""], image=image, output_type="pt")
        assert made.isfinite().all()
        assert made.std() > 0
    for other in (moved, read):  # which differ in what is no weight: the text's rotary angles
        assert 0 < (run(other) - plain).abs().median() < 0.1 * plain.std()  # 8 bits a number


# Schedulers.


def test_a_scheduler_that_was_just_built_serves_as_one_from_a_file(pipe, plain):
    config = {k: v for k, v in pipe.scheduler.config.items() if not k.startswith("_")}
    assert torch.equal(run(rebuilt(pipe, scheduler=DDPMScheduler(**config))), plain)
    solver = DDIMScheduler.from_config(pipe.scheduler.config)
    swapped = run(rebuilt(pipe, scheduler=solver))
    assert swapped.isfinite().all()
    assert not torch.equal(swapped, plain)


def test_a_stream_left_at_the_end_of_the_interpreter_touches_nothing(pipe, monkeypatch):
    left = pipe.stream(FOX, **{**BASE, "num_frames": 9, "generator": seeded()})
    next(left)
    monkeypatch.setattr(pipe, "maybe_free_model_hooks", lambda: pytest.fail("touched"))
    monkeypatch.setattr("sys.is_finalizing", lambda: True)
    left.close()


def test_a_flow_is_shifted_as_asked_for(pipe):
    flow = rebuilt(pipe, scheduler=FlowMatchEulerDiscreteScheduler())
    level = run(flow)
    assert torch.equal(run(flow, flow_shift=1.0), level)
    assert not torch.equal(run(flow, flow_shift=3.0), level)
    assert torch.equal(run(flow), level)


def test_the_plan_of_a_call_can_be_changed_by_the_names_of_its_fields(pipe, plain):
    assert torch.equal(run(pipe, plan_changes={}), plain)
    assert torch.equal(run(pipe, plan_changes={"refresh": 1, "pinned": 1}), plain)
    for changes in ({"refresh": 2}, {"order": "checkerboard"}):
        changed = run(pipe, plan_changes=changes)
        assert changed.isfinite().all()
        assert not torch.equal(changed, plain)
    fewer = run(pipe, num_inference_steps=None, plan_changes={"sets": 3})
    assert torch.equal(fewer, run(pipe, num_inference_steps=3))
    assert not torch.equal(fewer, plain)


SCHEDULER = "scheduler/scheduler_config.json"


def edited(folder: Path, name: str, **changes: Any) -> None:
    """Change keys of a JSON file; `...` takes a key out."""
    old = {**json.loads((folder / name).read_text()), **changes}
    new = {key: value for key, value in old.items() if value is not ...}
    (folder / name).write_text(json.dumps(new))


@pytest.mark.parametrize(
    "keys",
    [
        {"_class_name": "DDIMScheduler"},
        {"_sample_class_name": "DDIMScheduler"},
        {"_noise_class_name": "DDIMScheduler"},
        {"_sample_class_name": "DDIMScheduler", "_noise_class_name": "DDPMScheduler"},
        {"_sample_class_name": "DDIMScheduler", "_class_name": "DDPMScheduler"},
        {"_class_name": "DDIMScheduler", "_noise_class_name": "DDPMScheduler"},
    ],
)
def test_the_scheduler_that_samples_is_found_by_each_key_that_names_one(plain, keys, tmp_path):
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "named"))
    edited(folder, SCHEDULER, **{"_class_name": ..., **keys})
    loaded = load(folder)
    assert type(loaded.scheduler).__name__ == "DDIMScheduler"
    assert not torch.equal(run(loaded), plain)


@pytest.mark.parametrize("layout", ["contar", "released"])
def test_a_scheduler_that_was_put_in_is_the_one_that_is_saved(layout, tmp_path):
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "named"))
    edited(folder, SCHEDULER, _sample_class_name="DDPMScheduler")
    loaded = load(folder)
    loaded.scheduler = DDIMScheduler.from_config(loaded.scheduler.config)
    loaded.save_pretrained(tmp_path / "saved", layout=layout)
    assert type(load(tmp_path / "saved").scheduler).__name__ == "DDIMScheduler"


def test_the_class_loads_as_the_function_does_and_never_offers_to_run_code():
    loaded = nova.NovaPipeline.from_pretrained(CHECKPOINT, num_heads=(4, 4))
    assert isinstance(loaded.transformer, nova.Nova)


def test_the_default_number_of_sets_fits_a_smaller_frame(pipe):
    frames = pipe("", height=32, width=32, num_frames=1, num_diffusion_steps=1).frames
    assert frames.shape == (1, 1, 32, 32, 3)


def test_given_frames_may_differ_by_prompt(pipe):
    first, second = pixels(2)[:, None]
    both = torch.from_numpy(np.concatenate([first, second]))
    generators = [torch.Generator().manual_seed(i) for i in (1, 2)]
    made = run(pipe, prompt=[DOG, DOG], image=both, generator=generators)
    for i, one in enumerate((first, second)):
        alone = run(
            pipe, prompt=[DOG], image=one[0], generator=[torch.Generator().manual_seed(i + 1)]
        )
        torch.testing.assert_close(made[i : i + 1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", ["contar", "released"])
def test_the_scheduler_that_samples_is_saved_with_all_its_names(layout, tmp_path):
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "named"))
    names = {"_sample_class_name": "DDIMScheduler", "_noise_class_name": "DDPMScheduler"}
    edited(folder, SCHEDULER, _class_name="DDPMScheduler", **names)
    loaded = load(folder)
    loaded.save_pretrained(tmp_path / "saved", layout=layout)
    saved = json.loads((tmp_path / "saved" / SCHEDULER).read_text())
    assert saved == {**saved, **names}
    again = load(tmp_path / "saved")
    assert type(again.scheduler).__name__ == "DDIMScheduler"
    assert torch.equal(run(again), run(loaded))


# Folders.


@pytest.mark.parametrize("layout", ["contar", "released"])
def test_a_saved_pipeline_makes_the_same_bits(pipe, layout, tmp_path):
    pipe.save_pretrained(tmp_path, layout=layout)
    loaded = load(tmp_path)
    assert same(every_weight(loaded), every_weight(pipe))
    options = {"image": pixels(1)[0], "negative_prompt": DOG}
    assert torch.equal(run(loaded, **options), run(pipe, **options))
    options["output_type"] = "pt"
    assert torch.equal(run(loaded, **options), run(pipe, **options))


@pytest.mark.parametrize("layout", ["contar", "released"])
def test_a_pipeline_without_text_encoder_is_saved_without_one(pipe, layout, tmp_path):
    rebuilt(pipe, text_encoder=None, tokenizer=None).save_pretrained(tmp_path, layout=layout)
    loaded = load(tmp_path)
    assert loaded.text_encoder is None
    assert loaded.tokenizer is None
    assert torch.equal(run(loaded, ""), run(pipe, ""))


def files_of(folder: Path) -> set[str]:
    """Return names of files; weights in shards count as the one file that they stand for."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name.split("-0000")[0].removesuffix(".safetensors.index.json").removesuffix(
        ".safetensors") for name in names}  # fmt: skip


def test_the_released_layout_has_the_files_and_the_configs_of_released_folders(pipe, tmp_path):
    pipe.save_pretrained(tmp_path, layout="released")
    assert files_of(tmp_path) == files_of(CHECKPOINT)
    configs = sorted(CHECKPOINT.rglob("*config.json"))
    assert len(configs) == 6
    for path in [CHECKPOINT / "model_index.json", *configs]:
        released = json.loads(path.read_text())
        ours = json.loads((tmp_path / path.relative_to(CHECKPOINT)).read_text())
        # transformers writes down that it read a tokenizer from a folder, and below 5.6 one more.
        more = {"is_local", "local_files_only", "partial_rotary_factor"}
        assert ours.keys() - more == released.keys(), path
        differing = {key for key in released if ours[key] != released[key]}
        assert differing <= {"_diffusers_version", "transformers_version"}, path
    for part, name in (
        ("transformer", "NOVATransformer3DModel"),
        ("vae", "AutoencoderKLOpenSora"),
        ("text_encoder", "PhiEncoderModel"),
    ):
        code = (tmp_path / part / f"__{part}__.py").read_text()
        assert f"import {name} " in code


def test_weights_in_shards_and_in_one_file_are_the_same_weights(pipe, tmp_path):
    assert (CHECKPOINT / "vae" / f"{WEIGHTS}.index.json").is_file()
    pipe.save_pretrained(tmp_path / "one")
    pipe.save_pretrained(tmp_path / "many", max_shard_size="200KB")
    for part in ("transformer", "vae"):
        assert (tmp_path / "one" / part / WEIGHTS).is_file()
        assert not (tmp_path / "many" / part / WEIGHTS).exists()
        assert len([*(tmp_path / "many" / part).glob("*.safetensors")]) > 1
    weights = every_weight(pipe)
    assert same(every_weight(load(tmp_path / "one")), weights)
    assert same(every_weight(load(tmp_path / "many")), weights)


def test_a_network_is_read_with_and_without_a_class_name(pipe, tmp_path):
    config = "transformer/config.json"
    assert "_class_name" not in json.loads((CHECKPOINT / config).read_text())
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "named"))
    edited(folder, config, _class_name="NOVATransformer3DModel")
    assert same(every_weight(load(folder)), every_weight(pipe))


def test_a_string_and_a_path_name_the_same_folder(pipe):
    assert same(every_weight(load(str(CHECKPOINT))), every_weight(pipe))


# Other parts.


def bert() -> tuple[Any, Any]:
    words = ["[PAD]", "[UNK]", "the", "quick", "brown", "fox", "a", "lazy", "dog"]
    vocabulary = {word: i for i, word in enumerate(words)}
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=16,
    )  # fmt: skip
    table = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    table.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()  # type: ignore[assignment]
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=table, pad_token="[PAD]", unk_token="[UNK]"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.BertModel(config).eval(), tokenizer


def test_another_text_encoder_of_the_right_width_is_used_saved_and_loaded(pipe, tmp_path):
    encoder, tokenizer = bert()
    other = rebuilt(pipe, text_encoder=encoder, tokenizer=tokenizer)
    made = run(other, [FOX, DOG])
    assert not torch.equal(made, run(pipe, [FOX, DOG]))
    states = []
    for ids in ([2, 3, 4, 5], [6, 7, 8]):
        with torch.no_grad():
            states.append(encoder(torch.tensor([ids])).last_hidden_state[0])
    torch.testing.assert_close(run(pipe, None, prompt_embeds=states), made, **ROUNDING)
    other.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert isinstance(loaded.text_encoder, transformers.BertModel)
    assert torch.equal(run(loaded, [FOX, DOG]), made)


def images() -> nova.NovaPipeline:
    tower = nova.Tower(1, 32, 2)
    sizes = nova.NovaConfig(
        temporal=tower, encoder=tower, decoder=tower,
        head={"name": "flow", "width": 16, "depth": 1},
        text_width=8,
        text_length=4, latent=(8, 8),
    )  # fmt: skip
    autoencoder: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "block_out_channels": (8, 8),
        "norm_num_groups": 4,
        "scaling_factor": 0.5,
        "shift_factor": 0.25,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderKL(**autoencoder)
        pipe = nova.NovaPipeline(
            nova.build(sizes).eval(), vae.eval(), FlowMatchEulerDiscreteScheduler()
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_a_network_of_images_makes_images_with_an_autoencoder_of_images(tmp_path):
    pipe = images()
    assert pipe.config["defaults"]["num_frames"] == 1
    states = torch.randn(2, 3, 8, generator=seeded())
    few: dict[str, Any] = {"num_inference_steps": 4, "num_diffusion_steps": 2}

    def make(pipe: nova.NovaPipeline, **changes: Any) -> Any:
        return pipe(prompt_embeds=states, **few, generator=seeded(), **changes).frames

    made = make(pipe)
    assert made.shape == (2, 1, 16, 16, 3)
    assert made.dtype == np.uint8
    assert make(pipe, height=24, width=32, output_type="pt").shape == (2, 1, 3, 24, 32)
    assert [len(clip) for clip in make(pipe, output_type="pil")] == [1, 1]
    latents = make(pipe, output_type="latent")
    plain = (latents / 0.5 + 0.25)[:, :, 0]
    decoded = pipe.vae.decode(plain).sample.detach()
    torch.testing.assert_close(make(pipe, output_type="pt")[:, 0], ((decoded + 1) / 2).clamp(0, 1))
    for layout in ("contar", "released"):
        pipe.save_pretrained(tmp_path / layout, layout=layout)
        again = load(tmp_path / layout, num_heads=(2, 2))
        assert np.array_equal(make(again), made)


def test_a_network_of_images_makes_one_frame_only(refuses):
    with refuses("num_frames", "5", "1: this model makes images"):
        images()(prompt_embeds=torch.randn(1, 3, 8, generator=seeded()), num_frames=5)


def test_an_image_given_for_one_frame_is_all_there_is_to_make(pipe):
    def never(*_: Any) -> None:
        raise AssertionError("a set was made")

    made = run(pipe, image=pixels(1)[0], num_frames=1, callback_on_step_end=never)
    assert torch.equal(made, run(pipe, image=pixels(1)[0])[:, :, :1])


@pytest.mark.parametrize("patch", [1, 2])
def test_networks_of_both_official_patches_survive_the_released_layout(pipe, patch, tmp_path):
    sizes = dataclasses.replace(
        pipe.transformer.sizes, patch=patch, positions="absolute", adapter="full"
    )
    with torch.random.fork_rng(devices=[]):
        other = rebuilt(pipe, transformer=nova.build(sizes).eval())
    other.save_pretrained(tmp_path, layout="released")
    loaded = load(tmp_path)
    assert loaded.transformer.sizes == sizes
    assert torch.equal(run(loaded), run(other))


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_pictures_are_turned_as_read_image_turns_them(pipe, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    stored = pixels(1)[0] if orientation < 5 else pixels(1)[0].transpose(1, 0, 2)
    path = tmp_path / "a.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    upright = read_image(path)
    assert upright.shape == (64, 96, 3)
    read = clip_of(pipe, image=upright)
    with Image.open(path) as picture:
        assert torch.equal(clip_of(pipe, image=picture), read)
        assert torch.equal(clip_of(pipe, image=[picture]), read)
        assert torch.equal(clip_of(pipe, video=[picture]), read)


def test_16_bits_of_a_picture_are_those_that_read_image_sees(pipe, tmp_path):
    grey = pixels(1)[0, :, :, 0].astype(np.uint16) << 8
    Image.fromarray(grey).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        made = clip_of(pipe, image=picture)
    assert torch.equal(made, clip_of(pipe, image=read_image(tmp_path / "a.png")))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("fps", [np.int64(8), np.float32(8), Fraction(8), np.uint8(8)])
def test_numbers_of_numpy_and_fractions_are_numbers(pipe, fps):
    made = run(pipe, fps=8.0, motion_flow=nova.UNSET, guidance_scale=3.0)
    numbers = {"motion_flow": np.int64(-1), "guidance_scale": np.float16(3)}
    counts = {
        name: np.int64(BASE[name])
        for name in ("num_frames", "num_inference_steps", "num_diffusion_steps")
    }
    assert torch.equal(run(pipe, fps=fps, **numbers, **counts), made)
    assert torch.equal(run(pipe, fps=[fps], **numbers), made)


@pytest.mark.usefixtures("unchecked")
def test_defaults_of_numpy_survive_saving(pipe, tmp_path):
    given = {"fps": np.float32(8), "num_frames": np.int64(5), "guidance_scale": Fraction(3)}
    rebuilt(pipe, defaults=given).save_pretrained(tmp_path)
    stored = nova.from_pretrained(tmp_path).config["defaults"]
    assert {name: stored[name] for name in given} == {
        "fps": 8.0, "num_frames": 5, "guidance_scale": 3.0
    }  # fmt: skip
