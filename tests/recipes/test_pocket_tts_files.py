"""Folders of transformers are read as they were meant, and others are refused by name."""

import importlib
import json
import shutil
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_pocket import TEXTS, tiny_pocket

from contar.tokenizers import AudioTokenizer
from recipes import pocket_tts

CONFIG = {
    "model_type": "pocket_tts", "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 24, "latent_dim": 4, "vocab_size": 20,
    "audio_prompt_bos_token_id": 19,
    "flow_head_config": {"hidden_size": 16, "num_hidden_layers": 2, "latent_dim": 4,
                         "condition_dim": 16, "loss_weighting_hidden_size": 8},
}  # fmt: skip


def write(folder, config, state):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: x.contiguous() for name, x in state.items()}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def model():
    return tiny_pocket()


@pytest.fixture
def state(model):
    return {name: x.detach().clone() for name, x in model.official_state_dict().items()}


@pytest.fixture
def folder(state, tmp_path):
    return write(tmp_path / "theirs", CONFIG, state)


def same(model, other):
    ours, theirs = model.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def test_a_folder_of_transformers_is_read(model, folder):
    loaded = pocket_tts.from_pretrained(folder)
    assert same(loaded, model)
    assert not loaded.training
    assert loaded.sizes.tower == model.sizes.tower
    assert loaded.sizes.voice_mark == 19


def test_released_folders_have_no_weights_of_training(model, state, tmp_path):
    released = {name: x for name, x in state.items() if not name.startswith("loss_weighting.")}
    half = torch.arange(128) / 128
    released["flow_head.timestep_embeddings.0.freqs"] = 10000**-half
    released["latent_stats_num_updates"] = torch.tensor(3)
    loaded = pocket_tts.from_pretrained(write(tmp_path / "released", CONFIG, released))
    assert not any(weight.any() for weight in loaded.head.weighting.parameters())
    names = [name for name in model.state_dict() if ".weighting." not in name]
    assert all(torch.equal(loaded.state_dict()[n], model.state_dict()[n]) for n in names)


def test_weights_take_the_dtype_that_is_asked_for_but_mean_and_deviation(folder):
    loaded = pocket_tts.from_pretrained(folder, dtype=torch.bfloat16)
    assert loaded.text.weight.dtype == torch.bfloat16
    assert loaded.mean.dtype == loaded.std.dtype == torch.float32
    said = pocket_tts.generate(loaded, TEXTS, pocket_tts.SpeechPlan(frames=2))
    assert said.latents.isfinite().all()


def test_weights_in_shards_are_read(model, state, folder):
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    shards = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for file, part in shards.items():
        save_file({name: state[name].contiguous() for name in part}, folder / file)
    index = {name: file for file, part in shards.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert same(pocket_tts.from_pretrained(folder), model)


def test_official_names_go_both_ways(model, state):
    other = tiny_pocket()
    with torch.no_grad():
        for tensor in other.state_dict().values():
            tensor.zero_()
    other.load_official_state_dict(state)
    assert same(other, model)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("eos_head.bias"), "missing eos_head.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "unexpected extra"),
        (lambda s: s.update({"eos_head.bias": torch.zeros(2)}), "eos_head.bias is (2,)"),
        (lambda s: s["latent_mean"].fill_(torch.nan), "latent_mean"),
        (lambda s: s["latent_std"][1:].fill_(0), "latent_std"),
        (lambda s: s.pop("loss_weighting.proj.bias"), "missing loss_weighting.proj.bias"),
        (lambda s: s.update({"flow_head.timestep_embeddings.1.freqs": torch.ones(128)}), "freqs"),
        (lambda s: s.update({"flow_head.timestep_embeddings.1.freqs": torch.ones(8)}), "freqs"),
    ],
)
def test_weights_that_do_not_fit_are_named(state, tmp_path, change, said):
    change(state)
    folder = write(tmp_path / "wrong", CONFIG, state)
    with pytest.raises(ValueError, match="allowed") as caught:
        pocket_tts.from_pretrained(folder)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_key_value_heads", 1), ("head_dim", 4), ("attention_bias", True),
        ("attention_dropout", 0.1), ("hidden_act", "relu"),
        ("num_hidden_layers", 0), ("num_attention_heads", 0), ("vocab_size", "many"),
    ],
)  # fmt: skip
def test_configs_that_this_model_has_not_are_refused(key, value, refuses):
    with refuses(f"config[{key!r}]"):
        pocket_tts.PocketTTSConfig.from_transformers({**CONFIG, key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("flow_type", "drifting"), ("hidden_act", "gelu"), ("latent_dim", 5),
        ("condition_dim", 15), ("frequency_embedding_size", 8), ("max_period", 100.0),
        ("rms_norm_eps", 1e-3), ("loss_weighting_num_layers", 2), ("hidden_size", 0),
    ],
)  # fmt: skip
def test_heads_that_are_no_such_flow_map_are_refused(key, value, refuses):
    head = {**CONFIG["flow_head_config"], key: value}
    with refuses(f"config['flow_head_config'][{key!r}]"):
        pocket_tts.PocketTTSConfig.from_transformers({**CONFIG, "flow_head_config": head})


def test_other_rotary_laws_are_refused(refuses):
    for wrong in ({"rope_type": "yarn"}, [1]):
        with refuses("config['rope_parameters']"):
            pocket_tts.PocketTTSConfig.from_transformers({**CONFIG, "rope_parameters": wrong})


def test_other_folders_are_refused(folder, tmp_path, refuses):
    nothing: Any = 3
    with refuses("path"):
        pocket_tts.from_pretrained(nothing)
    with pytest.raises(FileNotFoundError, match="path"):
        pocket_tts.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        pocket_tts.from_pretrained(tmp_path)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "model_type": "mimi"}))
    with refuses(r"config.json", "mimi", "pocket_tts"):
        pocket_tts.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        pocket_tts.from_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(b"PK")
    with refuses("theirs/model.safetensors", "pickles"):
        pocket_tts.from_pretrained(folder)


def test_sizes_far_beyond_the_weights_are_refused(folder, refuses):
    (folder / "config.json").write_text(json.dumps({**CONFIG, "vocab_size": 10**7}))
    with refuses("sizes", "vocabulary=10000000"):
        pocket_tts.from_pretrained(folder)


@pytest.fixture(scope="module")
def codec_folder(tmp_path_factory):
    pytest.importorskip("transformers", minversion="5.24", reason="transformers below 5.24")
    codecs = importlib.import_module("transformers.models.pocket_tts_audio_tokenizer")
    config = codecs.PocketTTSAudioTokenizerConfig(
        hidden_size=16, num_filters=4, upsampling_ratios=[3, 2], upsample_groups=16,
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, intermediate_size=32,
        sliding_window=5, latent_stride=2, latent_dim=4, sampling_rate=1200,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("codec")
    codecs.PocketTTSAudioTokenizerModel(config).save_pretrained(folder)
    return folder


def test_what_is_said_is_heard_through_the_codec(model, codec_folder):
    codec = pocket_tts.load_codec(codec_folder)
    assert isinstance(codec, AudioTokenizer)
    plan = pocket_tts.SpeechPlan(frames=4, threshold=-1e9, least=1, tail=(0, 9))
    said = pocket_tts.generate(model, TEXTS, plan)
    assert said.lengths.tolist() == [2, 4]
    waves = said.waves(codec)
    assert [len(wave) for wave in waves] == [2 * 12, 4 * 12]
    assert torch.equal(waves[1], codec.decode(said.latents[1:])[0])


def test_a_codec_that_is_none_or_not_whole_is_refused(codec_folder, folder, tmp_path, refuses):
    with refuses("config.json", "pocket_tts", "pocket_tts_audio_tokenizer"):
        pocket_tts.load_codec(folder)
    broken = tmp_path / "broken"
    shutil.copytree(codec_folder, broken)
    state = load_file(broken / "model.safetensors")
    state.pop("latent_proj.weight")
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    with refuses("model.safetensors", "latent_proj.weight"):
        pocket_tts.load_codec(broken)
