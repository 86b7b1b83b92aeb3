"""NOVA's pipeline refuses bad calls, parts and folders before any work, and is as it was after."""

import dataclasses
import functools
import io
import json
import pickle
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from diffusers.models.autoencoders.autoencoder_kl_allegro import AutoencoderKLAllegro
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from contar._files import read_weights
from contar.tokenizers import OpenSoraVAE, VAETokenizer
from recipes import nova
from recipes._nova import pipeline as nova_pipeline

CHECKPOINT = Path(__file__).parents[1] / "goldens" / "checkpoint"
WEIGHTS = "diffusion_pytorch_model.safetensors"
SHARD = "diffusion_pytorch_model-00002-of-00003.safetensors"
HEADS = (4, 4)
NAN, INF = float("nan"), float("inf")
NO_COUNTS = [0, 2.0]  # test_errors.py has all
NO_NUMBERS = [-0.1, "5"]


class OnCuda(torch.Generator):
    device: Any = torch.device("cuda")


@pytest.fixture(scope="module")
def pipe() -> nova.NovaPipeline:
    pipe = nova.from_pretrained(CHECKPOINT, num_heads=HEADS)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail the test when any module runs, text is encoded, pixels are, or a part is woken."""

    def work(*_: object, **__: object) -> None:
        raise AssertionError("work before the refusal")

    for owner, name in (
        (nova_pipeline, "draw_frames"),
        (nova_pipeline, "encode_texts"),
        (VAETokenizer, "encode"),
        (VAETokenizer, "decode"),
        (nova.NovaPipeline, "_wake"),
    ):
        monkeypatch.setattr(owner, name, work)
    hook = register_module_forward_pre_hook(work)
    yield
    hook.remove()


# Calls.


def pixels(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.zeros(shape, dtype)


def states(*shape: int) -> Tensor:
    return torch.zeros(*shape)


def counts(name: str) -> list[tuple[str, str, str, dict[str, Any]]]:
    return [(name, repr(v), "an integer of at least 1", {name: v}) for v in NO_COUNTS]


def embeddings(name: str) -> list[tuple[str, str, str, dict[str, Any]]]:
    none = "at least one"
    rows: list[tuple[str, str, Any]] = [
        ("(3, 31)", "[any, 32]", states(1, 3, 31)),
        ("a text of 13 tokens", "at most 12", states(1, 13, 32)),
        ("(3, 32)", "[b, l, width]", states(3, 32)),
        ("no texts", none, states(0, 3, 32)),
        ("no texts", none, []),
        ("a text of 13 tokens", "at most 12", [states(13, 32)]),
        ("(3, 31)", "[any, 32]", [states(3, 31)]),
        ("(32,)", "[l, width]", [states(32)]),
        ("torch.int64", "torch.float32", states(1, 3, 32).long()),
        ("no texts (ndarray)", none, np.zeros((1, 3, 32), np.float32)),
        ("'str'", "a float tensor", "a fox"),
        ("'NoneType'", "a float tensor", [None]),
        ("no texts (int)", none, 3),
    ]
    prompt = {"prompt": None} if name == "prompt_embeds" else {}
    return [(name, came, allowed, {name: value, **prompt}) for came, allowed, value in rows]


BLACK = Image.new("RGB", (96, 64))


def picture(mode: str = "RGB", orientation: int = 1, cut: int | None = None) -> Image.Image:
    """Return a picture file of 96 x 64, opened; turned by its EXIF data, or cut off."""
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x112] = orientation
    Image.new(mode, (96, 64)).save(stream, "JPEG", exif=exif)
    return Image.open(io.BytesIO(stream.getvalue()[:cut]))


CUT, LYING = picture(cut=700), picture(orientation=6)
CALLS: list[tuple[str, str, str, dict[str, Any]]] = [
    # Frames and sides.
    *counts("num_frames"),
    ("num_frames", "2", "1 or 5 frames (k * 4 + 1)", {"num_frames": 2}),
    ("num_frames", "8", "5 or 9 frames", {"num_frames": 8}),
    ("num_frames", "10", "9 or 13 frames", {"num_frames": 10}),
    *((side, repr(v), "an integer", {side: v}) for side in ("height", "width") for v in NO_COUNTS),
    *((side, str(v), "a multiple of 32", {side: v})
      for side in ("height", "width") for v in (48, 65)),
    # An image or a video.
    ("image", "(64, 64, 3)", "[64, 96, 3]", {"image": pixels(64, 64, 3)}),
    ("image", "(96, 64, 3)", "[64, 96, 3]", {"image": pixels(96, 64, 3)}),
    ("image", "(0, 96, 3)", "[64, 96, 3]", {"image": pixels(0, 96, 3)}),
    ("image", "(64, 96, 4)", "[h, w, 3]", {"image": pixels(64, 96, 4)}),
    ("image", "(64, 96, 1)", "[h, w, 3]", {"image": pixels(64, 96, 1)}),
    ("image", "(64, 96)", "[b, h, w, 3]", {"image": pixels(64, 96)}),
    ("image", "(3, 64, 96)", "[h, w, 3]", {"image": pixels(3, 64, 96)}),
    ("image", "(3, 64, 96, 3)", "[b, h, w, 3]", {"image": pixels(3, 64, 96, 3)}),
    ("image", "(3, 64, 96, 3)", "[b, h, w, 3]", {"image": [BLACK] * 3}),
    ("image", "(96, 64, 3)", "[64, 96, 3]", {"image": Image.new("RGB", (64, 96))}),
    ("image", "(64, 96, 3)", "[32, 64, 3]", {"image": BLACK, "height": 32, "width": 64}),
    *(("image", f"'{dtype}'", "uint8", {"image": pixels(64, 96, 3, dtype=dtype)})
      for dtype in ("float32", "float64", "int8", "uint16", "bool")),
    ("image", "'torch.float32'", "uint8", {"image": states(64, 96, 3)}),
    ("image", "'str'", "uint8 pixels, or pictures", {"image": "first.png"}),
    ("image", "'bytes'", "uint8 pixels, or pictures", {"image": b"\0" * 9}),
    ("image", "'int'", "uint8 pixels, or pictures", {"image": 0}),
    ("image", "'list'", "uint8 pixels, or pictures", {"image": []}),
    ("image", "'list'", "uint8 pixels, or pictures", {"image": [[[0, 0, 0]]]}),
    ("video", "(64, 96, 3)", "[b, n, h, w, 3]", {"video": pixels(64, 96, 3)}),
    ("video", "(5, 64, 64, 3)", "[any, 64, 96, 3]", {"video": pixels(5, 64, 64, 3)}),
    ("video", "(1, 64, 96, 4)", "[n, h, w, 3]", {"video": pixels(1, 64, 96, 4)}),
    ("video", "(1, 3, 64, 96)", "[n, h, w, 3]", {"video": pixels(1, 3, 64, 96)}),
    ("video", "(3, 5, 64, 96, 3)", "[b, n, h, w, 3]", {"video": pixels(3, 5, 64, 96, 3)}),
    ("video", "'float32'", "uint8", {"video": pixels(5, 64, 96, 3, dtype=np.float32)}),
    ("video", "'torch.int64'", "uint8", {"video": states(5, 64, 96, 3).long()}),
    ("video.frames", "0", "at least 1", {"video": pixels(0, 64, 96, 3)}),
    ("video.frames", "2", "1 or 5 frames (k * 4 + 1)", {"video": pixels(2, 64, 96, 3)}),
    ("video.frames", "4", "1 or 5 frames", {"video": [BLACK] * 4}),
    ("video.frames", "8", "5 or 9 frames", {"video": pixels(8, 64, 96, 3)}),
    ("video", "13 frames", "at most num_frames=9", {"video": pixels(13, 64, 96, 3)}),
    ("video", "9 frames", "num_frames=5", {"video": pixels(9, 64, 96, 3), "num_frames": 5}),
    ("video", "'str'", "uint8 pixels, or pictures", {"video": "clip.mp4"}),
    ("video", "'list'", "uint8 pixels, or pictures", {"video": []}),
    ("video", "'list'", "of one size", {"video": [BLACK, Image.new("RGB", (64, 96))]}),
    ("video", "'list'", "pictures", {"video": [BLACK, None]}),
    ("video", "'list_iterator'", "pictures", {"video": iter([BLACK])}),
    *((name, f"mode {mode}", "8 or 16 bits", {name: Image.new(mode, (96, 64)) if name == "image"
                                              else [Image.new(mode, (96, 64))]})
      for name in ("image", "video") for mode in ("I", "F")),
    ("image", "mode F", "8 or 16 bits", {"image": [BLACK, Image.new("F", (96, 64))],
                                         "prompt": ["a", "b"]}),
    ("image", "a picture", "decoded", {"image": CUT}),
    ("image", "(96, 64, 3)", "[64, 96, 3]", {"image": LYING}),
    ("video", "a video and an image", "one", {"video": pixels(1, 64, 96, 3), "image": BLACK}),
    # Texts.
    ("prompt", "None", "a text, several, or prompt_embeds", {"prompt": None}),
    ("prompt", "'a \\ud800 seven'", "surrogates", {"prompt": "a \ud800 seven"}),
    ("prompt", "'\\udcff'", "surrogates", {"prompt": ["a", "\udcff"]}),
    ("negative_prompt", "'\\ude00'", "surrogates", {"negative_prompt": "\ude00"}),
    ("prompt", "[]", "at least one", {"prompt": []}),
    ("prompt", "()", "at least one", {"prompt": ()}),
    ("prompt", "3", "a text", {"prompt": 3}),
    ("prompt", "{'a fox'}", "a text", {"prompt": {"a fox"}}),
    ("prompt", "array(['a fox']", "a text", {"prompt": np.array(["a fox"])}),
    ("prompt", "'int'", "texts", {"prompt": b"a fox"}),
    ("prompt", "'NoneType'", "texts", {"prompt": ["a fox", None]}),
    ("prompt", "'list'", "texts", {"prompt": [["a fox"]]}),
    ("negative_prompt", "[]", "at least one", {"negative_prompt": []}),
    ("negative_prompt", "3", "a text", {"negative_prompt": 3}),
    ("negative_prompt", "'int'", "texts", {"negative_prompt": ["a fox", 3]}),
    ("negative_prompt", "2 texts", "1, one for each", {"negative_prompt": ["dark", "dull"]}),
    ("negative_prompt", "1 texts", "2, one for each",
     {"prompt": ["a", "b"], "negative_prompt": ["dark"]}),
    ("negative_prompt", "3 texts", "2, one for each",
     {"prompt": ["a", "b"], "negative_prompt": ["dark"] * 3, "num_images_per_prompt": 2}),
    ("negative_prompt_embeds", "1 texts", "2, one for each",
     {"prompt": ["a", "b"], "negative_prompt_embeds": states(1, 3, 32)}),
    *embeddings("prompt_embeds"),
    *embeddings("negative_prompt_embeds"),
    ("prompt_embeds", "embeddings and a prompt", "one of the two",
     {"prompt_embeds": states(1, 3, 32)}),
    ("negative_prompt_embeds", "embeddings and a negative_prompt", "one of the two",
     {"negative_prompt": "dark", "negative_prompt_embeds": states(1, 3, 32)}),
    *counts("num_images_per_prompt"),
    ("num_images_per_prompt", "None", "an integer", {"num_images_per_prompt": None}),
    # Sets, steps, guidance.
    *counts("num_inference_steps"),
    ("num_inference_steps", "25", "at most the 24", {"num_inference_steps": 25}),
    ("num_inference_steps", "5", "at most the 4",
     {"num_inference_steps": 5, "height": 32, "width": 32}),
    *counts("num_diffusion_steps"),
    ("num_diffusion_steps", "1001", "at most the 1000", {"num_diffusion_steps": 1001}),
    *((name, repr(v), "a finite number in [0, ", {name: v})
      for name in ("guidance_scale", "min_guidance_scale", "guidance_trunc", "guidance_renorm",
                   "temperature")
      for v in NO_NUMBERS),
    *(("guidance_trunc", repr(v), "0, or a timestep from 1 to 1000", {"guidance_trunc": v})
      for v in (0.3, 1000.5)),
    ("guidance_renorm", "1.01", "[0, 1]", {"guidance_renorm": 1.01}),
    *(("flow_shift", repr(v), "a finite number", {"flow_shift": v}) for v in (0, *NO_NUMBERS)),
    ("flow_shift", "3.0", "None: DDPMScheduler has no shift", {"flow_shift": 3.0}),
    # Plan.
    ("plan_changes", "str", "a Mapping", {"plan_changes": "fast"}),
    *(("plan_changes", repr(name), "'refresh'", {"plan_changes": {name: 1}})
      for name in ("speed", "frames", "grid", 3)),
    ("refresh", "0", "an integer of at least 1", {"plan_changes": {"refresh": 0}}),
    *(("plan_changes", f"{field} beside {name}", "one of the two",
       {name: v, "plan_changes": {field: changed}})
      for field, name, v, changed in (
          ("sets", "num_inference_steps", 2, 3),
          ("diffusion_steps", "num_diffusion_steps", 1, 1),
          *(("guidance", name, v, nova.Guidance(3.0))
            for name, v in (("guidance_scale", 2), ("guidance_trunc", 400),
                            ("min_guidance_scale", 1), ("guidance_renorm", 1.0))),
          ("temperature", "temperature", 0.5, 0.6),
          ("flow_shift", "flow_shift", 3.0, 2.0),
      )),
    # Motion.
    *((name, repr(v), "a finite number", {name: v})
      for name in ("motion_flow", "fps") for v in NO_NUMBERS),
    *((name, came, allowed, {name: v})
      for name in ("motion_flow", "fps")
      for came, allowed, v in (
          ("0 numbers", "each of 1 samples", []),
          ("2 numbers", "each of 1 samples", [5.0, 5.0]),
          ("None", "a finite number", [None]),
          ("-2.0", "a finite number", [-2.0]),
          ("[5.0]", "a finite number", [[5.0]]),
          ("tensor", "a finite number", torch.ones(1)),
      )),
    ("fps", "-1.0", "a finite number", {"fps": -1.0}),  # of flow it says that none is known
    ("fps", "1 numbers", "each of 2 samples", {"fps": [5.0], "num_images_per_prompt": 2}),
    # Generators, output.
    ("generator", "0", "a torch.Generator", {"generator": 0}),
    ("generator", "Generator(PCG64)", "a torch.Generator", {"generator": np.random.default_rng(0)}),
    ("generator", "a list of 0", "one, or a list of 1", {"generator": []}),
    ("generator", "a list of 2", "one, or a list of 1", {"generator": [torch.Generator()] * 2}),
    ("generator", "a list of 1", "one, or a list of 2",
     {"generator": [torch.Generator()], "num_images_per_prompt": 2}),
    ("generator", "None", "a torch.Generator", {"generator": [None]}),
    ("generator", "cuda", "one on cpu", {"generator": OnCuda()}),
    *(("output_type", repr(v), "one of 'np', 'pil', 'pt', 'latent'", {"output_type": v})
      for v in ("mp4", "NP", None, 3, [])),
    *(("callback_on_step_end", came, "a callable", {"callback_on_step_end": v})
      for came, v in (("'str'", "print"), ("'bool'", True), ("'list'", []))),
]  # fmt: skip
GOOD: dict[str, Any] = {"prompt": "a fox", "num_inference_steps": 2, "num_diffusion_steps": 1}


@pytest.mark.parametrize(("argument", "came", "allowed", "changes"), CALLS)
@pytest.mark.usefixtures("no_work")
def test_a_bad_argument_of_a_call_is_refused_before_any_work(
    pipe, argument, came, allowed, changes, refuses
):
    given = torch.Generator().manual_seed(1)
    before = given.get_state(), torch.get_rng_state()
    with refuses(f"{argument}: got ", came, allowed):
        pipe(**{**GOOD, "generator": given, **changes})
    after = given.get_state(), torch.get_rng_state()
    assert all(map(torch.equal, before, after))


@pytest.mark.usefixtures("no_work")
def test_a_call_without_a_bad_argument_does_reach_the_network(pipe):
    with pytest.raises(AssertionError, match="work"):
        pipe(**GOOD)


def every_weight(pipe: nova.NovaPipeline) -> dict[str, Tensor]:
    parts = {"transformer": pipe.transformer, "vae": pipe.vae, "text": pipe.text_encoder}
    return {
        f"{part}.{name}": value.clone()
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }


def test_after_all_these_refusals_a_pipeline_makes_what_it_made_before(pipe, refuses):
    def run() -> Tensor:
        seeded = torch.Generator().manual_seed(0)
        return pipe(**GOOD, generator=seeded, output_type="latent").frames

    frames, weights, config = run(), every_weight(pipe), dict(pipe.config)
    for argument, _, _, changes in CALLS:
        with refuses(argument):
            pipe(**{**GOOD, **changes})
    assert torch.equal(run(), frames)
    after = every_weight(pipe)
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], weight) for name, weight in weights.items())
    assert dict(pipe.config) == config


# Pipelines of other parts.


@functools.cache
def opensora(channels: int = 4) -> OpenSoraVAE:
    return OpenSoraVAE(
        block_out_channels=(32, 32, 32, 32), layers_per_block=1, latent_channels=channels
    )


@functools.cache
def phi(width: int) -> Any:
    config = transformers.PhiConfig(
        vocab_size=9, hidden_size=width, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2,
    )  # fmt: skip
    return transformers.PhiForCausalLM(config)


def parts(pipe: nova.NovaPipeline, **changes: Any) -> dict[str, Any]:
    return {**pipe.components, **changes}


@pytest.mark.parametrize(
    ("argument", "came", "allowed", "changes"),
    [
        ("transformer", "'NoneType'", "a Nova", lambda: {"transformer": None}),
        ("transformer", "'Linear'", "a Nova", lambda: {"transformer": nn.Linear(1, 1)}),
        ("scheduler", "'NoneType'", "of diffusers", lambda: {"scheduler": None}),
        ("scheduler", "'str'", "of diffusers", lambda: {"scheduler": "DDPMScheduler"}),
        ("vae", "8 channels", "the network's 4", lambda: {"vae": opensora(8)}),
        ("vae", "'Linear'", "OpenSoraVAE", lambda: {"vae": nn.Linear(1, 1)}),
        ("vae", "'NoneType'", "AutoencoderKL", lambda: {"vae": None}),
        ("tokenizer", "'NoneType'", "one with a text_encoder", lambda: {"tokenizer": None}),
        ("tokenizer", "'TokenizersBackend'", "none without", lambda: {"text_encoder": None}),
        ("text_encoder", "width 16", "the network's 32", lambda: {"text_encoder": phi(16)}),
        ("text_encoder", "width None", "32", lambda: {"text_encoder": nn.Linear(32, 32)}),
        ("defaults", "'steps'", "'num_inference_steps'", lambda: {"defaults": {"steps": 3}}),
        ("defaults", "'list'", "a Mapping", lambda: {"defaults": ["fps"]}),
    ],
)
def test_a_pipeline_of_parts_that_do_not_fit_is_refused(
    pipe, argument, came, allowed, changes, refuses
):
    nova.NovaPipeline(**parts(pipe))
    with refuses(f"{argument}: got ", came, allowed):
        nova.NovaPipeline(**parts(pipe, **changes()))


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("name", ["prompt", "negative_prompt"])
def test_a_pipeline_without_text_encoder_refuses_words_and_names_what_it_takes(pipe, name, refuses):
    wordless = nova.NovaPipeline(**parts(pipe, text_encoder=None, tokenizer=None))
    with refuses(f"{name}: got ", "a dog", f"{name}_embeds: this pipeline has no text encoder"):
        wordless(**{**GOOD, "prompt": "", name: "a dog"})


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("shift", [0, -1.0, NAN, INF, "3"])
def test_a_flow_refuses_shifts_that_are_no_positive_numbers(pipe, shift, refuses):
    flow = nova.NovaPipeline(**parts(pipe, scheduler=FlowMatchEulerDiscreteScheduler()))
    with refuses("flow_shift: got ", repr(shift), "a finite number"):
        flow(**GOOD, flow_shift=shift)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("name", ["motion_flow", "fps"])
def test_a_pipeline_of_images_refuses_motion(pipe, name, refuses):
    sizes = dataclasses.replace(pipe.transformer.sizes, frames=1, adapter=None)
    images = nova.NovaPipeline(**parts(pipe, transformer=nova.build(sizes, device="meta")))
    with refuses(f"{name}: got ", "5.0", "None: this model makes images"):
        images(**{**GOOD, name: 5.0})


@pytest.mark.usefixtures("no_work")
def test_bad_defaults_are_refused_when_given_or_at_the_call_by_their_names(pipe, refuses):
    for name, value in (("num_frames", "many"), ("fps", -1.0), ("guidance_scale", None)):
        with refuses(f"defaults['{name}']: got ", repr(value)):
            nova.NovaPipeline(**parts(pipe, defaults={name: value}))
    for value in (-1.0, [1.0], (1.0, float("nan")), "warm"):
        with refuses("defaults['temperature']: got "):
            nova.NovaPipeline(**parts(pipe, defaults={"temperature": value}))
    for name, value in (("num_frames", 2), ("guidance_renorm", 2.0)):
        odd = nova.NovaPipeline(**parts(pipe, defaults={name: value}))
        with refuses(f"{name}: got ", repr(value)):
            odd(**GOOD)


# Saving.


def test_options_of_the_parts_are_refused_for_the_released_layout(pipe, tmp_path, refuses):
    with refuses("max_shard_size", "1MB"):
        pipe.save_pretrained(tmp_path / "saved", layout="released", max_shard_size="1MB")
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("layout", ["official", "Released", "", None, 3, []])
def test_an_unknown_layout_is_refused_and_nothing_is_written(pipe, layout, tmp_path, refuses):
    with refuses("layout: got ", repr(layout), "one of 'contar', 'released'"):
        pipe.save_pretrained(tmp_path / "saved", layout=layout)
    assert not list(tmp_path.iterdir())


def allegro() -> AutoencoderKLAllegro:
    return AutoencoderKLAllegro(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2
    )


def bert() -> transformers.BertModel:
    config = transformers.BertConfig(
        vocab_size=9, hidden_size=32, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2,
    )  # fmt: skip
    return transformers.BertModel(config)


def network(**changes: Any) -> Callable[[nova.NovaConfig], dict[str, Any]]:
    return lambda sizes: {
        "transformer": nova.build(dataclasses.replace(sizes, **changes), device="meta")
    }


@pytest.mark.parametrize(
    ("argument", "came", "allowed", "changes"),
    [
        ("vae", "'AutoencoderKLAllegro'", "OpenSoraVAE or AutoencoderKL",
         lambda _: {"vae": allegro()}),
        ("text_encoder", "'BertModel'", "PhiForCausalLM or None",
         lambda _: {"text_encoder": bert()}),
        ("temporal.width", "64", "the encoder's 32", network(temporal=nova.Tower(2, 64, 4))),
        ("decoder", "width=64", "width and heads of the encoder",
         network(decoder=nova.Tower(2, 64, 4))),
        ("decoder", "heads=2", "width and heads of the encoder",
         network(decoder=nova.Tower(2, 32, 2))),
        ("decoder", "depth=4", "half of all blocks", network(decoder=nova.Tower(4, 32, 4))),
        ("temporal.heads", "6", "12, of the width 768",
         network(temporal=nova.Tower(1, 768, 6), encoder=nova.Tower(1, 768, 12),
                 decoder=nova.Tower(1, 768, 12))),
        ("encoder.heads", "8", "12, of the width 768",
         network(temporal=nova.Tower(1, 768, 12), encoder=nova.Tower(1, 768, 8),
                 decoder=nova.Tower(1, 768, 8))),
        ("text_rows", "20", "512", network(text_rows=20)),
        ("patch", "4", "1 or 2", network(patch=4, latent=(8, 16), grid=(2, 4))),
    ],
)  # fmt: skip
def test_what_the_official_code_cannot_build_is_not_saved_in_its_layout(
    pipe, argument, came, allowed, changes, tmp_path, refuses
):
    odd = nova.NovaPipeline(**parts(pipe, **changes(pipe.transformer.sizes)))
    with refuses(f"{argument}: got ", came, allowed):
        odd.save_pretrained(tmp_path / "saved", layout="released")
    assert not list(tmp_path.iterdir())


# Folders.


Change = Callable[[Path], Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))


def lost(name: str) -> Change:
    def change(folder: Path) -> None:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return change


def holds(name: str, content: str | bytes) -> Change:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda folder: (folder / name).write_bytes(data)


def says(name: str, **changes: Any) -> Change:
    """Return a change of keys of a JSON file; `...` takes a key out."""

    def change(folder: Path) -> None:
        old = {**json.loads((folder / name).read_text()), **changes}
        new = {key: value for key, value in old.items() if value is not ...}
        (folder / name).write_text(json.dumps(new))

    return change


def renamed(name: str, other: str) -> Change:
    return lambda folder: (folder / name).rename((folder / name).with_name(other))


def weights(name: str, edit: Callable[[dict[str, Tensor], list[str]], object]) -> Change:
    """Return a change of the tensors of a file, given their sorted names too."""

    def change(folder: Path) -> None:
        state = load_file(folder / name)
        edit(state, sorted(state))
        save_file(state, folder / name, {"format": "pt"})

    return change


def load(folder: Any, **options: Any) -> nova.NovaPipeline:
    return nova.from_pretrained(folder, **{"num_heads": HEADS, **options})


def is_missing(folder: Any, argument: str, *fragments: str, **options: Any) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        load(folder, **options)
    message = str(caught.value)
    assert message.startswith(f"{argument}: got "), message
    assert "allowed" in message
    assert all(fragment in message for fragment in fragments), message


TRANSFORMER, VAE = f"transformer/{WEIGHTS}", f"vae/{SHARD}"
TEXT = "text_encoder/model.safetensors"
SCHEDULER = "scheduler/scheduler_config.json"
CONFIGS = ["transformer/config.json", "vae/config.json", SCHEDULER, "text_encoder/config.json",
           "model_index.json"]  # fmt: skip


@pytest.mark.parametrize(
    ("argument", "fragment", "change"),
    [
        *((part, "no such folder", lost(part))
          for part in ("transformer", "vae", "scheduler", "text_encoder", "tokenizer")),
        *((part, "no such folder", lambda folder, part=part: (lost(part)(folder),
                                                              (folder / part).write_text("")))
          for part in ("transformer", "vae", "scheduler")),
        *((Path(config).name, "no such file", lost(config)) for config in CONFIGS[:-1]),
        ("folder_or_hub_id", "model_index.json", lost(CONFIGS[-1])),
        *((file, "no such file", lost(file)) for file in (TRANSFORMER, VAE, TEXT)),
        (f"vae/{WEIGHTS}", "no such file", lost(f"vae/{WEIGHTS}.index.json")),
        ("vae/nowhere.safetensors", "no such file",
         says(f"vae/{WEIGHTS}.index.json", weight_map={"a": "nowhere.safetensors"})),
        ("text_encoder", "allowed", says("model_index.json", text_package="torch/nowhere")),
        ("vae/..", "no such file", says(f"vae/{WEIGHTS}.index.json", weight_map={"a": ".."})),
    ],
)  # fmt: skip
def test_a_missing_part_or_file_is_named(folder, argument, fragment, change):
    change(folder)
    is_missing(folder, argument, fragment)


@pytest.mark.parametrize(
    "name", ["nowhere", "./no/where", "/no/where", "a/b/c", "../x", "~/x", "judge.safetensors"]
)
def test_a_folder_that_is_not_there_is_named(name):
    is_missing(name, "folder_or_hub_id", repr(name))
    is_missing(Path(name), "folder_or_hub_id", str(Path(name)))


def test_a_file_and_names_that_no_folder_can_have_are_no_folder():
    file = CHECKPOINT / "model_index.json"
    is_missing(file, "folder_or_hub_id", str(file))
    is_missing(str(file), "folder_or_hub_id", str(file))
    is_missing("x" * 5000, "folder_or_hub_id", "xxx")
    is_missing("a\0b", "folder_or_hub_id", "a\\x00b")


def test_a_folder_hides_the_shipped_model_of_its_name_only_when_it_is_named_as_a_folder(
    tmp_path, monkeypatch
):
    (tmp_path / "moving-digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert nova.from_pretrained("moving-digits").transformer.sizes.frames == 5
    with pytest.raises(FileNotFoundError, match=r"model_index\.json"):
        nova.from_pretrained("./moving-digits")


def test_an_empty_folder_has_no_index(tmp_path):
    is_missing(tmp_path, "folder_or_hub_id", str(tmp_path), "model_index.json")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    tried = []

    def connect(*where: object) -> None:
        tried.append(where)
        raise OSError

    monkeypatch.setattr("socket.socket.connect", connect)
    monkeypatch.setattr("socket.getaddrinfo", connect)
    yield
    assert not tried


@pytest.mark.usefixtures("no_network")
def test_a_hub_id_that_was_never_downloaded_is_missing_when_the_hub_is_out_of_reach(
    tmp_path, monkeypatch
):
    for name in ("someone/nova", "a b/c d"):
        is_missing(name, "folder_or_hub_id", repr(name), cache_dir=tmp_path, local_files_only=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    is_missing("someone/nova", "folder_or_hub_id", "'someone/nova'", cache_dir=tmp_path)


@pytest.mark.parametrize("name", [None, 3, b"folder", ["folder"]])
def test_what_is_no_name_of_a_folder_is_refused(name, refuses):
    with refuses("folder_or_hub_id: got ", repr(name), "a folder, or a hub's id"):
        load(name)


@pytest.mark.parametrize("option", ["torch_dtype", "device", "subfolder"])
def test_an_unknown_option_is_refused_and_not_ignored(option):
    with pytest.raises(TypeError, match=option):
        load(CHECKPOINT, **{option: "cpu"})


@pytest.mark.parametrize("dtype", ["float32", torch.int8])
def test_a_dtype_without_fractions_is_refused(dtype, refuses):
    with refuses("dtype: got ", repr(dtype), "torch.bfloat16"):
        load(CHECKPOINT, dtype=dtype)


@pytest.mark.parametrize(
    ("argument", "came", "allowed", "heads"),
    [
        ("num_heads", "None", "vit_d2w32 is not a released architecture", None),
        ("num_heads", "4", "(temporal, spatial)", 4),
        ("num_heads", "(4,)", "(temporal, spatial)", (4,)),
        ("num_heads", "(4, 4, 4)", "(temporal, spatial)", (4, 4, 4)),
        ("num_heads", "'44'", "(temporal, spatial)", "44"),
        ("num_heads", "0", "an integer of at least 1", (4, 0)),
        ("num_heads", "4.0", "an integer of at least 1", (4.0, 4)),
        ("num_heads", "True", "an integer of at least 1", (4, True)),
        ("temporal.heads", "3", "a divisor of the width 32", (3, 4)),
        ("encoder.heads", "5", "a divisor of the width 32", (4, 5)),
    ],
)
def test_bad_heads_are_refused(argument, came, allowed, heads, refuses):
    with refuses(f"{argument}: got ", came, allowed):
        load(CHECKPOINT, num_heads=heads)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    ("came", "content"),
    [
        ("no JSON", ""),
        ("no JSON", '{"a": '),
        ("no JSON", b"\xff\xfe\x00"),
        ("no JSON", "[" * 100_000),
        ("a list", "[1]"),
        ("a str", '"config"'),
        ("a NoneType", "null"),
    ],
)
def test_a_config_that_is_no_json_object_is_refused(folder, name, came, content, refuses):
    holds(name, content)(folder)
    with refuses(f"{Path(name).name}: got ", came, str(folder / name), "a JSON object"):
        load(folder)


VAE_CONFIG, INDEX = "vae/config.json", f"vae/{WEIGHTS}.index.json"
OTHER_CLASS = {"_class_name": "AutoencoderKL", "block_out_channels": [8, 8], "norm_num_groups": 4,
               "down_block_types": ["DownEncoderBlock2D"] * 2,
               "up_block_types": ["UpDecoderBlock2D"] * 2}  # fmt: skip
BESIDE = "a weight_map to the names of files beside it"


@pytest.mark.parametrize(
    ("argument", "came", "allowed", "change"),
    [
        ("config['image_dim']", "None", "a value", says(CONFIGS[0], image_dim=...)),
        ("config['arch']", "'unet'", "vit_d16w1024", says(CONFIGS[0], arch=["unet"] * 3)),
        ("config['image_size']", "[64, 96]", "image_stride=7", says(CONFIGS[0], image_stride=7)),
        ("sizes", "'NoneType'", "a mapping", says(CONFIGS[0], sizes=None)),
        ("sizes", "channels", "unknown or missing", says(CONFIGS[0], sizes={"channel": 3})),
        *((f"model_index.json['{part}']", "3", "[library, class]",
           says("model_index.json", **{part: 3}))
          for part in ("transformer", "vae", "text_encoder", "tokenizer")),
        ("tokenizer", "'TokenizersBackend'", "none without",
         says("model_index.json", text_encoder=[None, None])),
        ("tokenizer", "'NoneType'", "one with", says("model_index.json", tokenizer=...)),
        ("defaults", "'speed'", "'fps'", says("model_index.json", defaults={"speed": 2})),
        ("defaults", "'int'", "a Mapping", says("model_index.json", defaults=3)),
        *(("text_package", repr(v), "a package and a folder in it",
           says("model_index.json", text_package=v))
          for v in (3, "torch.nn/model", "torch/../numpy", "torch//etc", "/etc", "../torch/nn")),
        *((VAE_CONFIG, f"_class_name {v}", "CausalVAE, OpenSoraVAE",
           says(VAE_CONFIG, _class_name=v))
          for v in (None, 3, "AutoencoderTiny", "UNet2DModel", "Linear", "__doc__")),
        *((VAE_CONFIG, came, "a config that OpenSoraVAE takes", says(VAE_CONFIG, **v))
          for came, v in (
              ("four multiples of 32", {"block_out_channels": [32, 32]}),
              ("two 2D stages", {"down_block_types": ["DownEncoderBlock3D"] * 4}),
              ("NoneType", {"up_block_types": None}),
              ("'str'", {"layers_per_block": "one"}),
          )),
        *((VAE_CONFIG, came, "a config that AutoencoderKL takes",
           says(VAE_CONFIG, **{**OTHER_CLASS, **v}))
          for came, v in (
              ("Block7 does not exist", {"down_block_types": ["Block7"] * 2}),
              ("divisible", {"norm_num_groups": 3}),
              ("no attribute 'lower'", {"act_fn": 3}),
              ("list index out of range", {"block_out_channels": []}),
          )),
        (SCHEDULER, "no class", "_class_name, _sample_class_name, _noise_class_name",
         says(SCHEDULER, _class_name=...)),
        *(("scheduler", repr(v), "a _class_name that diffusers has", says(SCHEDULER, _class_name=v))
          for v in ("NoScheduler", "UNet2DModel", "__name__", 3, [])),
        ("scheduler", "'NoScheduler'", "a _class_name that diffusers has",
         says(SCHEDULER, _sample_class_name="NoScheduler")),
        ("scheduler", "'cubic'", "a config that DDPMScheduler takes",
         says(SCHEDULER, beta_schedule="cubic")),
        ("scheduler.clip_sample", "True", "False", says(SCHEDULER, clip_sample=True)),
        *((INDEX.removeprefix("vae/"), repr(v), BESIDE, says(INDEX, weight_map=v))
          for v in (None, 3, ["a"], {"a": "../vae/x.safetensors"}, {"a": "/etc/passwd"})),
        (f"vae/{WEIGHTS}", "missing encoder.conv_in.weight", "exactly the weights",
         says(INDEX, weight_map={})),
        ("text_encoder", "Unrecognized model", "one of transformers",
         holds("text_encoder/config.json", "{}")),
        ("text_encoder", "num_attention_heads", "one of transformers",
         says("text_encoder/config.json", num_attention_heads="two")),
        ("text_encoder", "'loud'", "one of transformers",
         says("text_encoder/config.json", hidden_act="loud")),
        *(("tokenizer", came, "one of transformers", holds("tokenizer/tokenizer.json", content))
          for came, content in (("JSONDecodeError", "{"), ("KeyError", "{}"), ("None", "null"))),
        ("tokenizer", "Error: ", "one of transformers",
         holds("tokenizer/tokenizer_config.json", "[1]")),
        ("tokenizer", "instantiate", "one of transformers", lost("tokenizer/tokenizer.json")),
    ],
)  # fmt: skip
def test_a_folder_with_a_config_that_says_nonsense_is_refused(
    folder, argument, came, allowed, change, refuses
):
    change(folder)
    with refuses(f"{argument}: got ", came, allowed):
        load(folder)


# Weights.


def header(file: str) -> int:
    """Return where the data of a safetensors file begins."""
    with (CHECKPOINT / file).open("rb") as stream:
        return 8 + struct.unpack("<Q", stream.read(8))[0]


@pytest.mark.parametrize("file", [TRANSFORMER, VAE, TEXT])
def test_a_safetensors_file_that_is_cut_anywhere_is_refused(folder, file, refuses):
    whole, start = (folder / file).read_bytes(), header(file)
    middle = (start + len(whole)) // 2
    for length in (0, 1, 7, 8, 9, start // 2, start - 1, start, start + 1, middle, len(whole) - 1):
        (folder / file).write_bytes(whole[:length])
        with refuses(f"{file}: got ", "a file that is cut off"):
            load(folder)
    (folder / file).write_bytes(whole + b"\0")
    with refuses(f"{file}: got ", "cut off"):
        load(folder)
    (folder / file).write_bytes(whole)
    assert isinstance(load(folder), nova.NovaPipeline)


class Bomb:
    """A pickle of it makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("file", [TRANSFORMER, VAE, TEXT])
def test_a_pickle_is_refused_by_any_name_and_never_read(folder, file, tmp_path, refuses):
    bomb, path = tmp_path / "exploded", folder / file
    writers: dict[str, Callable[[], object]] = {
        f"protocol {p}": lambda p=p: path.write_bytes(pickle.dumps(Bomb(bomb), p)) for p in range(6)
    }
    writers["torch"] = lambda: torch.save(Bomb(bomb), path)
    writers["old torch"] = lambda: torch.save(
        Bomb(bomb), path, _use_new_zipfile_serialization=False
    )
    for name, write in writers.items():
        write()
        # The first two protocols have no mark that tells them from anything else.
        text = name in ("protocol 0", "protocol 1")
        words = ("no safetensors",) if text else ("a pickle by that name", "which run no code")
        with refuses(f"{file}: got ", *words):
            load(folder)
    for suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"):
        path = path.rename(path.with_suffix(suffix))
        with refuses(f"{file}: got ", f"pickles ({path.name})", "safetensors, which run no code"):
            load(folder)
    assert not bomb.exists()


@pytest.mark.parametrize("length", [0x0280, 0x0580, 0x4B50])
def test_a_safetensors_file_that_begins_as_a_pickle_would_is_read(tmp_path, length):
    text = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    data = struct.pack("<Q", length) + text.ljust(length).encode() + struct.pack("<f", 3.0)
    assert data[:2] in (b"\x80\x02", b"\x80\x05", b"PK")
    (tmp_path / WEIGHTS).write_bytes(data)
    assert torch.equal(read_weights(tmp_path)["a"], torch.tensor([3.0]))


def spoil(state: dict[str, Tensor], names: list[str]) -> None:
    del state[names[0]], state[names[1]]
    state |= {"extra.a": torch.zeros(1), "extra.b": torch.zeros(2)}
    state[names[2]], state[names[3]] = torch.zeros(7), torch.zeros(8)


def listed(file: str) -> list[str]:
    state = load_file(CHECKPOINT / file)
    names = sorted(state)[:4]
    shapes = [str(tuple(state[name].shape)) for name in names]
    return [
        f"missing {names[0]}",
        f"missing {names[1]}",
        f"{names[2]} is (7,), must be {shapes[2]}",
        f"{names[3]} is (8,), must be {shapes[3]}",
    ]


@pytest.mark.parametrize("file", [TRANSFORMER, VAE])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_missing_unexpected_and_misshapen_weights_are_all_listed(folder, file, dtype, refuses):
    part = Path(file).parts[0]
    weights(file, spoil)(folder)
    everything = [*listed(file), "unexpected extra.a", "unexpected extra.b"]
    with refuses(f"{part}/{WEIGHTS}: got ", *everything, "exactly the weights of this model"):
        load(folder, dtype=dtype)


def test_missing_and_misshapen_weights_of_a_text_encoder_are_all_listed(folder, refuses):
    weights(TEXT, spoil)(folder)
    with refuses(f"{TEXT}: got ", *listed(TEXT), "all weights of the model"):
        load(folder)


@pytest.mark.parametrize("file", [TRANSFORMER, VAE])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_whole_numbers_are_no_weights(folder, file, dtype, refuses):
    def round_two(state: dict[str, Tensor], names: list[str]) -> None:
        for name in names[:2]:
            state[name] = state[name].to(torch.int8)

    weights(file, round_two)(folder)
    names = sorted(load_file(CHECKPOINT / file))[:2]
    everything = [f"{name} is torch.int8" for name in names]
    with refuses(f"{Path(file).parts[0]}/{WEIGHTS}: got ", *everything, "exactly the weights"):
        load(folder, dtype=dtype)


def test_a_network_in_our_layout_lists_its_wrong_weights_and_sizes_too(pipe, tmp_path, refuses):
    folder = tmp_path / "ours"
    pipe.save_pretrained(folder)
    ours = load_file(folder / TRANSFORMER)
    names, sizes = sorted(ours), json.loads((folder / CONFIGS[0]).read_text())["sizes"]
    weights(TRANSFORMER, spoil)(folder)
    shape = tuple(ours[names[3]].shape)
    everything = [f"missing {name}" for name in names[:2]]
    everything += ["unexpected extra.a", "unexpected extra.b", f"{names[3]} is (8,), must be "]
    with refuses(f"{TRANSFORMER}: got ", *everything, str(shape)):
        load(folder)
    for argument, value in (("temporal", 3), ("encoder", [1]), ("latent", 8), ("channels", "4")):
        says(CONFIGS[0], sizes={**sizes, argument: value})(folder)
        with refuses(argument, str(value).strip("[]")):
            load(folder)


# Code.


@pytest.mark.parametrize(
    ("part", "file", "classes"),
    [
        ("text_encoder", "text_encoder/config.json",
         {"AutoConfig": "code.Config", "AutoModel": "code.Model"}),
        ("tokenizer", "tokenizer/tokenizer_config.json", {"AutoTokenizer": ["code.Words", None]}),
    ],
)  # fmt: skip
def test_code_that_a_folder_brings_is_refused_and_nobody_is_asked_to_run_it(
    folder, part, file, classes, monkeypatch, capsys, refuses
):
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    changes: dict[str, Any] = {"auto_map": classes, "architectures": None, "model_type": "own"}
    says(file, **changes, tokenizer_class="Words")(folder)
    (folder / part / "code.py").write_text("raise RuntimeError('run')\n")
    capsys.readouterr()
    with refuses(f"{part}: got ", "custom code"):
        load(folder)
    assert "Do you wish to run" not in "".join(capsys.readouterr())
