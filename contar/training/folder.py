"""A run's folder: what it holds when a run begins or goes on, and the save that it goes on from."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from contar._errors import bad
from contar._files import read_json, write_whole
from contar.training.config import FREE, RunConfig
from contar.training.log import FILES, read_log
from contar.training.saves import STATE, load

_LOG = logging.getLogger(__name__)
# What every run's config has said from the first; later additions may be missing in old runs.
_ADDED = {name: asdict(RunConfig())[name] for name in ("schedule", "decayed")}
_FIRST = set(asdict(RunConfig())) - {*FREE, *_ADDED}


def load_last(saves: Sequence[Path], **parts: Any) -> dict[str, Any]:
    """Load the last save that is good, and say which ones are not; if none is, the last's error."""
    damaged: list[Exception] = []
    for folder in reversed(saves):
        try:
            state = load(folder, **parts)
        except (ValueError, FileNotFoundError) as error:
            damaged.append(error)
            continue
        for error in damaged:
            _LOG.warning("a save is passed over, %s is taken: %s", folder.name, error)
        return state
    raise damaged[0]


def prepare_folder(
    out: Path, definition: dict[str, Any], *, resume: bool, saves: Sequence[Path]
) -> None:
    """Check that the run may go on, or begin, in its folder; write its config if it begins."""
    if saves and not resume:
        raise bad("out", str(out), "a folder without saves, or resume to go on from them")
    file = out / "config.json"
    if not saves:
        _check_new(out, file)
        if resume:
            _LOG.warning("no save in %s: the run begins", out)
    for name in FILES:
        read_log(out / name)
    if saves:
        _check_same({**_ADDED, **_stored(file, saves)}, definition)
    if not saves or not file.exists():
        (out / "saves").mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(definition, indent=2) + "\n")


def _check_new(out: Path, file: Path) -> None:
    """Refuse files by names that the run writes, unless an earlier one began there."""
    try:
        if set(read_json(file)) >= _FIRST:
            return
    except (ValueError, FileNotFoundError):
        pass
    taken = [path for name in ("config.json", *FILES, "samples-*") for path in out.glob(name)]
    if taken:
        names = ", ".join(sorted(path.name for path in taken))
        got = f"{out} with files that no run made, or whose config.json is gone: {names}"
        raise bad("out", got, "a folder where these names are free")


def _stored(file: Path, saves: Sequence[Path]) -> dict[str, Any]:
    """Return the config of a run; if its file is gone, that of the last good save."""
    try:
        if file.exists():
            return read_json(file)
    except ValueError as error:
        raise ValueError(f"{error}, or no such file: the saves hold the config as well") from error
    for folder in reversed(saves):
        try:
            config = read_json(folder / STATE).get("config")
        except ValueError:
            continue
        if isinstance(config, dict):
            return config
    raise bad("config.json", "no such file, nor a config in a save", "the config of the run")


def _check_same(stored: Mapping[str, Any], definition: Mapping[str, Any]) -> None:
    differing = [
        f"{name}: {stored.get(name)!r} then, {definition.get(name)!r} now"
        for name in sorted({*stored, *definition} - set(FREE))
        if stored.get(name) != definition.get(name)
    ]
    if differing:
        raise bad("resume", "another config (" + "; ".join(differing) + ")", "the config it had")
