"""contar equals the official implementations, number for number."""

import json
import shutil
from pathlib import Path

import check
import mar_case
import nova_case
import numpy as np
import pytest
import torch
from nova_case import weights_by_rule

from recipes import mar, nova

GOLDENS = Path(__file__).parents[1] / "goldens"
FOLDERS = sorted(path.parent for path in GOLDENS.glob("*/case.json"))
MODELS = {"arch": nova_case.load_model, "diffloss_d": mar_case.load_model}  # by a key of a config
FULL_SIZE = sorted((GOLDENS / "full_size").glob("*.json"))


def read(file: Path) -> dict:
    return json.loads(file.read_text())


NETWORKS = [folder for folder in FOLDERS if MODELS.keys() & read(folder / "case.json")["config"]]


def load_model(golden: dict) -> nova.Nova | mar.Mar:
    return next(load for key, load in MODELS.items() if key in golden["config"])(golden)


def released(golden: dict) -> nova.Nova | mar.Mar:
    """Build the released model of a golden's names and shapes, without its weights."""
    if "preset" in golden:
        arguments = {**golden["preset"], "model": golden["preset"]["name"]}
        return mar.build(mar.MarConfig.from_official(arguments), device="meta")
    return nova.build(nova.NovaConfig.from_official(golden["config"]), device="meta")


def shapes(model: nova.Nova | mar.Mar) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in model.official_state_dict().items()}


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


@pytest.mark.parametrize(
    ("kind", "case", "array"),
    [
        ("image", "generate_flow", "sample.0.1"),
        ("mar", "generate_cfg_linear", "sample.1"),
        ("mar", "generate_plain", "token_cond.5"),
        ("mar", "train", "out.loss"),
    ],
)
def test_the_check_fails_on_a_recorded_number_that_is_wrong(tmp_path, kind, case, array):
    folder = Path(shutil.copytree(GOLDENS / kind, tmp_path / kind))
    golden = read(folder / "case.json")
    other = next(name for name in golden["cases"] if name != case)
    golden["cases"] = {name: golden["cases"][name] for name in (case, other)}
    (folder / "case.json").write_text(json.dumps(golden))
    with np.load(folder / f"{case}.npz") as archive:
        arrays = dict(archive)
    arrays[array] = arrays[array] * np.float32(1.001)
    np.savez(folder / f"{case}.npz", **arrays)
    verdicts = {result.case: result.passed for result in check.check_folder(folder)}
    assert verdicts == {f"{kind}/{case}": False, f"{kind}/{other}": True}
    assert check.main([str(folder)]) == 1


def test_the_check_fails_on_a_folder_that_it_does_not_know(tmp_path, capsys):
    (tmp_path / "case.json").write_text('{"config": {"other": 1}, "cases": {"a": {}}}')
    assert check.main([str(tmp_path)]) == 1
    assert check.main([str(tmp_path / "missing")]) == 1
    assert "not a kind of golden" in capsys.readouterr().out


@pytest.mark.parametrize("file", FULL_SIZE, ids=lambda file: file.stem)
def test_a_released_config_makes_exactly_the_released_names_and_shapes(file):
    golden = read(file)
    assert shapes(released(golden)) == golden["parameters"]


@pytest.mark.parametrize("preset", nova.PRESETS)
def test_a_preset_makes_exactly_the_released_names_and_shapes(preset):
    name = {"nova-d48w1024-osp480": "nova-d48w1024-osp480-mixer24"}.get(preset, preset)
    golden = read(GOLDENS / "full_size" / f"{name}.json")
    assert shapes(nova.build(preset, device="meta")) == golden["parameters"]
    assert nova.PRESETS[preset] == nova.NovaConfig.from_official(golden["config"])


@pytest.mark.parametrize("preset", mar.PRESETS)
def test_a_preset_of_mar_makes_exactly_the_released_names_and_shapes(preset):
    golden = read(GOLDENS / "full_size" / f"{preset.replace('-', '_')}.json")
    assert shapes(mar.build(preset, device="meta")) == golden["parameters"]
    assert mar.PRESETS[preset] == released(golden).sizes


@pytest.mark.parametrize("folder", NETWORKS, ids=lambda folder: folder.name)
def test_an_official_state_dict_loads_and_saves_back_identical(folder):
    golden = read(folder / "case.json")
    official = weights_by_rule(golden["parameters"])
    saved = load_model(golden).official_state_dict()
    assert saved.keys() == official.keys()
    assert all(torch.equal(saved[name], official[name]) for name in official)
