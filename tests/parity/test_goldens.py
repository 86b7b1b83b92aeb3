"""contar equals the official implementations, number for number."""

import json
import shutil
from pathlib import Path

import check
import numpy as np
import pytest
import torch
from nova_case import load_model, weights_by_rule

from recipes import nova
from recipes.nova_config import PRESETS, NovaConfig

GOLDENS = Path(__file__).parents[1] / "goldens"
FOLDERS = sorted(path.parent for path in GOLDENS.glob("*/case.json"))
NETWORKS = [folder for folder in FOLDERS if "arch" in (folder / "case.json").read_text()]
FULL_SIZE = sorted((GOLDENS / "full_size").glob("*.json"))


def read(file: Path) -> dict:
    return json.loads(file.read_text())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_recorded_step_loss_and_gradient_is_met(folder):
    results = list(check.check_folder(folder))
    assert len(results) == len(read(folder / "case.json")["cases"])
    assert all(result.passed for result in results), "\n".join(map(str, results))


def test_a_released_pipeline_makes_the_recorded_latents_and_frames_and_runs_none_of_its_files():
    assert "raise" in (GOLDENS / "checkpoint/vae/__vae__.py").read_text()
    results = list(check.check_folder(GOLDENS / "checkpoint"))
    assert [result.case.split("/")[1] for result in results] == [
        "prompt_embeds", "image", "t2v", "t2i", "i2v"
    ]  # fmt: skip
    assert all(result.passed for result in results), "\n".join(map(str, results))


def test_the_check_fails_on_a_recorded_number_that_is_wrong(tmp_path):
    folder = Path(shutil.copytree(GOLDENS / "image", tmp_path / "image"))
    with np.load(folder / "generate_flow.npz") as archive:
        arrays = dict(archive)
    arrays["sample.0.1"] = arrays["sample.0.1"] * np.float32(1.001)
    np.savez(folder / "generate_flow.npz", **arrays)
    verdicts = {result.case: result.passed for result in check.check_folder(folder)}
    assert verdicts.pop("image/generate_flow") is False
    assert all(verdicts.values())
    assert check.main([str(folder)]) == 1


def test_the_check_fails_on_a_folder_that_it_does_not_know(tmp_path, capsys):
    (tmp_path / "case.json").write_text('{"config": {"other": 1}, "cases": {"a": {}}}')
    assert check.main([str(tmp_path)]) == 1
    assert check.main([str(tmp_path / "missing")]) == 1
    assert "not a kind of golden" in capsys.readouterr().out


@pytest.mark.parametrize("file", FULL_SIZE, ids=lambda file: file.stem)
def test_a_released_config_makes_exactly_the_released_names_and_shapes(file):
    golden = read(file)
    model = nova.build(NovaConfig.from_official(golden["config"]), device="meta")
    ours = {name: list(tensor.shape) for name, tensor in model.official_state_dict().items()}
    assert ours == golden["parameters"]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_makes_exactly_the_released_names_and_shapes(preset):
    released = {"nova-d48w1024-osp480": "nova-d48w1024-osp480-mixer24"}.get(preset, preset)
    golden = read(GOLDENS / "full_size" / f"{released}.json")
    model = nova.build(preset, device="meta")
    assert {n: list(t.shape) for n, t in model.official_state_dict().items()} == golden[
        "parameters"
    ]
    assert PRESETS[preset] == NovaConfig.from_official(golden["config"])


@pytest.mark.parametrize("folder", NETWORKS, ids=lambda folder: folder.name)
def test_an_official_state_dict_loads_and_saves_back_identical(folder):
    golden = read(folder / "case.json")
    official = weights_by_rule(golden["parameters"])
    saved = load_model(golden).official_state_dict()
    assert saved.keys() == official.keys()
    assert all(torch.equal(saved[name], official[name]) for name in official)
