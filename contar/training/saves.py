"""Saves of a run: whole or not there, and everything that the run needs to go on."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contar._errors import bad
from contar._files import apart, check_finite, check_weights, read_json, read_weights
from contar._files import flush as _flush

KEPT = 2  # latest saves
STATE = "state.json"
_NAME = re.compile("step-([0-9]{8,})")
_LEFT = re.compile(r"\.step-[0-9]{8,}\.(?:[0-9]+|old)")  # of a run that was killed


def _folder(out: Path, step: int) -> Path:
    return out / "saves" / f"step-{step:08d}"


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def complete_saves(out: Path) -> list[Path]:
    """Return a run's saves, oldest first; what was being written when the run ended is not one."""
    found = (path.parent for path in (out / "saves").glob(f"step-*/{STATE}") if path.is_file())
    return sorted((folder for folder in found if _NAME.fullmatch(folder.name)), key=_step)


def check_own(out: Path, names: tuple[str, ...], run: Path) -> None:
    """Raise a ValueError if `out` holds one of `names`, and `run` no save: others made it."""
    taken = [name for name in names if (out / name).exists()]
    if taken and not complete_saves(run):
        got = f"{out} with {', '.join(taken)}, which no run here made"
        raise bad("out", got, "a folder where these names are free")


def save(
    out: Path,
    step: int,
    *,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
) -> Path:
    """Write a save and remove all but the latest ones; files of others in them stay.

    It is written beside its place, flushed to the disk, and then renamed, so that it is there as a
    whole or not at all.

    Raises:
        OSError: it could not be written; earlier saves are as they were.
    """
    target = _folder(out, step)
    own = {*(f"{name}.safetensors" for name in modules), "optimizer.safetensors", STATE}
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    for left in target.parent.glob(".step-*"):
        if _LEFT.fullmatch(left.name):
            shutil.rmtree(left)
    temporary.mkdir(parents=True)
    try:
        for name, module in modules.items():
            _write(apart(module.state_dict()), temporary / f"{name}.safetensors")
        tensors, numbers = _split(optimizer.state_dict())
        tensors["random"] = torch.random.get_rng_state()
        _write(tensors, temporary / "optimizer.safetensors")
        content = {"step": step, "optimizer": numbers, **state}
        (temporary / STATE).write_text(json.dumps(content), encoding="utf-8")
        for path in (*temporary.iterdir(), temporary):
            _flush(path)
        _remove(target, own)
        if target.exists():  # with files of others
            for name in [*sorted(own - {STATE}), STATE]:
                os.replace(temporary / name, target / name)
            temporary.rmdir()
        else:
            os.replace(temporary, target)
        _flush(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    older = [folder for folder in complete_saves(out) if _step(folder) < step]
    for folder in older[: 1 - KEPT]:
        _remove(folder, own)
    return target


def _remove(folder: Path, own: set[str]) -> None:
    """Remove a save at once, so that half of it is none; a folder with files of others stays."""
    if not folder.is_dir():
        return
    if {path.name for path in folder.iterdir()} <= own:
        hidden = folder.with_name(f".{folder.name}.old")
        os.replace(folder, hidden)
        shutil.rmtree(hidden)
        return
    for name in [STATE, *sorted(own - {STATE})]:
        (folder / name).unlink(missing_ok=True)


def load(
    folder: Path, *, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put a save back into modules and optimizer, and the random state; return the rest.

    Raises:
        ValueError: a damaged save, or one of other modules; nothing is loaded then.
    """
    states = {name: read_weights(folder, f"{name}.safetensors") for name in modules}
    for name, module in modules.items():
        file = f"{folder.name}/{name}.safetensors"
        check_weights(file, states[name], module.state_dict())
        check_finite(file, {key: states[name][key] for key, _ in module.named_parameters()})
    state = read_json(folder / STATE)
    _check_state(folder, state)
    tensors = read_weights(folder, "optimizer.safetensors")
    try:
        random = tensors.pop("random")
        optimizer.load_state_dict(_join(tensors, state.pop("optimizer")))
        torch.random.set_rng_state(random)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        name = f"{folder.name}/optimizer.safetensors"
        raise bad(name, repr(error), "the state of this run's optimizer") from error
    for name, module in modules.items():
        module.load_state_dict(states[name])
    return state


def _check_state(folder: Path, state: Mapping[str, Any]) -> None:
    kinds = {"step": int, "optimizer": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(state.get(name), kind)]
    if wrong or state["step"] != _step(folder):
        got = f"another state ({', '.join(wrong) or 'step ' + str(state['step'])})"
        raise bad(f"{folder.name}/{STATE}", got, "the one that was saved")


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
