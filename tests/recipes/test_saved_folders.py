"""A save leaves exactly one complete set of weights; loading takes no other sizes, no NaN."""

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import load_file, save_file
from tiny_mar import tiny_mar

from contar.tokenizers import CausalVAE, OpenSoraVAE
from recipes import mar, nova
from recipes.moving_digits import DigitJudge

CHECKPOINT = Path(__file__).parents[1] / "goldens" / "checkpoint"
DIGITS = Path(nova.__file__).parent / "moving_digits" / "weights" / "moving-digits"
WEIGHTS = "diffusion_pytorch_model.safetensors"


def load(folder: Path) -> nova.NovaPipeline:
    return nova.from_pretrained(folder, num_heads=(4, 4))


def in_shards(folder: Path, name: str = WEIGHTS, prefix: str = "") -> None:
    """Part a folder's one file into three shards and an index, as other libraries do."""
    state, stem = load_file(folder / name), name.removesuffix(".safetensors")
    names, places = sorted(state), {}
    for shard in range(3):
        file = f"{prefix or stem}-{shard + 1:05d}-of-00003.safetensors"
        part = {key: state[key] for key in names[shard::3]}
        save_file(part, folder / file, {"format": "pt"})
        places |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / f"{name}.index.json").write_text(json.dumps(index))
    (folder / name).unlink()


def weights_of(folder: Path) -> set[str]:
    found = [*folder.rglob("*.safetensors*"), *folder.rglob("*.bin*")]
    return {str(file.relative_to(folder)) for file in found}


@pytest.fixture
def released(tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "released"))
    in_shards(folder / "transformer")
    in_shards(folder / "text_encoder", "model.safetensors")
    return folder


# What a save leaves.


def changed(pipe: nova.NovaPipeline) -> dict[str, torch.Tensor]:
    """Change a weight of each part in place; return them by part."""
    first = {
        name: next(iter(part.parameters()))
        for name, part in pipe.components.items()
        if isinstance(part, torch.nn.Module)
    }
    with torch.no_grad():
        for parameter in first.values():
            parameter.add_(1.0)
    return {name: parameter.detach().clone() for name, parameter in first.items()}


@pytest.mark.parametrize("layout", ["contar", "released"])
def test_weights_saved_over_shards_are_those_that_load(layout, released):
    pipe = load(released)
    wanted = changed(pipe)
    pipe.save_pretrained(released, layout=layout)
    again = load(released)
    for name, value in wanted.items():
        assert torch.equal(next(iter(again.components[name].parameters())), value), name
    whole = {f"transformer/{WEIGHTS}", f"vae/{WEIGHTS}", "text_encoder/model.safetensors"}
    assert weights_of(released) == whole


def test_weights_saved_in_shards_are_those_that_load_whatever_was_there(released):
    pipe = load(released)
    for size in ("20KB", "60KB", None, "20KB"):
        wanted = changed(pipe)
        pipe.save_pretrained(released, max_shard_size=size)
        pipe = load(released)
        for name, value in wanted.items():
            assert torch.equal(next(iter(pipe.components[name].parameters())), value), name
        for part, name in (("transformer", WEIGHTS), ("text_encoder", "model.safetensors")):
            index = released / part / f"{name}.index.json"
            listed = {name}
            if size is not None:
                listed = {*json.loads(index.read_text())["weight_map"].values(), index.name}
            assert weights_of(released / part) == listed


@pytest.mark.parametrize("make", [tiny_mar, lambda: CausalVAE(widths=(8, 16, 16))])
def test_a_model_saved_in_shards_then_whole_then_in_shards_loads_each_time(make, tmp_path):
    model = make()
    own = isinstance(model, mar.Mar)
    loaders = [type(model).from_pretrained, *([mar.from_pretrained] if own else [])]
    for size in ("20KB", "10GB", "40KB", "20KB"):
        first = next(iter(model.parameters()))
        with torch.no_grad():
            first.add_(1.0)
        model.save_pretrained(tmp_path, max_shard_size=size)
        for loader in loaders:
            assert torch.equal(next(iter(loader(str(tmp_path)).parameters())), first)
        assert (WEIGHTS in weights_of(tmp_path)) == (size == "10GB")
        assert not list(tmp_path.glob(".*"))


def test_stale_copies_of_the_weights_go_and_what_else_lies_there_stays(released):
    part = released / "transformer"
    stale = ["diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bin",
             "diffusion_pytorch_model-00004-of-00009.safetensors",
             "diffusion_pytorch_model.safetensors.index.fp16.json"]  # fmt: skip
    own = ["notes.txt", "lora.safetensors", "diffusion_pytorch_model.backup.safetensors",
           "model.safetensors", "my-pytorch_model.bin"]  # fmt: skip
    for name in (*stale, *own):
        (part / name).write_text("mine")
    (released / "transformer" / "samples").mkdir()
    (released / "README.md").write_text("mine")
    load(released).save_pretrained(released)
    assert not [name for name in stale if (part / name).exists()]
    assert all((part / name).read_text() == "mine" for name in own)
    assert (part / "samples").is_dir()
    assert (released / "README.md").read_text() == "mine"


def test_shards_of_any_name_that_the_old_index_lists_go(tmp_path):
    model = tiny_mar()
    model.save_pretrained(tmp_path)
    in_shards(tmp_path, prefix="part")
    assert mar.from_pretrained(tmp_path).sizes == model.sizes
    model.save_pretrained(tmp_path)
    assert weights_of(tmp_path) == {WEIGHTS}
    (tmp_path / f"{WEIGHTS}.index.json").write_text("{ damaged")
    model.save_pretrained(tmp_path)
    assert weights_of(tmp_path) == {WEIGHTS}


def test_a_copy_in_another_precision_is_saved_beside_the_weights(tmp_path):
    model = tiny_mar()
    model.save_pretrained(tmp_path)
    for size in ("10GB", "20KB", "10GB"):
        model.save_pretrained(tmp_path, variant="fp16", max_shard_size=size)
        copies = {name for name in weights_of(tmp_path) if "fp16" in name}
        assert weights_of(tmp_path) - copies == {WEIGHTS}
        assert ("diffusion_pytorch_model.fp16.safetensors" in copies) == (size == "10GB")
        assert len(copies) == 1 or size == "20KB"
    model.save_pretrained(tmp_path)
    assert weights_of(tmp_path) == {WEIGHTS}


def test_a_network_of_tied_weights_is_saved_and_loads(tmp_path):
    pipe = load(CHECKPOINT)
    blocks = pipe.transformer.spatial.encoder
    blocks[1].attn = blocks[0].attn
    wanted = {name: value.clone() for name, value in pipe.transformer.state_dict().items()}
    for layout in ("contar", "released"):
        pipe.save_pretrained(tmp_path / layout, layout=layout)
        again = load(tmp_path / layout).transformer.state_dict()
        assert all(torch.equal(again[name], value) for name, value in wanted.items())


@pytest.mark.parametrize("layout", ["contar", "released"])
def test_a_save_that_fails_leaves_the_folder_as_it_was(layout, released, largest_file):
    pipe = load(released)
    changed(pipe)

    def content() -> dict[str, bytes]:
        files = (file for file in released.rglob("*") if file.is_file())
        return {str(file): file.read_bytes() for file in files}

    before = content()
    with largest_file(50_000), pytest.raises(OSError, match="too large"):
        pipe.save_pretrained(released, layout=layout)
    assert content() == before
    with largest_file(50_000), pytest.raises(OSError, match="too large"):
        pipe.save_pretrained(released.parent / "new", layout=layout)
    assert not (released.parent / "new").exists()


# What loading holds against the weights.


def says(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def word_of(name: str) -> str:
    """Return the size that an error has to name: "depth" for "sizes: got 'encoder.depth="."""
    return re.findall(r"\w+", name.replace("[0]", ""))[-1].split("_")[-1]


OFFICIAL = ["vit_d2w32", "vit_d4w32", "mlp_d2w32"]


@pytest.mark.parametrize("size", [100_000, 2**40, 10**30])
@pytest.mark.parametrize(
    ("source", "file", "name", "change"),
    [
        (CHECKPOINT, "transformer/config.json", "sizes: got 'temporal.depth=",
         lambda n: {"arch": [f"vit_d{n}w32", *OFFICIAL[1:]]}),
        (CHECKPOINT, "transformer/config.json", "sizes: got 'head.depth=",
         lambda n: {"arch": [*OFFICIAL[:2], f"mlp_d{n}w32"]}),
        (CHECKPOINT, "transformer/config.json", "sizes: got 'text_width=",
         lambda n: {"text_token_dim": n}),
        (CHECKPOINT, "vae/config.json", "vae/config.json: got 'layers_per_block=",
         lambda n: {"layers_per_block": n}),
        (CHECKPOINT, "vae/config.json", "vae/config.json: got 'block_out_channels[0]=",
         lambda n: {"block_out_channels": [32 * n] * 4}),
        (CHECKPOINT, "text_encoder/config.json", "text_encoder/config.json: got 'num_hidden",
         lambda n: {"num_hidden_layers": n}),
        (DIGITS, "vae/config.json", "vae/config.json: got 'depth=", lambda n: {"depth": n}),
        (DIGITS, "vae/config.json", "vae/config.json: got 'widths[0]=",
         lambda n: {"widths": [8 * n] * 3}),
        (DIGITS, "transformer/config.json", "sizes: got 'encoder.depth=",
         lambda n: {"encoder": [n, 128, 4]}),
        (DIGITS, "transformer/config.json", "sizes: got 'decoder.width=",
         lambda n: {"decoder": [3, 4 * n, 4]}),
        (DIGITS, "transformer/config.json", "sizes: got 'text_rows=", lambda n: {"text_rows": n}),
    ],
)  # fmt: skip
def test_absurd_sizes_are_refused_by_name_within_a_second(
    source, file, name, change, size, tmp_path, refuses
):
    if size == 10**30 and "arch" in change(1):
        size = 10**17
    size = 10**9 if size == 100_000 and "'text_" in name else size  # else misshapen
    folder = Path(shutil.copytree(source, tmp_path / "model"))
    changes = change(size)
    if source == DIGITS and file.startswith("transformer"):
        sizes = json.loads((folder / file).read_text())["sizes"]
        changes = {"sizes": {**sizes, **changes}}
    says(folder / file, **changes)
    heads = (4, 4) if source == CHECKPOINT else None
    began = time.process_time()
    with refuses("", word_of(name)):  # of a part's own door, or held against the weights
        nova.from_pretrained(folder, num_heads=heads)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("size", [100_000, 2**40, 10**30])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("encoder.depth", lambda n: {"encoder": [n, 16, 2]}),
        ("decoder.width", lambda n: {"decoder": [2, 2 * n, 2]}),
        ("head.depth", lambda n: {"head": mar.official_head(16, n)}),
        ("classes", lambda n: {"classes": n}),
        ("mlp_ratio", lambda n: {"mlp_ratio": float(n)}),
    ],
)
def test_absurd_sizes_of_a_mar_are_refused_by_name_within_a_second(name, change, size, tmp_path):
    model = tiny_mar()
    model.save_pretrained(tmp_path)
    size = 10**9 if size == 100_000 and name == "classes" else size  # else merely misshapen
    sizes = json.loads((tmp_path / "config.json").read_text())["sizes"]
    says(tmp_path / "config.json", sizes={**sizes, **change(size)})
    for loader in (mar.from_pretrained, mar.Mar.from_pretrained):
        began = time.process_time()
        with pytest.raises(ValueError, match=f"{word_of(name)}|{name.split('.')[0]}"):
            loader(str(tmp_path))
        assert time.process_time() - began < 1


def test_a_diffusers_autoencoder_of_absurd_sizes_is_refused(tmp_path, refuses):
    folder = Path(shutil.copytree(DIGITS, tmp_path / "model"))
    sizes: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 2, "block_out_channels": (8, 8),
        "up_block_types": ("UpDecoderBlock2D",) * 2, "norm_num_groups": 4,
    }  # fmt: skip
    vae = AutoencoderKL(**sizes)
    shutil.rmtree(folder / "vae")
    vae.save_pretrained(folder / "vae")
    for name, value in (("layers_per_block", 10**9), ("block_out_channels", [2**40] * 2)):
        says(folder / "vae" / "config.json", **{name: value})
        with refuses("vae/config.json", name, "the sizes of these weights"):
            nova.from_pretrained(folder)


def test_a_scheduler_of_absurdly_many_timesteps_is_refused(tmp_path, refuses):
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "model"))
    says(folder / "scheduler" / "scheduler_config.json", num_train_timesteps=10**11)
    with refuses("scheduler.num_train_timesteps", "100000000000"):
        load(folder)


# Numbers that are none.


def spoiled(file: Path, value: float) -> str:
    """Put a number into the last weight of a file; return the weight's name."""
    state = load_file(file)
    name = sorted(key for key, weight in state.items() if weight.is_floating_point())[-1]
    state[name].view(-1)[-1] = value
    save_file(state, file, {"format": "pt"})
    return name


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize(
    "file", [f"transformer/{WEIGHTS}", "vae/shard", "text_encoder/model.safetensors"]
)
def test_weights_that_are_no_finite_numbers_are_refused_by_their_names(
    file, dtype, value, tmp_path, refuses
):
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "model"))
    part = file.split("/")[0]
    shard = "diffusion_pytorch_model-00002-of-00003.safetensors"
    name = spoiled(folder / file.replace("vae/shard", f"vae/{shard}"), value)
    with refuses(part, "NaN or infinite", name):
        nova.from_pretrained(folder, num_heads=(4, 4), dtype=dtype)


def test_weights_that_the_asked_dtype_cannot_hold_are_refused(tmp_path, refuses):
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "model"))
    name = spoiled(folder / "transformer" / WEIGHTS, 1e6)
    assert load(folder).transformer.dtype == torch.float32
    with refuses("transformer", name, "float16"):
        nova.from_pretrained(folder, num_heads=(4, 4), dtype=torch.float16)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_every_loader_refuses_weights_that_are_no_finite_numbers(value, tmp_path, refuses):
    folder = Path(shutil.copytree(DIGITS, tmp_path / "digits"))
    for part, cls in (("transformer", nova.Nova), ("vae", CausalVAE)):
        name = spoiled(folder / part / WEIGHTS, value)
        for loader in (cls.from_pretrained, lambda place: nova.from_pretrained(folder)):
            with refuses("", "NaN or infinite", name):
                loader(str(folder / part))
        shutil.copy(DIGITS / part / WEIGHTS, folder / part)
    vae = load(CHECKPOINT).vae
    vae.save_pretrained(tmp_path / "osp")
    name = spoiled(tmp_path / "osp" / WEIGHTS, value)
    with refuses("OpenSoraVAE", name):
        OpenSoraVAE.from_pretrained(str(tmp_path / "osp"))
    judge = DigitJudge()
    name = spoiled(judge.save(tmp_path / "judge.safetensors"), value)
    with refuses("judge.safetensors", name):
        DigitJudge.load(tmp_path / "judge.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_every_loader_of_mar_refuses_weights_that_are_no_finite_numbers(value, tmp_path, refuses):
    model = tiny_mar()
    model.save_pretrained(tmp_path)
    name = spoiled(tmp_path / WEIGHTS, value)
    for loader in (mar.from_pretrained, mar.Mar.from_pretrained):
        with refuses("", "NaN or infinite", name):
            loader(str(tmp_path))
    state = {key: weight.clone() for key, weight in model.official_state_dict().items()}
    state["z_proj.bias"][0] = value
    torch.save({"model_ema": state}, tmp_path / "mar.pth")
    with refuses("state", "z_proj.bias"):
        mar.from_pretrained(tmp_path / "mar.pth", config=model.sizes)
    with refuses("state", "z_proj.bias"):
        model.load_official_state_dict(state)
    network = load(CHECKPOINT).transformer
    state = {key: weight.clone() for key, weight in network.official_state_dict().items()}
    state["mask_embed.bos_token"][0] = value
    with refuses("state", "mask_embed.bos_token"):
        network.load_official_state_dict(state)
