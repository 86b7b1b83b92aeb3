"""Work in shares, carried by datatrove: processes here, a Slurm array, a Ray cluster."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from contar._work import Failure

Engine = Literal["local", "slurm", "ray"]
_MOST = 100_000  # tasks, each of which has files of its own
_OURS = ("pipeline", "tasks", "workers", "logging_dir", "skip_completed", "depends")


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
        """Return the engine's options, from "name=value", before any work is done.

        Raises:
            ImportError: datatrove is not installed, or ray for "ray".
            ValueError: a count below 1, too many tasks, an unknown engine or option, a value of
                another kind, or an option less than the engine needs.
        """
        from contar._errors import bad, check_choice, check_count, check_size

        check_choice("engine", self.engine, ("local", "slurm", "ray"))
        check_size("tasks", self.tasks, maximum=_MOST)
        if check_count("workers", self.workers) > self.tasks:
            raise bad("workers", self.workers, f"at most the number of tasks, {self.tasks}")
        executor = inspect.signature(_executor(self.engine), eval_str=True)
        known = {n: p for n, p in executor.parameters.items() if n not in _OURS}
        given: dict[str, Any] = {}
        for option in self.engine_options:
            name, sign, value = option.partition("=")
            if not sign or name not in known:
                raise bad("engine_options", option, ", ".join(f"{n}=…" for n in known))
            given[name] = _converted(option, value, known[name].annotation)
        empty = inspect.Parameter.empty
        needed = [n for n in known if known[n].default is empty and n not in given]
        if needed:
            allowed = f"{', '.join(f'{n}=…' for n in needed)} as well"
            raise bad("engine_options", list(given), allowed)
        return given

    @contextmanager
    def alone(self, run: Path) -> Iterator[None]:
        """Keep other commands out of a run's folder, and work here from where a task is at work.

        Raises:
            ValueError: another is at work there.
        """
        from contar._lock import locked

        with ExitStack() as held:
            held.enter_context(locked(run))
            if self.engine == "local":
                for task in sorted(run.glob("tasks/*")):
                    held.enter_context(locked(task))
            yield

    def device_kind(self, device: str | None = None) -> str | None:
        """Return the kind of device that work is done on; None where only a task will see it."""
        import torch

        if device is not None:
            return device.partition(":")[0]
        if self.engine == "local":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return "cuda" if self.options().get("gpus_per_task") else None

    def share(self, run: Path, do: Callable[..., object], units: Iterable[int], later: str) -> bool:
        """Have tasks do what is left; return whether it is done, or False where Slurm has it now.

        A task that ended is marked in RUN/tasks-N/completions. A mark of one that has work is taken
        away.

        Args:
            run: the folder of plan, marks and logs.
            do: of a module, as it is pickled; called with `rank`, `tasks`, `report` and `ended`.
            units: numbers of those that are left, each the work of the task `number % tasks`.
            later: what a person does once Slurm has done it.

        Raises:
            Exception: what a task raises; of Ray a ChildProcessError that names the log.
            SystemExit: Ctrl-C; it is said that the same command goes on.
        """
        ranks = {number % self.tasks for number in units}
        if not ranks:
            return True
        logs = run.absolute() / f"tasks-{self.tasks}"
        marks = [logs / "completions" / f"{rank:05d}" for rank in range(self.tasks)]
        marks[0].parent.mkdir(parents=True, exist_ok=True)
        for rank, mark in enumerate(marks):
            mark.unlink(missing_ok=True) if rank in ranks else mark.touch()
        task = Task(str(run.absolute()), os.getpid() if self.engine == "local" else None, do)
        how = {"tasks": self.tasks, "workers": self.workers, "logging_dir": str(logs)}
        try:
            with _seen_to_be_submitted() if self.engine == "ray" else nullcontext():
                _executor(self.engine)([task], **how, **self.options()).run()
        except KeyboardInterrupt:
            print("contar: stopped: the same command goes on", file=sys.stderr)
            raise SystemExit(130) from None
        if self.engine == "slurm":
            print(f"{len(ranks)} tasks are handed to Slurm; {later}.")
            return False
        failed = [
            rank for rank in sorted(ranks) if self.engine == "ray" and not marks[rank].is_file()
        ]
        if failed:  # which datatrove only counts
            log = logs / "logs" / f"task_{failed[0]:05d}.log"
            raise ChildProcessError(f"{len(failed)} of {self.tasks} tasks did not end well: {log}")
        return True


@dataclass(frozen=True)
class Task:
    """A share of a command's work, as an engine calls it in any process.

    Attributes:
        run: the folder of plan, marks and logs, absolute.
        parent: the process of the command, without which the work ends; None where tasks outlive
            it, as on Slurm: a task then keeps others of its rank out.
        do: as in `Work.share`.
    """

    run: str
    parent: int | None
    do: Callable[..., object]

    def __post_init__(self) -> None:
        if self.parent is not None:  # the command says how it went; what a task reports is shown
            from datatrove.utils.logging import logger

            logger.disable("datatrove")  # which tells whole traces

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()  # in a worker, too

    def __call__(self, data: object, rank: int, tasks: int) -> None:
        """Do the work of a rank."""
        from datatrove.utils.logging import logger

        from contar._lock import locked

        with ExitStack() as held:
            if self.parent is None:
                held.enter_context(locked(Path(self.run) / "tasks" / f"{rank:05d}"))
            self.do(rank=rank, tasks=tasks, report=logger.info, ended=self.orphaned)
            if self.orphaned():
                os._exit(1)  # or the engine would mark a rank as ended that is not

    def orphaned(self) -> bool:
        """Return whether the command has ended, as by SIGKILL, while its tasks go on."""
        if self.parent is None or self.parent == os.getpid():
            return False
        try:
            os.kill(self.parent, 0)
        except ProcessLookupError:
            return True
        return False


def device_of(rank: int, kind: str | None) -> str | None:
    """Return the device of a rank, of a kind; of several GPUs one, by turns."""
    import torch

    count = torch.cuda.device_count()
    return kind if kind == "cpu" or count < 2 else f"cuda:{rank % count}"


def say_failed(failed: "Sequence[Failure]") -> None:
    """End with the first of what failed, if anything did."""
    if failed:
        first = f"the first is {failed[0].file}: {failed[0].error}"
        raise SystemExit(f"contar: {len(failed)} failed, {first}; --retry tries them again")


def _converted(option: str, value: str, annotation: Any) -> Any:
    """Return the value of an option "name=value" as its annotation wants it."""
    from contar._errors import bad

    if annotation is inspect.Parameter.empty:
        return value
    kinds = get_args(annotation | None)
    if bool in kinds and value.lower() in ("true", "false"):
        return value.lower() == "true"
    for kind in (int, float, str):
        with suppress(ValueError):
            if kind in kinds:
                return kind(value)
    told = " or ".join(kind.__name__ for kind in (bool, int, float) if kind in kinds)
    wanted = inspect.formatannotation(annotation)
    raise bad("engine_options", option, told or f"none: no text is a {wanted}")


@contextmanager
def _seen_to_be_submitted() -> Iterator[None]:
    """Have datatrove raise the errors of the threads that give Ray its tasks: it would wait on."""
    from datatrove.executor import ray

    class Manager(ray.RayTaskManager):
        def wait(self, *given: Any, **more: Any) -> Any:
            for thread in self.pg_futures:
                if thread.done():
                    thread.result()
            return super().wait(*given, **more)

    before, ray.RayTaskManager = ray.RayTaskManager, Manager
    try:
        yield
    finally:
        ray.RayTaskManager = before


def _executor(engine: Engine) -> Any:
    """Return datatrove's class for an engine."""
    try:
        if engine == "ray":
            importlib.import_module("ray")  # which datatrove imports only once it runs
        return getattr(
            importlib.import_module("datatrove.executor"), f"{engine.title()}PipelineExecutor"
        )
    except ImportError as error:
        missing = (error.name or "datatrove").partition(".")[0]
        package = f'"contar[{"ray" if missing == "ray" else "scale"}]"'
        needs = f"engine {engine!r} needs it: pip install {package}"
        raise ImportError(f"{missing} is not installed; {needs}") from None
