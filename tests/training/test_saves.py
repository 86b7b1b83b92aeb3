"""A save is whole or not there, and goes back only into what it was made of."""

import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from contar.training import saves


def write(out: Path, step: int, module: nn.Module) -> Path:
    optimizer = torch.optim.AdamW(module.parameters())
    return saves.save(
        out, step, modules={"model": module}, optimizer=optimizer, state={"schedule": {}}
    )


def test_a_write_that_fails_is_an_os_error_and_leaves_the_last_save(tmp_path, largest_file):
    module = nn.Linear(32, 32)
    write(tmp_path, 1, module)
    with largest_file(1000), pytest.raises(OSError, match=r"model\.safetensors"):
        write(tmp_path, 2, module)
    assert [path.name for path in (tmp_path / "saves").iterdir()] == ["step-00000001"]


def test_what_is_left_of_an_old_save_is_no_save_and_goes_with_the_next(tmp_path, monkeypatch):
    module = nn.Linear(2, 2)
    for step in (1, 2):
        write(tmp_path, step, module)

    def ended(folder: Path, **options) -> None:
        if folder.exists():
            next(folder.iterdir()).unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", ended)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, 3, module)
    shown = sorted((tmp_path / "saves").glob("[!.]*"))
    assert shown == saves.complete_saves(tmp_path)
    assert [path.name for path in shown] == ["step-00000002", "step-00000003"]
    write(tmp_path, 4, module)
    assert len(list((tmp_path / "saves").iterdir())) == 2


def test_a_save_of_another_shape_or_a_damaged_one_is_refused_and_nothing_is_loaded(
    tmp_path, refuses
):
    folder = write(tmp_path, 1, nn.Linear(2, 3))
    other = nn.Linear(2, 4)
    before = other.weight.detach().clone()
    optimizer = torch.optim.AdamW(other.parameters())
    with refuses("step-00000001/model.safetensors", "weight is (3, 2), must be (4, 2)"):
        saves.load(folder, modules={"model": other}, optimizer=optimizer)
    (folder / "optimizer.safetensors").write_bytes(b"cut")
    same = nn.Linear(2, 3)
    with refuses("step-00000001/optimizer.safetensors"):
        saves.load(folder, modules={"model": same}, optimizer=optimizer)
    assert torch.equal(other.weight, before)
