"""The command line of suites: samples for official evaluators, and the scores that they write."""

import functools
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from recipes._cli.engines import (
    Task,
    Work,
    alone,
    device_kind,
    device_of,
    parent_of,
)
from recipes._cli.pipes import Drawing, Loading, seeded

if TYPE_CHECKING:
    from contar.evaluation import Suite

# Source: baaivision/NOVA, docs/evaluation.md; frames and size are those of the released models.
PAPER: dict[str, Any] = {"steps": 128, "guidance": 7.0, "motion_flow": 5.0}
PAPER_FRAMES = 33


@functools.lru_cache(maxsize=1)
def _loaded(loading: Loading) -> Any:
    """Return the pipeline, once a process, whose tasks follow one another."""
    pipe = loading.load()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@dataclass(frozen=True)
class Sampling(Task):
    """A task of `contar sample`.

    Attributes:
        out: folder of the samples, absolute.
        loading: of the model.
        work: how it is done; another number of tasks may go on.
        kind: of device, where the loading names none; None for what is there.
        retry: those units that failed.
    """

    out: str
    loading: Loading
    kind: str | None
    retry: bool

    def work(self, rank: int, tasks: int) -> None:
        """Make the units of a rank."""
        from datatrove.utils.logging import logger

        from contar.evaluation import read_plan, sample_units

        _, settings = read_plan(self.out)
        call = settings["call"]
        pipe = self.pipeline(rank, call)

        def make(text: str, seed: int) -> Any:
            return pipe(text, generator=seeded(seed), **call).frames[0]

        sample_units(
            self.out,
            make,
            fps=call["fps"] or pipe.config["defaults"]["fps"],
            rank=rank,
            tasks=tasks,
            retry=self.retry,
            report=logger.info,
            ended=self.orphaned,
        )

    def pipeline(self, rank: int, call: dict[str, Any]) -> Any:
        """Return the pipeline of a rank; a ValueError if it refuses the call's arguments."""
        device = device_of(rank, self.loading.device, self.kind)
        pipe = _loaded(replace(self.loading, device=device))
        pipe.stream("", **call)  # checks all, and generates nothing yet
        return pipe


@tyro.conf.configure(tyro.conf.DisallowNone)
def sample(
    suite: tyro.conf.Positional[str],
    prompts: Path | None = None,
    out: Path = Path("samples"),
    paper: bool = False,
    frames: int | None = None,
    rewritten: Path | None = None,
    kind: Literal["picture", "video"] | None = None,
    samples: int = 1,
    retry: bool = False,
    check: bool = False,
    drawing: Annotated[Drawing, tyro.conf.arg(name="")] = Drawing(),  # noqa: B008 - it is frozen
    loading: Annotated[Loading, tyro.conf.arg(name="")] = Loading(),  # noqa: B008 - likewise
    work: Annotated[Work, tyro.conf.arg(name="")] = Work(),  # noqa: B008 - likewise
) -> None:
    """Sample a suite for its official evaluator, which reads OUT/SUITE; the same call goes on.

    A sample depends on suite, prompt and number alone: its seed is their hash. What is not given is
    the model's own default.

    Args:
        suite: geneval, dpg-bench, t2i-compbench, vbench, vbench-2.0, or prompts for any list.
        prompts: the suite's own file or folder of prompts; that of the package vbench or vbench2 if
            left out. Of a list a text file, a prompt a line.
        out: folder of the run.
        paper: at NOVA's settings: 128 sets, guidance 7, of videos motion 5 and 33 frames.
        frames: of each video.
        rewritten: JSON of what the model shall read for each prompt; files keep the prompts' names.
        kind: of a list's samples; videos if left out.
        samples: of each prompt of a list.
        retry: those that failed, no others.
        check: say what the evaluator would miss or stumble over in OUT, and sample nothing.
        drawing: of a sample.
        loading: of the model.
        work: how it is done; another number of tasks may go on.
    """
    from contar.evaluation import (
        check_samples,
        clear_parts,
        plan_suite,
        read_rewritten,
        read_suite,
        units_left,
    )

    chosen = read_suite(suite, prompts, kind=kind, samples=samples)
    if rewritten is not None:
        chosen = chosen.rewritten(read_rewritten(rewritten))
    if check:
        folder = out / chosen.name
        _say_problems(check_samples(chosen, folder), folder, len(chosen.files))
        return
    call = _call(chosen, drawing, frames, paper)
    device = device_kind(loading.device, work.engine, work.options())
    if device is not None and loading.dtype is None:
        loading = replace(loading, dtype="bfloat16" if device == "cuda" else "float32")
    settings = {**asdict(loading), "device": device, "call": call}
    if Path(loading.model).exists():
        loading = replace(loading, model=str(Path(loading.model).absolute()))
    with alone(out / "run", work.engine):
        plan_suite(chosen, out, settings)
        if work.engine == "local":
            clear_parts(out)
        ranks = sorted({number % work.tasks for number in units_left(out, retry=retry)})
        places = str((out / "run").absolute()), parent_of(work.engine), str(out.absolute())
        task = Sampling(*places, loading, device, retry)
        if work.engine == "local" and work.workers == 1 and ranks:
            task.pipeline(ranks[0], call)  # a refusal comes before the engine's log
        done = work.carry(task, ranks, "with --check you see what is missing")
    if done:
        _say_end(chosen, out)


def _call(chosen: "Suite", drawing: Drawing, frames: int | None, paper: bool) -> dict[str, Any]:
    """Return the arguments of the pipeline's calls; ValueError for what does not go together."""
    from contar._errors import bad

    picture = chosen.kind == "picture"
    drawing.check()
    if paper:
        given = {name: getattr(drawing, name) for name in PAPER} | {"frames": frames}
        if named := [name for name, value in given.items() if value is not None]:
            raise bad("paper", f"True beside {', '.join(named)}", "one or the other")
        drawing = replace(drawing, **PAPER)
        if picture:
            drawing = replace(drawing, motion_flow=None)
        else:
            frames = PAPER_FRAMES
    if picture and frames is not None:
        raise bad("frames", frames, f"none: {chosen.name} takes pictures")
    if frames is not None and frames < chosen.frames:
        raise bad(
            "frames", frames, f"at least {chosen.frames}, without which {chosen.name} breaks off"
        )
    return {"num_frames": 1 if picture else frames, **drawing.call()}


def _say_end(chosen: "Suite", out: Path) -> None:
    """Say how many units there are; SystemExit if some failed."""
    from contar.evaluation import failed_units, units_left

    failed = list(failed_units(out))
    done = len(chosen.units) - len(units_left(out)) - len(failed)
    print(f"{done} of {len(chosen.units)}: {out / chosen.name}")
    if failed:
        first = f"the first is {failed[0].file}: {failed[0].error}"
        raise SystemExit(f"contar: {len(failed)} failed, {first}; --retry tries them again")


def _say_problems(problems: list[str], folder: Path, count: int) -> None:
    if not problems:
        print(f"{count} files, as the evaluator wants them: {folder}")
        return
    for problem in problems[:20]:
        print(problem)
    more = f", of which {len(problems) - 20} more" if len(problems) > 20 else ""
    raise SystemExit(f"contar: {len(problems)} problems in {folder}{more}")


def scores(
    suite: tyro.conf.Positional[str],
    result: tyro.conf.Positional[Path],
    name: str = "ours",
) -> None:
    """Print what an official evaluator wrote as a table, beside published rows; all in percent.

    Args:
        suite: geneval, dpg-bench, t2i-compbench, vbench or vbench-2.0.
        result: GenEval's results.jsonl, DPG-Bench's …_results.txt, T2I-CompBench's folder of
            categories, VBench's …_eval_results.json or a folder of such.
        name: of the row.
    """
    from contar.evaluation import read_scores, score_table

    print(score_table(suite, {name: read_scores(suite, result)}), end="")
