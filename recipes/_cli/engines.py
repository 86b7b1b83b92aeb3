"""Work in shares, carried by datatrove: processes here, a Slurm array, a Ray cluster."""

import importlib
import inspect
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Engine = Literal["local", "slurm", "ray"]
_OURS = ("pipeline", "tasks", "workers", "logging_dir", "skip_completed", "depends", "self")


@dataclass(frozen=True)
class Work:
    """Who does a command's work, in tasks that share it.

    Args:
        engine: processes here, a Slurm array or a Ray cluster, by datatrove (extra scale).
        tasks: among which the work is shared.
        workers: tasks at a time.
        engine_options: of datatrove's executor, as time=24:00:00 partition=gpu gpus_per_task=1.
    """

    engine: Engine = "local"
    tasks: int = 1
    workers: int = 1
    engine_options: tuple[str, ...] = ()

    def options(self) -> dict[str, Any]:
        """Return the engine's options; errors as `check_engine`."""
        return check_engine(self.engine, self.tasks, self.workers, self.engine_options)

    def carry(self, task: "Task", ranks: Sequence[int], later: str) -> bool:
        """Have the ranks' work done; return whether it is, or False where Slurm has it now.

        Args:
            task: as in `carry`, as its errors.
            ranks: likewise.
            later: what a person does once Slurm has done it.
        """
        if ranks:
            how: Any = {"engine": self.engine, "tasks": self.tasks, "workers": self.workers}
            carry(task, **how, options=self.options(), ranks=ranks)
        if ranks and self.engine == "slurm":
            print(f"{len(ranks)} tasks are handed to Slurm; {later}.")
            return False
        return True


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


@dataclass(frozen=True)
class Task:
    """A share of a command's work, as an engine calls it in any process; `work` does it.

    Attributes:
        run: the folder of plan, marks and logs, absolute.
        parent: the process of the command, without which the work ends; None where tasks outlive
            it, as on Slurm: a task then keeps others of its rank out.
    """

    run: str
    parent: int | None

    def __call__(self, data: object, rank: int, tasks: int) -> None:
        """Do the work of a rank."""
        from contar._lock import locked

        with ExitStack() as held:
            if self.parent is None:
                held.enter_context(locked(Path(self.run) / "tasks" / f"{rank:05d}"))
            self.work(rank, tasks)
            if self.orphaned():
                os._exit(1)  # or the engine would mark a rank as ended that is not

    def work(self, rank: int, tasks: int) -> None:
        """Do the work of a rank among the number of tasks."""
        raise NotImplementedError

    def orphaned(self) -> bool:
        """Return whether the command has ended, as by SIGKILL, while its tasks go on."""
        if self.parent is None or self.parent == os.getpid():
            return False
        try:
            os.kill(self.parent, 0)
        except ProcessLookupError:
            return True
        return False


def parent_of(engine: Engine) -> int | None:
    """Return the `parent` of a task: this process, where it is on one machine with its tasks."""
    return os.getpid() if engine == "local" else None


@contextmanager
def alone(run: Path, engine: Engine) -> Iterator[None]:
    """Keep other commands out of a run's folder, and a local one from where a task is at work.

    Raises:
        ValueError: another is at work there.
    """
    from contar._lock import locked

    with ExitStack() as held:
        held.enter_context(locked(run))
        if engine == "local":
            for task in sorted(run.glob("tasks/*")):
                held.enter_context(locked(task))
        yield


def device_kind(device: str | None, engine: Engine, options: Mapping[str, Any]) -> str | None:
    """Return the kind of device that work is done on; None where only a task will see it."""
    import torch

    if device is not None:
        return device.partition(":")[0]
    if engine == "local":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return "cuda" if options.get("gpus_per_task") else None


def device_of(rank: int, device: str | None, kind: str | None) -> str | None:
    """Return the device of a rank: the one that is given, or one of several GPUs, by turns."""
    import torch

    count = torch.cuda.device_count()
    if device is not None or kind == "cpu" or count < 2:
        return device or kind
    return f"cuda:{rank % count}"


def carry(
    task: Task,
    *,
    engine: Engine,
    tasks: int,
    workers: int,
    options: Mapping[str, Any],
    ranks: Sequence[int],
) -> None:
    """Have an engine call a task for each rank that has work; return at its end, of Slurm at once.

    A rank that ended is marked in RUN/tasks-N/completions. A mark of one that has work is taken
    away.

    Args:
        task: of a module, as it is pickled.
        engine: "local", "slurm" or "ray".
        tasks: among which the work is shared.
        workers: how many of them at a time.
        options: of `check_engine`.
        ranks: with work; the others are marked as ended.

    Raises:
        Exception: what a task raises; of Ray a RuntimeError that names the log.
        SystemExit: Ctrl-C; it is said that the same command goes on.
    """
    logs = Path(task.run) / f"tasks-{tasks}"
    marks = logs / "completions"
    marks.mkdir(parents=True, exist_ok=True)
    for rank in range(tasks):
        mark = marks / f"{rank:05d}"
        mark.unlink(missing_ok=True) if rank in ranks else mark.touch()
    executor = _executor(engine)
    try:
        executor(
            [task], tasks=tasks, workers=workers, logging_dir=os.fspath(logs.absolute()), **options
        ).run()
    except KeyboardInterrupt:
        print("contar: stopped: the same command goes on", file=sys.stderr)
        raise SystemExit(130) from None
    if engine == "ray":  # of which datatrove only counts the tasks that failed
        ended = [rank for rank in ranks if not (marks / f"{rank:05d}").is_file()]
        if ended:
            log = logs / "logs" / f"task_{ended[0]:05d}.log"
            raise RuntimeError(f"{len(ended)} of {tasks} tasks of Ray did not end well: {log}")


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
        package = f'"contar[{"ray" if missing == "ray" else "scale"}]"'
        needs = f"engine {engine!r} needs it: pip install {package}"
        raise ImportError(f"{missing} is not installed; {needs}") from None
    return Executor
