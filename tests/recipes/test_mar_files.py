"""MAR's files: ours, official checkpoints, the tokenizer; a pickle that runs code runs nothing."""

import argparse
import pickle
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import load_file, save_file
from tiny_mar import SIZES, tiny_mar
from torch import nn

from contar.tokenizers import VAETokenizer
from recipes import mar
from recipes._mar import config as mar_config


def same(model, other):
    ours, theirs = model.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.fixture(scope="module")
def model():
    return tiny_mar()


@pytest.fixture
def released(model, tmp_path, monkeypatch):
    """An official checkpoint of a model that stands for `mar_base`, and its path."""
    arguments = {
        "encoder_depth": 1, "encoder_embed_dim": 16, "encoder_num_heads": 2,
        "decoder_depth": 2, "decoder_embed_dim": 24, "decoder_num_heads": 2,
        "diffloss_d": 9, "diffloss_w": 9,
    }  # fmt: skip
    monkeypatch.setitem(mar_config._RELEASED, "mar_base", arguments)
    square = tiny_mar(latent=(4, 4))
    state = square.official_state_dict()
    content = {
        "model": {name: tensor + 1 for name, tensor in state.items()},
        "model_ema": {name: nn.Parameter(tensor) for name, tensor in state.items()},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4}]},
        "epoch": 399,
        "args": argparse.Namespace(
            model="mar_base", img_size=64, vae_stride=16, patch_size=2, vae_embed_dim=2,
            class_num=3, buffer_size=2, diffloss_d=1, diffloss_w=16, num_sampling_steps="100",
            lr=None, output_dir="./out", use_cached=True, num_iter=64,
        ),
    }  # fmt: skip
    torch.save(content, tmp_path / "checkpoint-last.pth")
    return square, content, tmp_path / "checkpoint-last.pth"


def test_a_model_survives_saving_and_loading(model, tmp_path):
    model.save_pretrained(tmp_path)
    for loaded in (mar.from_pretrained(tmp_path), mar.Mar.from_pretrained(str(tmp_path))):
        assert loaded.sizes == model.sizes
        assert same(loaded, model)
        assert not loaded.training
    half = mar.from_pretrained(str(tmp_path), dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16


def test_a_folder_in_the_names_of_version_0_1_loads(model, tmp_path):
    model.save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    old = {}
    for name, tensor in load_file(file).items():
        name = name.replace("spatial.norm.", "spatial.decoder_norm.").removeprefix("spatial.")
        old[name] = tensor[None] if name == "mask_token" else tensor
    assert "encoder.0.attn.qkv.weight" in old
    save_file(old, file, {"format": "pt"})
    for loaded in (mar.from_pretrained(tmp_path), mar.Mar.from_pretrained(str(tmp_path))):
        assert same(loaded, model)


def test_an_official_checkpoint_loads_its_averaged_weights_by_the_sizes_in_its_arguments(released):
    square, _, path = released
    loaded = mar.from_pretrained(path)
    assert loaded.sizes == square.sizes
    assert same(loaded, square)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_the_weights_of_the_last_step_are_there_too(released):
    _, content, path = released
    loaded = mar.from_pretrained(path, ema=False).official_state_dict()
    assert all(torch.equal(loaded[name], content["model"][name]) for name in loaded)


def test_a_loaded_model_does_not_change_its_file(released):
    square, _, path = released
    with torch.no_grad():
        for parameter in mar.from_pretrained(path).parameters():
            parameter.zero_()
    assert same(mar.from_pretrained(path), square)


def test_a_checkpoint_of_the_older_pickle_format_loads_too(released):
    square, content, path = released
    torch.save(content, path, _use_new_zipfile_serialization=False)
    assert same(mar.from_pretrained(path), square)


def test_a_checkpoint_that_does_not_say_what_it_is_needs_a_config(released, refuses):
    square, content, path = released
    for arguments in (None, argparse.Namespace(), argparse.Namespace(model=None), {"model": 3}):
        torch.save({**content, "args": arguments}, path)
        with refuses("config", "None", "MarConfig"):
            mar.from_pretrained(path)
        assert same(mar.from_pretrained(path, config=square.sizes), square)


def test_an_architecture_that_is_not_released_is_refused(released, refuses):
    _, content, path = released
    torch.save({**content, "args": argparse.Namespace(model="mar_giant")}, path)
    with refuses("config['model']", "'mar_giant'", "mar_huge"):
        mar.from_pretrained(path)


def test_weights_of_another_model_are_all_listed(released, refuses):
    _, content, path = released
    state = dict(content["model_ema"])
    del state["z_proj.bias"]
    torch.save({**content, "model_ema": {**state, "lora": torch.zeros(1)}}, path)
    with refuses("state", "missing z_proj.bias", "unexpected lora"):
        mar.from_pretrained(path)


@pytest.mark.parametrize("ema", [True, False])
def test_weights_that_lie_elsewhere_in_a_checkpoint_are_missed_by_name(released, ema, refuses):
    _, content, path = released
    key = "model_ema" if ema else "model"
    rest = {name: value for name, value in content.items() if name != key}
    for broken in (None, 3, [torch.zeros(1)], {3: torch.zeros(1)}):
        torch.save({**rest, key: broken}, path)
        with refuses("path", key):
            mar.from_pretrained(path, ema=ema)
    for others in (rest, {"state_dict": content[key]}, dict(content[key])):
        torch.save(others, path)
        with refuses("path", f"with '{next(iter(others))}'", repr(key)):
            mar.from_pretrained(path, ema=ema)


def test_sizes_that_no_memory_has_addresses_for_are_refused(released, refuses):
    _, content, path = released
    content["args"].diffloss_w = 10**12
    torch.save(content, path)
    with refuses("width", "1000000000000"):
        mar.from_pretrained(path)


class Runs:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("load", [mar.from_pretrained, mar.load_tokenizer])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(
    released, tmp_path, refuses, load, legacy
):
    _, content, path = released
    ran = tmp_path / "ran"
    for place in ("model_ema", "args", "other"):
        hostile = {**content, place: Runs(ran)}
        torch.save(hostile, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(ValueError, match=f"path: got '{path}, which names io.open'") as caught:
            load(path)
        assert "weights_only" not in str(caught.value)  # torch's advice, by which it would run
    path.write_bytes(pickle.dumps(Runs(ran)))
    with refuses("path", str(path)):
        load(path)
    assert not ran.exists()


@pytest.mark.parametrize("load", [mar.from_pretrained, mar.load_tokenizer])
@pytest.mark.parametrize("content", [b"", b"PK", b"weights", bytes(1000)])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, load, content, refuses):
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with refuses("path", str(path)):
        load(path)


@pytest.mark.parametrize("load", [mar.from_pretrained, mar.load_tokenizer])
def test_a_pickle_of_something_else_is_refused(tmp_path, load, refuses):
    torch.save([torch.zeros(1)], tmp_path / "file.pth")
    with refuses("path", "named weights"):
        load(tmp_path / "file.pth")


@pytest.mark.parametrize("load", [mar.from_pretrained, mar.load_tokenizer])
def test_a_path_is_one_that_exists(tmp_path, load, refuses):
    with pytest.raises(FileNotFoundError, match="path: got"):
        load(tmp_path / "missing")
    for path in (None, 3, [str(tmp_path)]):
        with refuses("path", repr(path)):
            load(path)


def test_a_folder_needs_a_config_and_weights_of_its_own(model, tmp_path, refuses):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        mar.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    with refuses("config", "MarConfig"):
        mar.from_pretrained(tmp_path, config=model.sizes)
    (tmp_path / "config.json").write_text('{"sizes": 3}')
    with refuses("sizes", "int"):
        mar.from_pretrained(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    mar.Mar(mar.MarConfig(**SIZES)).save_config(tmp_path)
    with pytest.raises(FileNotFoundError, match="safetensors"):
        mar.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("ema", "str", {"ema": "yes"}),
        ("config", "dict", {"config": SIZES}),
        ("dtype", "'float32'", {"dtype": "float32"}),
        ("dtype", "torch.int8", {"dtype": torch.int8}),
    ],
)
def test_options_of_loading_are_what_they_say(tmp_path, argument, came, changes, refuses):
    with refuses(argument, came):
        mar.from_pretrained(tmp_path, **changes)


# The tokenizer.


def small_vae(attention) -> Any:
    """An autoencoder of three levels, with attention in the deepest as the released one has it."""
    sizes: dict[str, Any] = {
        "block_out_channels": (32, 32, 64),
        "layers_per_block": 2,
        "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 2 + (f"{attention}DownEncoderBlock2D",),
        "up_block_types": ("UpDecoderBlock2D",) * 3,
    }
    return AutoencoderKL(**sizes).eval()


def ldm_name(name):
    """The name that latent-diffusion has for a weight of `small_vae`."""
    half, *parts = name.split(".")
    if half not in ("encoder", "decoder"):
        return name
    name = ".".join(parts)
    if "attentions" in name:
        pairs = (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"))
        for ours, theirs in (*pairs, ("to_out.0", "proj_out")):
            name = name.replace(f".{ours}.", f".{theirs}.")
    for level in range(3):
        name = name.replace(f"down_blocks.{level}.", f"down.{level}.")
        name = name.replace(f"up_blocks.{level}.", f"up.{2 - level}.")
    for ours, theirs in (
        ("mid_block.attentions.0", "mid.attn_1"), ("mid_block.resnets.0", "mid.block_1"),
        ("mid_block.resnets.1", "mid.block_2"), (".attentions.", ".attn."),
        (".resnets.", ".block."), ("samplers.0.", "sample."), ("conv_shortcut", "nin_shortcut"),
        ("conv_norm_out", "norm_out"),
    ):  # fmt: skip
        name = name.replace(ours, theirs)
    return f"{half}.{name}"


def ldm_state(vae):
    state = {}
    for name, tensor in vae.state_dict().items():
        wide = tensor.ndim == 2  # latent-diffusion's attention is made of 1 x 1 convolutions
        state[ldm_name(name)] = tensor[:, :, None, None] if wide else tensor
    return state


@pytest.mark.parametrize("attention", ["", "Attn"])
def test_a_tokenizer_in_the_layout_of_latent_diffusion_loads(attention, tmp_path):
    vae = small_vae(attention)
    state = ldm_state(vae)
    assert ("encoder.down.2.attn.1.proj_out.weight" in state) == bool(attention)
    assert "decoder.up.2.upsample.conv.weight" in state
    assert "encoder.down.2.block.0.nin_shortcut.weight" in state
    state["loss.logvar"] = torch.zeros(())
    torch.save({"model": state}, tmp_path / "kl.ckpt")
    tokenizer = mar.load_tokenizer(tmp_path / "kl.ckpt")
    assert isinstance(tokenizer, VAETokenizer)
    assert (tokenizer.channels, tokenizer.space_stride) == (4, 4)
    assert tokenizer.scale.tolist() == pytest.approx([0.2325])
    assert same(tokenizer.vae, vae)
    pixels = torch.randn(1, 3, 16, 16).clamp(-1, 1)
    latents = tokenizer.encode(pixels[:, :, None])[:, :, 0]
    with torch.no_grad():
        mean = vae.encode(pixels).latent_dist.mean
        decoded = vae.decode(mean).sample
    torch.testing.assert_close(latents, 0.2325 * mean)
    torch.testing.assert_close(
        tokenizer.decode(latents[:, :, None])[:, :, 0], decoded, atol=1e-4, rtol=1e-4
    )


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize(
    "broken", ["no weights", "a level", "a shape", "another", "a number", "a size"]
)
def test_a_tokenizer_of_other_weights_is_refused(tmp_path, broken, refuses):
    state = ldm_state(small_vae(""))
    if broken == "no weights":
        content = {"state_dict": state}
    elif broken == "a level":
        content = {"model": {n: x for n, x in state.items() if "down.1.block.1" not in n}}
    elif broken == "a shape":
        content = {"model": {**state, "encoder.norm_out.weight": torch.zeros(65)}}
    elif broken == "another":
        content = {"model": {"fc.weight": torch.zeros(2, 2)}}
    elif broken == "a size":
        ends = ("encoder.conv_in.weight", "decoder.conv_out.weight", "post_quant_conv.weight")
        first = {"encoder.down.0.block.0.conv1.weight": torch.zeros(0, 3)}
        content = {"model": {**first, **{name: state[name] for name in ends}}}
    else:
        content = {"model": {**state, "decoder.conv_out.weight": 3}}
    torch.save(content, tmp_path / "kl.ckpt")
    with refuses("path"):
        mar.load_tokenizer(tmp_path / "kl.ckpt")
