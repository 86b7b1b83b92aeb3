"""Saves of a run: whole or not there, and everything that the run needs to go on."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contar._files import check_weights, read_json, read_weights

KEPT = 2  # latest saves


def _folder(out: Path, step: int) -> Path:
    return out / "saves" / f"step-{step:08d}"


def complete_saves(out: Path) -> list[Path]:
    """Return a run's saves, oldest first; what was being written when the run ended is not one."""
    return sorted(path.parent for path in (out / "saves").glob("step-*/state.json"))


def save(
    out: Path,
    step: int,
    *,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
) -> Path:
    """Write a save and remove all but the latest ones.

    It is written beside its place, flushed to the disk, and then renamed, so that it is there as a
    whole or not at all.

    Raises:
        OSError: it could not be written; earlier saves are as they were.
    """
    target = _folder(out, step)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    for left in target.parent.glob(".step-*"):
        shutil.rmtree(left)
    temporary.mkdir(parents=True)
    try:
        for name, module in modules.items():
            tensors = {key: value.contiguous() for key, value in module.state_dict().items()}
            _write(tensors, temporary / f"{name}.safetensors")
        tensors, numbers = _split(optimizer.state_dict())
        tensors["random"] = torch.random.get_rng_state()
        _write(tensors, temporary / "optimizer.safetensors")
        content = {"step": step, "optimizer": numbers, **state}
        (temporary / "state.json").write_text(json.dumps(content), encoding="utf-8")
        for path in (*temporary.iterdir(), temporary):
            _flush(path)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
        _flush(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for old in complete_saves(out)[:-KEPT]:
        hidden = old.with_name(f".{old.name}.old")  # so that half of it is no save
        os.replace(old, hidden)
        shutil.rmtree(hidden)
    return target


def load(
    folder: Path, *, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put a save back into modules and optimizer, and the random state; return the rest.

    Raises:
        ValueError: a damaged save, or one of other modules; nothing is loaded then.
    """
    states = {name: read_weights(folder, f"{name}.safetensors") for name in modules}
    for name, module in modules.items():
        check_weights(f"{folder.name}/{name}.safetensors", states[name], module.state_dict())
    state = read_json(folder / "state.json")
    tensors = read_weights(folder, "optimizer.safetensors")
    for name, module in modules.items():
        module.load_state_dict(states[name])
    torch.random.set_rng_state(tensors.pop("random"))
    optimizer.load_state_dict(_join(tensors, state.pop("optimizer")))
    return state


def _split(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Part an optimizer's state into tensors by name, and numbers."""
    tensors = {
        f"{index}.{name}": value.contiguous()
        for index, values in state["state"].items()
        for name, value in values.items()
    }
    return tensors, {"param_groups": state["param_groups"]}


def _join(tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    return {"state": state, **numbers}


def _write(tensors: dict[str, Tensor], file: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, file)
    except SafetensorError as error:
        raise OSError(f"{file}: {error}") from error


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
