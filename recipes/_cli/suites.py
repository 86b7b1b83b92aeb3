"""The command line of suites: samples for official evaluators, and the scores that they write."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from recipes._cli.engines import Work, device_of, say_failed
from recipes._cli.pipes import Drawing, Loading, Options, load_once, seeded

if TYPE_CHECKING:
    from contar.evaluation import Suite

# Source: baaivision/NOVA, docs/evaluation.md; frames and size are those of the released models.
PAPER: dict[str, Any] = {"steps": 128, "guidance": 7.0, "motion_flow": 5.0}
PAPER_FRAMES = 33


def sample(
    suite: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SUITE")],
    prompts: Path | None = None,
    out: Path = Path("samples"),
    paper: bool = False,
    frames: int | None = None,
    rewritten: Path | None = None,
    kind: Literal["picture", "video"] | None = None,
    samples: int = 1,
    retry: bool = False,
    check: bool = False,
    drawing: Options[Drawing] = Drawing(),
    loading: Options[Loading] = Loading(),
    work: Options[Work] = Work(),
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
        failed_units,
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
    work.options()  # whether they are any
    device = work.device_kind(loading.device)
    if device is not None and loading.dtype is None:
        loading = replace(loading, dtype="bfloat16" if device == "cuda" else "float32")
    with work.alone(out / "run"):
        plan_suite(chosen, out, {**asdict(loading), "device": device, "call": call})
        if work.engine == "local":
            clear_parts(out)
        place, least = loading.anywhere(), (chosen.name, chosen.frames)
        do = partial(_make, out.absolute(), place, device, call, least, retry=retry)
        left = units_left(out, retry=retry)
        if not work.share(out / "run", do, left, "with --check you see what is missing"):
            return
    failed = list(failed_units(out))
    done = len(chosen.units) - len(units_left(out)) - len(failed)
    print(f"{done} of {len(chosen.units)}: {out / chosen.name}")
    say_failed(failed)


def _make(
    out: Path, loading: Loading, kind: str | None, call: dict[str, Any], least: tuple[str, int],
    rank: int, **share: Any,
) -> None:  # fmt: skip
    """Make the samples of a rank."""
    from contar.evaluation import sample_units

    pipe = load_once(replace(loading, device=loading.device or device_of(rank, kind)))
    pipe.stream("", **call)  # checks all, and generates nothing yet
    _check_frames(call["num_frames"] or pipe.config["defaults"]["num_frames"], *least)

    def make(text: str, seed: int) -> Any:
        return pipe(text, generator=seeded(seed), **call).frames[0]

    fps = call["fps"] or pipe.config["defaults"]["fps"]
    sample_units(out, make, fps=fps, rank=rank, **share)


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
    if frames is not None:
        _check_frames(frames, chosen.name, chosen.frames)
    return {"num_frames": 1 if picture else frames, **drawing.call()}


def _check_frames(frames: int, suite: str, least: int) -> None:
    from contar._errors import bad

    if frames < least:
        raise bad("frames", frames, f"at least {least}, without which {suite} breaks off")


def _say_problems(problems: list[str], folder: Path, count: int) -> None:
    if not problems:
        print(f"{count} files, as the evaluator wants them: {folder}")
        return
    print(*problems[:20], sep="\n")
    more = f", of which {len(problems) - 20} more" if len(problems) > 20 else ""
    raise SystemExit(f"contar: {len(problems)} problems in {folder}{more}")


def scores(
    suite: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SUITE")],
    result: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RESULT")],
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
