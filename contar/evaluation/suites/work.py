"""Samples of a suite, unit by unit, into an evaluator's folder; nothing else gets there.

OUT/SUITE    what the evaluator reads
OUT/run      the plan, a line for each unit with its seeds, units that failed, parts of files
"""

import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from contar._errors import bad
from contar._files import flush, read_json, write_whole
from contar._typing import UInt8
from contar._work import Failure, check_same, check_task, make_units
from contar.evaluation.suites.suite import SUFFIXES, Suite, Unit
from contar.media import write_video

RUN = "run"
_PLAN, _UNITS = "plan.json", "units.jsonl"
Make = Callable[[str, int], UInt8[np.ndarray, "t h w 3"]]


def plan_suite(suite: Suite, out: str | os.PathLike[str], settings: Mapping[str, Any]) -> None:
    """Write plan, units and the texts beside the samples, or see that they are these.

    Args:
        suite: what is to be sampled.
        out: a folder, made if need be.
        settings: of the model, of JSON; a run that goes on has the same.

    Raises:
        ValueError: the folder has another plan (without a sample, only other units count), or its
            file system refuses a name.
    """
    place = Path(out)
    run, folder = place / RUN, place / suite.name
    run.mkdir(parents=True, exist_ok=True)
    units = suite.lines()
    told = {"suite": suite.name, "kind": suite.kind, "units": sha256(units.encode()).hexdigest()}
    plan = json.loads(json.dumps({**told, "settings": dict(settings)}))
    if (run / _PLAN).is_file():
        old = read_json(run / _PLAN)
        begun = any((folder / file).is_file() for file in suite.files)
        anew = not begun and old.get("settings") != plan["settings"]
        if anew:
            old["settings"] = plan["settings"]
        check_same("out", place, old, plan, "the same settings, or a new folder")
        if anew:
            shutil.rmtree(run / "failed", ignore_errors=True)
    _try_names(suite, run)
    folder.mkdir(exist_ok=True)
    for name, text in suite.beside.items():
        if not (folder / name).is_file() or (folder / name).read_bytes() != text.encode():
            part = _part(run, 0, ".txt")
            part.write_text(text, encoding="utf-8")
            _move(part, folder / name)
    write_whole(run / _UNITS, units)
    write_whole(run / _PLAN, json.dumps(plan, indent=1, ensure_ascii=False) + "\n")


def read_plan(out: str | os.PathLike[str]) -> tuple[Suite, dict[str, Any]]:
    """Return the suite and settings that `plan_suite` wrote.

    Raises:
        FileNotFoundError: it wrote none.
    """
    run = Path(out) / RUN
    plan = read_json(run / _PLAN)
    lines = (run / _UNITS).read_text(encoding="utf-8")
    return Suite.from_lines(plan["suite"], plan["kind"], lines), plan["settings"]


def sample_units(
    out: str | os.PathLike[str],
    make: Make,
    *,
    fps: float = 12.0,
    rank: int = 0,
    tasks: int = 1,
    retry: bool = False,
    report: Callable[[str], object] = lambda line: None,
    ended: Callable[[], bool] = lambda: False,
) -> list[Failure]:
    """Make one task's share of a plan: what is not there yet and has not failed.

    Every file is written whole or not at all, so a run that was killed goes on with the same call.
    A unit that fails is recorded, with its error, and the next one follows.

    Args:
        out: folder of `plan_suite`.
        make: a sample from a text and a seed: uint8 frames [t, h, w, 3], one of a picture.
        fps: frames a second of videos.
        rank: of the task; unit i is made by the task of rank i modulo `tasks`.
        tasks: among which the units are shared.
        retry: make those that failed, and no others.
        report: called with a line for each unit.
        ended: asked before each unit; True stops the work, as when the run's own process is gone.

    Returns:
        The units that failed in this call.

    Raises:
        ValueError: no such rank.
        OSError: the folder cannot be written to.
        RuntimeError: of CUDA, such as that its memory is full; `make` raised it.
    """
    check_task(rank, tasks)
    suite, _ = read_plan(out)
    run, folder = Path(out) / RUN, Path(out) / suite.name

    def make_unit(unit: Unit) -> None:
        frames = [make(unit.text, seed) for seed in suite.seeds(unit)]
        _write_unit(suite, unit, frames, fps, run, rank)

    return make_units(
        suite.units[rank::tasks],
        make_unit,
        wanted=lambda unit: _left(run, folder, unit, retry),
        name=lambda unit: unit.name,
        record=lambda unit, failure, trace: _record(_failure(run, unit), failure, trace),
        ended=ended,
        report=report,
    )


def units_left(out: str | os.PathLike[str], *, retry: bool = False) -> list[int]:
    """Return the numbers of the units that a call of `sample_units` would make."""
    suite, _ = read_plan(out)
    run, folder = Path(out) / RUN, Path(out) / suite.name
    return [number for number, unit in enumerate(suite.units) if _left(run, folder, unit, retry)]


def failed_units(out: str | os.PathLike[str]) -> Iterator[Failure]:
    """Yield the recorded units that failed, in the order of the plan."""
    suite, _ = read_plan(out)
    for unit in suite.units:
        file = _failure(Path(out) / RUN, unit)
        if file.is_file():
            yield Failure(unit.name, read_json(file)["error"])


def clear_parts(out: str | os.PathLike[str]) -> None:
    """Remove what killed runs left of files; none may be at work in the folder."""
    shutil.rmtree(Path(out) / RUN / "parts", ignore_errors=True)


def _left(run: Path, folder: Path, unit: Unit, retry: bool) -> bool:
    there = all((folder / file).is_file() for file in unit.files)
    return not there and _failure(run, unit).is_file() == retry


def _failure(run: Path, unit: Unit) -> Path:
    return run / "failed" / f"{sha256(unit.name.encode()).hexdigest()[:24]}.json"


def _record(path: Path, failure: Failure, trace: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {"file": failure.file, "error": failure.error, "trace": trace}
    write_whole(path, json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def _part(run: Path, rank: int, suffix: str) -> Path:
    part = run / "parts" / f"{rank:05d}-{uuid.uuid4().hex}{suffix}"
    part.parent.mkdir(parents=True, exist_ok=True)
    return part


def _write_unit(
    suite: Suite, unit: Unit, samples: list[np.ndarray], fps: float, run: Path, rank: int
) -> None:
    """Write all files of a unit, the one that names it last, and forget that it failed."""
    if suite.kind == "picture" and any(len(frames) != 1 for frames in samples):
        raise bad("frames", [len(frames) for frames in samples], "1 of a picture")
    frames, folder = samples[0], run.parent / suite.name
    if len(samples) == 4:
        _, height, width, _ = frames.shape
        if height != width:
            allowed = "squares, into which the evaluator cuts the grid"
            raise bad("samples", f"{width} x {height}", allowed)
        rows = [np.concatenate(samples[row : row + 2], axis=2) for row in (0, 2)]
        frames = np.concatenate(rows, axis=1)
    part = _part(run, rank, SUFFIXES[suite.kind])
    try:
        write_video(frames, part, fps=fps)
        for file in unit.files[1:]:
            copy = _part(run, rank, SUFFIXES[suite.kind])
            shutil.copyfile(part, copy)
            _move(copy, folder / file)
        _move(part, folder / unit.name)
    finally:
        part.unlink(missing_ok=True)
    _failure(run, unit).unlink(missing_ok=True)


def _move(part: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    flush(part)
    os.replace(part, place)


def _try_names(suite: Suite, run: Path) -> None:
    """Raise a ValueError if the file system refuses a long or unusual name, or takes two for one.

    VBench has prompts that differ in a capital letter alone.
    """
    names = {part for file in suite.files for part in file.split("/")}
    unusual = {n for n in names if not n.isascii() or set(n) & set('\\:*?"<>|') or n != n.strip()}
    counts = Counter(name.casefold() for name in names)
    alike = {name for name in names if counts[name.casefold()] > 1}
    trial = run / "names"
    trial.mkdir(exist_ok=True)
    try:
        for name in sorted(unusual | alike | {max(names, key=lambda name: len(name.encode()))}):
            try:
                (trial / name).touch()
                if name not in os.listdir(trial):
                    raise OSError("it comes back under another name")
            except OSError as error:
                allowed = f"a file system that takes {name!r}, the name that {suite.name} wants"
                raise bad("out", f"{run.parent}: {error}", allowed) from error
    finally:
        shutil.rmtree(trial, ignore_errors=True)
