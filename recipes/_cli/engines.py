"""Work in shares, carried by datatrove: processes here, a Slurm array, a Ray cluster."""

import importlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

Engine = Literal["local", "slurm", "ray"]
Share = Callable[[object, int, int], None]  # with what came before, the rank, the number of tasks
_OURS = ("pipeline", "tasks", "workers", "logging_dir", "skip_completed", "depends", "self")


def check_engine(
    engine: Engine, tasks: int, workers: int, options: Sequence[str]
) -> dict[str, Any]:
    """Return an engine's options, from "name=value", before any work is done.

    Raises:
        ImportError: datatrove is not installed, or ray for "ray".
        ValueError: a count below 1, an unknown engine or option, a value of another kind, or an
            option less than the engine needs.
    """
    from contar._errors import bad, check_choice, check_count

    check_choice("engine", engine, ("local", "slurm", "ray"))
    if check_count("workers", workers) > check_count("tasks", tasks):
        raise bad("workers", workers, f"at most the number of tasks, {tasks}")
    known = inspect.signature(_executor(engine).__init__).parameters
    given: dict[str, Any] = {}
    for option in options:
        name, sign, value = option.partition("=")
        if not sign or name not in known or name in _OURS:
            allowed = ", ".join(f"{n}=…" for n in known if n not in _OURS)
            raise bad("engine_options", option, allowed)
        given[name] = _converted(option, value, known[name].annotation)
    needed = [
        name
        for name, parameter in known.items()
        if parameter.default is parameter.empty and name not in (*_OURS, *given)
    ]
    if needed:
        raise bad("engine_options", list(given), f"{', '.join(f'{n}=…' for n in needed)} as well")
    return given


def _converted(option: str, value: str, annotation: Any) -> Any:
    """Return the value of an option "name=value" as its annotation wants it."""
    from contar._errors import bad

    if annotation is inspect.Parameter.empty:
        return value
    wanted = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    kinds = [kind.strip(" '\"") for kind in wanted.split("|")]
    if "bool" in kinds and value.lower() in ("true", "false"):
        return value.lower() == "true"
    for kind, convert in (("int", int), ("float", float), ("str", str)):
        try:
            if kind in kinds:
                return convert(value)
        except ValueError:
            continue
    told = [kind for kind in kinds if kind in ("bool", "int", "float")]
    raise bad("engine_options", option, " or ".join(told) or f"none: no text is a {wanted}")


def carry(
    share: Share,
    logs: Path,
    *,
    engine: Engine,
    tasks: int,
    workers: int,
    options: Mapping[str, Any],
    ranks: Sequence[int],
) -> None:
    """Have an engine call `share` for each rank that has work; return at its end, of Slurm at once.

    A task that ended is marked in LOGS/completions. A mark of one that has work is taken away.

    Args:
        share: of a module, as it is pickled.
        logs: folder of marks, logs and scripts, one for each number of tasks.
        engine: "local", "slurm" or "ray".
        tasks: among which the work is shared.
        workers: how many of them at a time.
        options: of `check_engine`.
        ranks: with work; the others are marked as ended.

    Raises:
        Exception: what a task raises.
    """
    marks = logs / "completions"
    marks.mkdir(parents=True, exist_ok=True)
    for rank in range(tasks):
        mark = marks / f"{rank:05d}"
        mark.unlink(missing_ok=True) if rank in ranks else mark.touch()
    executor = _executor(engine)
    place = os.fspath(logs.absolute())
    executor([share], tasks=tasks, workers=workers, logging_dir=place, **options).run()


def _executor(engine: Engine) -> Any:
    try:
        if engine == "slurm":
            from datatrove.executor import SlurmPipelineExecutor as Executor
        elif engine == "ray":
            importlib.import_module("ray")  # which datatrove imports only once it runs
            from datatrove.executor import RayPipelineExecutor as Executor
        else:
            from datatrove.executor import LocalPipelineExecutor as Executor
    except ImportError as error:
        missing = (error.name or "datatrove").partition(".")[0]
        package = missing if missing == "ray" else '"contar[scale]"'
        needs = f"engine {engine!r} needs it: pip install {package}"
        raise ImportError(f"{missing} is not installed; {needs}") from None
    return Executor
