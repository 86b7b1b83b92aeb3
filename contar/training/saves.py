"""Saves of a run: whole or not there, and everything that the run needs to go on."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contar._errors import bad

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
    from safetensors.torch import save_file

    target = _folder(out, step)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    for left in target.parent.glob(".step-*"):
        shutil.rmtree(left)
    temporary.mkdir(parents=True)
    try:
        for name, module in modules.items():
            tensors = {key: value.contiguous() for key, value in module.state_dict().items()}
            save_file(tensors, temporary / f"{name}.safetensors")
        tensors, numbers = _split(optimizer.state_dict())
        tensors["random"] = torch.random.get_rng_state()
        save_file(tensors, temporary / "optimizer.safetensors")
        content = {"step": step, "optimizer": numbers, **state}
        (temporary / "state.json").write_text(json.dumps(content), encoding="utf-8")
        for file in temporary.iterdir():
            _flush(file)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
        _flush(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for old in complete_saves(out)[:-KEPT]:
        shutil.rmtree(old)
    return target


def load(
    folder: Path, *, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put a save back into modules and optimizer, and the random state; return the rest.

    Raises:
        ValueError: a save of other modules.
    """
    from safetensors.torch import load_file

    for name, module in modules.items():
        wrong = module.load_state_dict(load_file(folder / f"{name}.safetensors"), strict=False)
        if wrong.missing_keys or wrong.unexpected_keys:
            raise bad("resume", f"{name} of other parts ({wrong})", "a save of the same model")
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "optimizer.safetensors")
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


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
