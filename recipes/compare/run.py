"""Variants on one task at one budget, by equal batches and seeds: a table and a plot.

`contar compare --out RESULT` trains each variant with each seed, has digits generated and judged,
and writes RESULT/runs.json (every run), RESULT/table.md and RESULT/compare.png.
"""

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from contar._errors import bad, check_choice, check_count, check_number, keep_plain
from contar._files import read_json, write_whole
from contar._lock import locked
from contar._random import seeded, seeded_weights
from contar.conditioning import Guidance
from contar.cpu import speed_up
from contar.evaluation import require_torchmetrics
from contar.media import save_sheet
from recipes.compare.results import Run, plot, read_runs, table
from recipes.compare.tasks import TASKS
from recipes.moving_digits import DigitJudge, load_judge
from recipes.variants.digit_pixels import CANVAS, SMALL, DigitPixels
from recipes.variants.moving_clips import MovingClips

BATCH = 100  # samples generated together
MINUTES = 2.0  # of training, unless said
Task = DigitPixels | MovingClips
CLOCKS = {"wall": time.monotonic, "processor": time.process_time}


@dataclass(frozen=True)
class Comparison:
    """What is compared, and at which budget.

    Args:
        task: "digits", classes as pixels; "small-digits", the same in tokens of few values; or
            "moving-digits", captions as latents.
        model: pipeline whose tokenizer and text encoder the task "moving-digits" takes.
        variants: names in `TASKS[task]`; none are all of the task.
        seeds: of weights, batches and samples; each variant runs with each.
        minutes: of training, a run; 2 where neither they nor steps are given.
        steps: of training, a run, instead of minutes.
        clock: of the minutes, and of the seconds of a sample: "wall", or "processor", which counts
            what this process computes, in all its threads, and no other process moves.
        batch: samples of a step.
        learning_rate: at its height, after a warm-up of 5% of the run; a cosine leads to 0.
        guidance: scale in sampling.
        samples: generated and judged, a multiple of 10 from 20 on: as many of each digit.

    Raises:
        ValueError: an unknown variant, a number outside its range, or two budgets.
    """

    task: Literal["digits", "small-digits", "moving-digits"] = "digits"
    model: str = "moving-digits"
    variants: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    minutes: float | None = None
    steps: int | None = None
    clock: Literal["wall", "processor"] = "wall"
    batch: int = 64
    learning_rate: float = 1e-3
    guidance: float = 1.5
    samples: int = 500

    def __post_init__(self) -> None:
        keep_plain(self)
        check_choice("task", self.task, tuple(TASKS))
        check_choice("clock", self.clock, tuple(CLOCKS))
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


def compare(comparison: Comparison, out: Path) -> list[Run]:
    """Train and judge all; return the runs. A folder with runs is gone on with.

    In `out` it writes `runs.json`, `table.md`, `compare.png` and a sheet for each run.

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
    task: Task = DigitPixels(SMALL if comparison.task == "small-digits" else CANVAS)
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


def _run(name: str, seed: int, c: Comparison, task: Task, judge: DigitJudge, out: Path) -> Run:
    with seeded_weights(seed):
        model: Any = speed_up(TASKS[c.task][name]())
    parameters = sum(p.numel() for p in model.parameters())
    now = CLOCKS[c.clock]
    start = now()
    losses = _train(model, name, seed, c, task)
    minutes = (now() - start) / 60
    steps = len(losses)
    means = tuple(mean(losses[i : i + 100]) for i in range(0, steps, 100))
    finite = (parameter.isfinite().all() for parameter in model.parameters())
    if not math.isfinite(losses[-1]) or not all(finite):
        return Run(name, seed, steps, True, parameters, minutes, losses=means)
    model.eval()
    guidance, parts = Guidance(c.guidance), []
    firsts = range(0, c.samples, BATCH)
    asked = [task.asked(first, min(BATCH, c.samples - first)) for first in firsts]
    start = now()
    for first, those in zip(firsts, asked, strict=True):
        parts.append(model.generate(those, guidance, seeded(seed, "samples", first)))
    seconds = (now() - start) / c.samples
    one = task.asked(0, 1)
    with FlopCounterMode(display=False) as counter:
        model.generate(one, guidance, seeded(seed, "flops"))
    made = torch.cat(parts)
    save_sheet(task.sheet(made), out / f"{name}-{seed}.png", least=28)
    figures = task.judged(made, judge)
    gigaflops = counter.get_total_flops() / 1e9
    told = (name, seed, steps, False, parameters, minutes, seconds, gigaflops)
    return Run(*told, figures, means)


def _train(model: nn.Module, name: str, seed: int, c: Comparison, task: Task) -> list[float]:
    """Train within the budget; return the loss of each step, the last one maybe no number."""
    optimizer = torch.optim.AdamW(
        model.parameters(), c.learning_rate, betas=(0.9, 0.95), weight_decay=0.02
    )
    losses: list[float] = []
    now = CLOCKS[c.clock]
    start, share = now(), 0.0
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
        minutes = (now() - start) / 60
        share = minutes / (c.minutes or MINUTES) if c.steps is None else (step + 1) / c.steps
        bar.update(int(100 * min(share, 1)) - bar.n)
        bar.set_postfix(loss=f"{losses[-1]:.3f}", steps=step + 1, refresh=False)
    bar.close()
    return losses
