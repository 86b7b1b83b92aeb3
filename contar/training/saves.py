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
from contar._files import apart, check_finite, check_weights, read_json, read_weights, write_weights
from contar._files import flush as _flush
from contar.training.distributed import each, together
from contar.training.sharding import is_shared, local, read_shards, shared_as, write_shards

KEPT = 2  # latest saves
STATE = "state.json"
SHARDS = "shards"  # what processes share out
_NAME = re.compile("step-([0-9]{8,})")
_LEFT = re.compile(r"\.step-[0-9]{8,}\.(?:[0-9]+|old)")  # of a run that was killed


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
    whole or not at all. All processes have to call it: of what they share out each writes what it
    holds, and the main one the rest.

    Raises:
        OSError: it could not be written; earlier saves are as they were.
    """
    target = out / "saves" / f"step-{step:08d}"
    temporary = target.with_name(f".{target.name}.0")
    tensors = {name: module.state_dict() for name, module in modules.items()}
    whole = optimizer.state_dict()
    tensors["optimizer"] = {
        f"{i}.{n}": x for i, own in whole["state"].items() for n, x in own.items()
    }
    shared = {f"{p}.{n}": x for p in tensors for n, x in tensors[p].items() if is_shared(x)}
    numbers = {"param_groups": whole["param_groups"]}
    content = {"step": step, "optimizer": numbers, **state}
    try:
        together(lambda: _make(temporary))
        if shared:
            write_shards(temporary / SHARDS, shared)
        together(lambda: _finish(temporary, target, tensors, content))
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def _make(temporary: Path) -> None:
    for left in temporary.parent.glob(".step-*"):
        if _LEFT.fullmatch(left.name):
            shutil.rmtree(left)
    temporary.mkdir(parents=True)


def _finish(
    temporary: Path,
    target: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    content: Mapping[str, Any],
) -> None:
    """Write what is not shared out, put the save in its place, and remove old ones."""
    own = {*(f"{name}.safetensors" for name in tensors), SHARDS, STATE}
    for part, named in tensors.items():
        held = {name: tensor for name, tensor in named.items() if not is_shared(tensor)}
        more = {"random": torch.random.get_rng_state()} if part == "optimizer" else {}
        write_weights({**apart(held), **more}, temporary / f"{part}.safetensors")
    (temporary / STATE).write_text(json.dumps(content), encoding="utf-8")
    for path in (*temporary.iterdir(), temporary):
        _flush(path)
    _remove(target, own)
    if target.exists():  # with files of others
        for name in [*sorted(own - {STATE}), STATE]:
            if (temporary / name).exists():
                os.replace(temporary / name, target / name)
        temporary.rmdir()
    else:
        os.replace(temporary, target)
    _flush(target.parent)
    older = [f for f in complete_saves(target.parents[1]) if _step(f) < content["step"]]
    for folder in older[: 1 - KEPT]:
        _remove(folder, own)


def _remove(folder: Path, own: set[str]) -> None:
    """Remove a save at once, so that half of it is none; a folder with files of others stays."""
    if not folder.is_dir():
        return
    if {path.name for path in folder.iterdir()} <= own:
        hidden = folder.with_name(f".{folder.name}.old")
        os.replace(folder, hidden)
        shutil.rmtree(hidden)
        return
    (folder / STATE).unlink(missing_ok=True)
    shutil.rmtree(folder / SHARDS, ignore_errors=True)
    for name in own - {STATE, SHARDS}:
        (folder / name).unlink(missing_ok=True)


def load(
    folder: Path, *, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put a save back into modules and optimizer, and the random state; return the rest.

    Whether processes share out what they load need not be as it was when the save was written, nor
    how many they are; all of them have to call it.

    Raises:
        ValueError: a damaged save, or one of other modules; nothing is loaded then.
    """
    wanted = {name: module.state_dict() for name, module in modules.items()}
    states: dict[str, dict[str, Tensor]] = {}
    state: dict[str, Any] = {}

    def read() -> None:
        states.update({n: read_weights(folder, f"{n}.safetensors") for n in (*wanted, "optimizer")})
        state.update(read_json(folder / STATE))
        _check_state(folder, state)

    def check() -> None:
        for name, module in modules.items():
            file = f"{folder.name}/{name}.safetensors"
            check_weights(file, states[name], wanted[name])
            check_finite(file, {k: local(states[name][k]) for k, _ in module.named_parameters()})

    each(read)
    _join_shards(folder, states, {**wanted, "optimizer": _moments(optimizer)})
    each(check)
    tensors = states.pop("optimizer")
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


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return tensors of the shapes of an optimizer's state, by their names in a save."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    names = ("exp_avg", "exp_avg_sq")
    return {f"{index}.{name}": x for index, x in enumerate(weights) for name in names}


def _join_shards(
    folder: Path, states: dict[str, dict[str, Tensor]], wanted: Mapping[str, Mapping[str, Tensor]]
) -> None:
    """Add to a save's tensors those of its shards, and share out what is wanted so."""
    if (folder / SHARDS).is_dir():
        for key, tensor in read_shards(folder / SHARDS, wanted).items():
            part, name = key.split(".", 1)
            states[part][name] = tensor
    for part, tensors in wanted.items():
        for name in tensors.keys() & states[part].keys():
            states[part][name] = shared_as(states[part][name], tensors[name])


def _check_state(folder: Path, state: Mapping[str, Any]) -> None:
    kinds = {"step": int, "optimizer": dict, "schedule": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(state.get(name), kind)]
    if wrong or state["step"] != _step(folder):
        got = f"another state ({', '.join(wrong) or 'step ' + str(state['step'])})"
        raise bad(f"{folder.name}/{STATE}", got, "the one that was saved")


def _join(tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    return {"state": state, **numbers}
