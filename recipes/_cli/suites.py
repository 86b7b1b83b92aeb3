"""The command line of suites: samples for official evaluators, and the scores that they write."""

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from recipes._cli.engines import (
    Engine,
    Task,
    alone,
    carry,
    check_engine,
    device_kind,
    device_of,
    parent_of,
)
from recipes._cli.pipes import load_pipeline, seeded

# Source: baaivision/NOVA, docs/evaluation.md; frames and size are those of the released models.
PAPER = {"steps": 128, "guidance": 7.0, "motion_flow": 5.0}


@dataclass(frozen=True)
class Loading:
    """How a pipeline is loaded: the options of `load_pipeline`."""

    model: str
    device: str | None
    dtype: str | None
    heads: tuple[int, int] | None
    tiling: bool


@functools.lru_cache(maxsize=1)
def _loaded(loading: Loading) -> Any:
    """Return the pipeline, once a process, whose tasks follow one another."""
    pipe = load_pipeline(
        loading.model, loading.device, loading.dtype, loading.heads, loading.tiling
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@dataclass(frozen=True)
class Sampling(Task):
    """A task of `contar sample`.

    Attributes:
        out: folder of the samples, absolute.
        loading: of the model.
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
    model: str = "moving-digits",
    out: Path = Path("samples"),
    paper: bool = False,
    frames: int | None = None,
    steps: int | None = None,
    diffusion_steps: int | None = None,
    guidance: float | None = None,
    negative: str | None = None,
    motion_flow: float | None = None,
    fps: float | None = None,
    rewritten: Path | None = None,
    kind: Literal["picture", "video"] | None = None,
    samples: int = 1,
    engine: Engine = "local",
    tasks: int = 1,
    workers: int = 1,
    engine_options: tuple[str, ...] = (),
    retry: bool = False,
    check: bool = False,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    heads: tuple[int, int] | None = None,
    tiling: bool = False,
) -> None:
    """Sample a suite for its official evaluator, which reads OUT/SUITE; the same call goes on.

    A sample depends on suite, prompt and number alone: its seed is their hash. What is not given is
    the model's own default.

    Args:
        suite: geneval, dpg-bench, t2i-compbench, vbench, vbench-2.0, or prompts for any list.
        prompts: the suite's own file or folder of prompts; that of the package vbench or vbench2 if
            left out. Of a list a text file, a prompt a line.
        model: as in `generate`.
        out: folder of the run.
        paper: at NOVA's settings: 128 sets, guidance 7, of videos motion 5 and 33 frames.
        frames: of each video.
        steps: sets in which each frame's tokens are generated.
        diffusion_steps: of each set.
        guidance: scale of classifier-free guidance.
        negative: what guidance leads away from.
        motion_flow: optical flow score, how much moves.
        fps: frames per second, of the motion and of the files.
        rewritten: JSON of what the model shall read for each prompt; files keep the prompts' names.
        kind: of a list's samples; videos if left out.
        samples: of each prompt of a list.
        engine: processes here, a Slurm array or a Ray cluster, by datatrove (extra scale).
        tasks: among which the samples are shared; another number may go on.
        workers: tasks at a time.
        engine_options: of datatrove's executor, as time=24:00:00 partition=gpu gpus_per_task=1.
        retry: those that failed, no others.
        check: say what the evaluator would miss or stumble over in OUT, and sample nothing.
        device: the GPU if there is one; several by turns.
        dtype: of the weights; bfloat16 on a GPU, else float32.
        heads: as in `generate`.
        tiling: decode large frames in tiles, for memory.
    """
    from contar._errors import bad, check_text
    from contar.evaluation import (
        check_samples,
        clear_parts,
        failed_units,
        plan_suite,
        read_rewritten,
        read_suite,
        units_left,
    )

    chosen = read_suite(suite, prompts, kind=kind, samples=samples)
    if rewritten is not None:
        chosen = chosen.rewritten(read_rewritten(rewritten))
    folder = out / chosen.name
    if check:
        _say_problems(check_samples(chosen, folder), folder, len(chosen.files))
        return
    given = {"steps": steps, "guidance": guidance, "motion_flow": motion_flow, "frames": frames}
    if paper:
        if named := [name for name, value in given.items() if value is not None]:
            raise bad("paper", f"True beside {', '.join(named)}", "one or the other")
        given |= PAPER | ({"frames": 33} if chosen.kind == "video" else {"motion_flow": None})
    if chosen.kind == "picture" and frames is not None:
        raise bad("frames", frames, f"none: {suite} takes pictures")
    call = {
        "num_frames": 1 if chosen.kind == "picture" else given["frames"],
        "num_inference_steps": given["steps"],
        "num_diffusion_steps": diffusion_steps,
        "guidance_scale": given["guidance"],
        "negative_prompt": None if negative is None else check_text("negative", negative),
        "motion_flow": given["motion_flow"],
        "fps": fps,
    }
    options = check_engine(engine, tasks, workers, engine_options)
    source = str(Path(model).absolute()) if Path(model).exists() else model
    kind_of_device = device_kind(device, engine, options)
    if kind_of_device is not None:
        dtype = dtype or ("bfloat16" if kind_of_device == "cuda" else "float32")
    loading = Loading(source, device, dtype, heads, tiling)
    settings = {
        "model": model, "device": kind_of_device, "dtype": dtype, "heads": heads, "tiling": tiling,
        "call": call,
    }  # fmt: skip
    with alone(out / "run", engine):
        plan_suite(chosen, out, settings)
        if engine == "local":
            clear_parts(out)
        ranks = sorted({number % tasks for number in units_left(out, retry=retry)})
        place = str(out.absolute())
        run = str((out / "run").absolute())
        task = Sampling(run, parent_of(engine), place, loading, kind_of_device, retry)
        if engine == "local" and workers == 1 and ranks:
            task.pipeline(ranks[0], call)  # a refusal comes before the engine's log
        carry(task, engine=engine, tasks=tasks, workers=workers, options=options, ranks=ranks)
    if engine == "slurm":
        print(f"{len(ranks)} tasks are handed to Slurm; with --check you see what is missing.")
        return
    failed = list(failed_units(out))
    print(
        f"{len(chosen.units) - len(units_left(out)) - len(failed)} of {len(chosen.units)}: {folder}"
    )
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
