"""Variants on one task at one budget, by equal batches and seeds: a table and a plot.

`contar compare --out RESULT` trains each variant with each seed, has digits generated and judged,
and writes RESULT/runs.json (every run), RESULT/table.md and RESULT/compare.png.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from contar._errors import bad, check_choice, check_count, check_number, keep_plain
from contar._files import read_json, write_whole
from contar._lock import locked
from contar._random import seeded
from contar.conditioning import Guidance
from contar.cpu import speed_up
from contar.evaluation import DigitJudge
from contar.evaluation.distances import require_torchmetrics
from contar.media import save_sheet
from recipes.digits_judge import load_judge
from recipes.variants import checkerboard
from recipes.variants.canvas import HEADS
from recipes.variants.digit_pixels import CANVAS, DigitPixels
from recipes.variants.masked import Masked
from recipes.variants.moving_clips import MovingClips
from recipes.variants.nova_no_temporal import NoTemporal
from recipes.variants.nova_video import NovaVideo
from recipes.variants.raster import Raster
from recipes.variants.whole_flow import WholeFlow

Variants = dict[str, Callable[[], nn.Module]]
IMAGES: Variants = {
    **{f"masked-{name}": lambda head=head: Masked(CANVAS, head) for name, head in HEADS.items()},
    "raster-flow": lambda: Raster(CANVAS, HEADS["flow"]),
    "checkerboard-flow": lambda: checkerboard.build(CANVAS, HEADS["flow"]),
    "whole-flow": lambda: WholeFlow(CANVAS),
}
VIDEOS: Variants = {
    "nova": lambda: NovaVideo(),
    "nova-no-adapter": lambda: NovaVideo(adapter=None),
    "nova-no-temporal": lambda: NoTemporal(),
}
TASKS = {"digits": IMAGES, "moving-digits": VIDEOS}


@runtime_checkable
class Task(Protocol):
    """What variants are trained and judged on."""

    def batch(self, seed: int, step: int, size: int) -> tuple[Any, ...]:
        """Return what `loss` takes before the generator, from seed and step alone."""
        ...

    def asked(self, first: int, count: int) -> Any:
        """Return what `generate` takes first, for samples by number."""
        ...

    def judged(self, made: Tensor, judge: DigitJudge) -> dict[str, float]:
        """Return figures of the samples from number 0 on."""
        ...

    def sheet(self, made: Tensor) -> Tensor:
        """Return a few samples as clips [b, c, t, h, w] in [0, 1]."""
        ...


BATCH = 100  # samples generated together
MINUTES = 2.0  # of training, unless said


@dataclass(frozen=True)
class Comparison:
    """What is compared, and at which budget.

    Args:
        task: "digits", classes as pixels, or "moving-digits", captions as latents.
        model: pipeline whose tokenizer and text encoder the task "moving-digits" takes.
        variants: names in `IMAGES` or `VIDEOS`; none are all of the task.
        seeds: of weights, batches and samples; each variant runs with each.
        minutes: of training, a run; 2 where neither they nor steps are given.
        steps: of training, a run, instead of minutes.
        batch: samples of a step.
        learning_rate: at its height, after a warm-up of 5% of the run; a cosine leads to 0.
        guidance: scale in sampling.
        samples: generated and judged, a multiple of 10 from 20 on: as many of each digit.

    Raises:
        ValueError: an unknown variant, a number outside its range, or two budgets.
    """

    task: Literal["digits", "moving-digits"] = "digits"
    model: str = "moving-digits"
    variants: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    minutes: float | None = None
    steps: int | None = None
    batch: int = 64
    learning_rate: float = 1e-3
    guidance: float = 1.5
    samples: int = 500

    def __post_init__(self) -> None:
        keep_plain(self)
        check_choice("task", self.task, tuple(TASKS))
        for name in self.variants:
            check_choice("variants", name, tuple(TASKS[self.task]))
        if not self.seeds:
            raise bad("seeds", self.seeds, "at least one")
        for seed in self.seeds:
            check_count("seeds", seed, 0)
        if self.minutes is not None:
            check_number("minutes", self.minutes, 1e-3)
        if self.steps is not None:
            check_count("steps", self.steps)
            if self.minutes is not None:
                raise bad("minutes", self.minutes, "None where steps are given: one budget")
        for name in ("batch", "samples"):
            check_count(name, getattr(self, name))
        if self.samples < 20 or self.samples % 10:
            raise bad("samples", self.samples, "a multiple of 10 from 20 on")
        check_number("learning_rate", self.learning_rate, 0)
        check_number("guidance", self.guidance, 0)


@dataclass(frozen=True)
class Run:
    """One variant with one seed.

    Attributes:
        variant: its name.
        seed: of the run.
        steps: of training that the budget allowed.
        diverged: whether the loss or a weight ended as no number, after which nothing is judged.
        parameters: of the model.
        minutes: of training.
        seconds: to generate one sample, in a batch of up to 100.
        gigaflops: to generate one sample.
        figures: of the judged samples.
        losses: at every 100th step, the mean since the one before.
    """

    variant: str
    seed: int
    steps: int
    diverged: bool
    parameters: int
    minutes: float
    seconds: float = math.nan
    gigaflops: float = math.nan
    figures: dict[str, float] = field(default_factory=dict)
    losses: tuple[float, ...] = ()


def compare(comparison: Comparison, out: Path) -> list[Run]:
    """Train and judge all; return the runs. A folder with runs is gone on with.

    Args:
        comparison: what, and at which budget.
        out: folder for `runs.json`, `table.md`, `compare.png` and a sheet for each run.

    Raises:
        ValueError: a folder of another comparison, one with a table or plot of its own, one in
            which another comparison goes on, or none.
        ImportError: torchmetrics or matplotlib is not installed.
    """
    import matplotlib.pyplot  # noqa: F401 - missed now rather than after minutes of training

    require_torchmetrics()
    if out.exists() and not out.is_dir():
        raise bad("out", str(out), "a folder, there or not")
    with locked(out):
        return _compare(comparison, out)


def _compare(comparison: Comparison, out: Path) -> list[Run]:
    file = out / "runs.json"
    taken = [name for name in ("table.md", "compare.png") if (out / name).exists()]
    if taken and not file.exists():
        raise bad("out", f"{out} with its own {', '.join(taken)}", "a folder without them")
    judge = load_judge()
    told = {**asdict(comparison), "judge": judge.fingerprint()}
    settings = json.loads(json.dumps(told))
    done: list[Run] = []
    if file.exists():
        if read_json(file).get("settings") != settings:
            raise bad("out", str(out), "a folder of the same comparison, or an empty one")
        done = read_runs(file)
    task: Task = DigitPixels()
    if comparison.task == "moving-digits":
        task = MovingClips(comparison.model, out / "cache")
    for seed in comparison.seeds:
        for name in comparison.variants or TASKS[comparison.task]:
            if any((run.variant, run.seed) == (name, seed) for run in done):
                continue
            done.append(_run(name, seed, comparison, task, judge, out))
            runs = [asdict(run) for run in done]
            content = json.dumps({"settings": settings, "runs": runs}, indent=1) + "\n"
            write_whole(file, content)
    (out / "table.md").write_text(table(done))
    plot(done, out / "compare.png")
    return done


def read_runs(file: Path) -> list[Run]:
    """Return the runs of a `runs.json`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no runs.
    """
    try:
        rows = read_json(file)["runs"]
        return [Run(**{**row, "losses": tuple(row["losses"])}) for row in rows]
    except (LookupError, TypeError) as error:
        raise bad(file.name, f"{file}: {error!r}", "the runs of a comparison") from error


def _run(name: str, seed: int, c: Comparison, task: Task, judge: DigitJudge, out: Path) -> Run:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = speed_up(TASKS[c.task][name]())
    parameters = sum(p.numel() for p in model.parameters())
    start = time.monotonic()
    losses = _train(model, name, seed, c, task)
    minutes = (time.monotonic() - start) / 60
    steps = len(losses)
    means = tuple(mean(losses[i : i + 100]) for i in range(0, steps, 100))
    finite = (parameter.isfinite().all() for parameter in model.parameters())
    if not math.isfinite(losses[-1]) or not all(finite):
        return Run(name, seed, steps, True, parameters, minutes, losses=means)
    model.eval()
    guidance, parts = Guidance(c.guidance), []
    firsts = range(0, c.samples, BATCH)
    asked = [task.asked(first, min(BATCH, c.samples - first)) for first in firsts]
    start = time.monotonic()
    for first, those in zip(firsts, asked, strict=True):
        parts.append(model.generate(those, guidance, seeded(seed, "samples", first)))
    seconds = (time.monotonic() - start) / c.samples
    one = task.asked(0, 1)
    with FlopCounterMode(display=False) as counter:
        model.generate(one, guidance, seeded(seed, "flops"))
    made = torch.cat(parts)
    save_sheet(task.sheet(made), out / f"{name}-{seed}.png", least=28)
    figures = task.judged(made, judge)
    gigaflops = counter.get_total_flops() / 1e9
    return Run(
        name, seed, steps, False, parameters, minutes, seconds, gigaflops, figures, means
    )  # fmt: skip


def _train(model: nn.Module, name: str, seed: int, c: Comparison, task: Task) -> list[float]:
    """Train within the budget; return the loss of each step, the last one maybe no number."""
    optimizer = torch.optim.AdamW(
        model.parameters(), c.learning_rate, betas=(0.9, 0.95), weight_decay=0.02
    )
    losses: list[float] = []
    start, share = time.monotonic(), 0.0
    bar = tqdm(total=100, desc=f"{name} {seed}", unit="%")
    while share < 1 and (not losses or math.isfinite(losses[-1])):
        step = len(losses)
        rate = min(share / 0.05, 1) * (1 + math.cos(math.pi * share)) / 2
        for group in optimizer.param_groups:
            group["lr"] = c.learning_rate * rate
        batch = task.batch(seed, step, c.batch)
        loss = model.loss(*batch, seeded(seed, "draws", step))  # type: ignore[operator]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        minutes = (time.monotonic() - start) / 60
        share = minutes / (c.minutes or MINUTES) if c.steps is None else (step + 1) / c.steps
        bar.update(int(100 * min(share, 1)) - bar.n)
        bar.set_postfix(loss=f"{losses[-1]:.3f}", steps=step + 1, refresh=False)
    bar.close()
    return losses


def _spread(values: Sequence[float], digits: int) -> str:
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return "-"
    text = f"{mean(known):.{digits}f}"
    return text if len(known) < 2 else f"{text} ± {stdev(known):.{digits}f}"


# What each figure is called, in which unit and with how many digits it is written.
_FIGURES = {
    "digit": ("digit right, %", 100, 1),
    "direction": ("direction right, %", 100, 1),
    "frechet": ("Fréchet distance", 1, 2),
}


def table(runs: Sequence[Run]) -> str:
    """Return a Markdown table, a row a variant: means over its seeds ± standard deviations."""
    figures = list(dict.fromkeys(name for run in runs for name in run.figures))
    columns = ["variant", *(_FIGURES[name][0] for name in figures)]
    columns += ["diverged", "steps", "s a sample", "GFLOP a sample", "parameters"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name in dict.fromkeys(run.variant for run in runs):
        of_it = [run for run in runs if run.variant == name]
        cells = [name]
        for figure in figures:
            _, factor, digits = _FIGURES[figure]
            cells.append(_spread([factor * r.figures.get(figure, math.nan) for r in of_it], digits))
        cells += [
            f"{sum(run.diverged for run in of_it)} of {len(of_it)}",
            _spread([run.steps for run in of_it], 0),
            _spread([run.seconds for run in of_it], 3),
            _spread([run.gigaflops for run in of_it], 2),
            f"{of_it[0].parameters:,}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(runs: Sequence[Run], path: Path) -> None:
    """Draw each run's digits and distance against the time of a sample."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import ScalarFormatter

    runs = [run for run in runs if run.figures]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for number, name in enumerate(dict.fromkeys(run.variant for run in runs)):
        of_it = [run for run in runs if run.variant == name]
        milliseconds = [1e3 * run.seconds for run in of_it]
        marks: Any = {"color": f"C{number}", "label": name}
        left.plot(milliseconds, [100 * run.figures["digit"] for run in of_it], "o", **marks)
        right.plot(milliseconds, [run.figures["frechet"] for run in of_it], "o", **marks)
    left.set(xlabel="ms a sample", ylabel="digit right, %")
    right.set(xlabel="ms a sample", ylabel="Fréchet distance")
    if runs:
        left.set_xscale("log", base=2)
        right.set_xscale("log", base=2)
        right.set_yscale("log", base=2)
        for axis in (left.xaxis, right.xaxis, right.yaxis):
            axis.set_major_formatter(ScalarFormatter())
        figure.legend(*left.get_legend_handles_labels(), loc="outside right center")
    figure.savefig(path)
    plt.close(figure)
