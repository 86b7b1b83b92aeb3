"""Quality against time of the options that trade one for the other, on the shipped model.

    python benchmarks/tradeoff.py --out FOLDER [--prompts 200] [--only fast ...] [--model NAME]

Every option gets the same prompts and the same noise. Times are of single videos on this machine,
taken in turns with the default's. Writes tradeoff.json, tradeoff.md and tradeoff.png.
"""

import argparse
import json
import math
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from contar.conditioning import Guidance
from contar.generation import fast_changes
from recipes import nova
from recipes.moving_digits import (
    DigitJudge,
    MovingDigits,
    Outcome,
    abilities_of,
    evaluate,
    load_judge,
)

SEED = 7000  # of prompts and noise, on which no setting was chosen
NEAR = 0.03  # ratios within this of 1 are told as near ties
PROMPT = "a seven moves to the left"
SOLVERS = {"DPM-Solver++": "DPMSolverMultistepScheduler", "UniPC": "UniPCMultistepScheduler"}


def options(pipe: nova.NovaPipeline) -> dict[str, dict[str, Any]]:
    """Return the plan's changes of each row."""
    scale = pipe.config["defaults"]["guidance_scale"]
    rows: dict[str, dict[str, Any]] = {}
    rows |= {f"{n} steps": {"diffusion_steps": n} for n in (12, 8, 5)}
    sets = pipe.config["defaults"]["num_inference_steps"]
    fast = fast_changes(pipe.scheduler, sets)
    flow = fast["scheduler"]
    for name, kind in SOLVERS.items():
        solver = {**flow, "_class_name": kind}
        rows |= {
            f"{name}, {n} steps": {"scheduler": solver, "diffusion_steps": n} for n in (8, 5, 3)
        }
    heun = {"_class_name": "FlowMatchHeunDiscreteScheduler", "shift": flow["flow_shift"]}
    rows["Heun, 4 steps"] = {"scheduler": heun, "diffusion_steps": 4}
    rows |= {f"annealed to {n} steps": {"last_diffusion_steps": n} for n in (12, 5)}
    rows |= {f"{n} sets": {"sets": n} for n in (8, 4)}
    rows |= {f"features every {n} sets": {"refresh": n} for n in (2, 4, 8)}
    rows["checkerboard"] = {"order": "checkerboard"}
    rows |= {
        f"checkerboard, {n} filling": {
            "order": "checkerboard", "filling_sets": n, "sets": sets // 2 + n
        }
        for n in (1, 2)
    }  # fmt: skip
    guided = Guidance(scale, renorm=pipe.config["defaults"]["guidance_renorm"], renorm_over="frame")
    for name, interval in {"first half": (0.0, 0.5), "second half": (0.51, 1.0)}.items():
        rows[f"guided in the {name}"] = {"guidance": replace(guided, interval=interval)}
    rows["guided below 700"] = {"guidance": replace(guided, ceiling=700.0)}
    return {**rows, "fast": fast}


def judged(pipe: nova.NovaPipeline, changes: dict[str, Any], judge: DigitJudge, count: int) -> Any:
    """Return the scores of an option."""
    asked = MovingDigits("test", count, seed=SEED)
    others = MovingDigits("test", count, seed=SEED + 1)
    model = abilities_of(pipe, plan_changes=changes)
    options: Any = {"reference": others, "tasks": ("text",), "seed": SEED, "progress": True}
    return evaluate(model, asked, judge, **options)


def right(outcome: Outcome) -> tuple[bool, bool]:
    """Return whether digit and direction are what was asked for."""
    return outcome.seen == outcome.digit, outcome.moved == outcome.direction


def difference(before: list[bool], after: list[bool]) -> tuple[float, float]:
    """Return what was gained, and half of its 95% interval, over pairs, in points of 100.

    One pair more that lost and one that gained are counted in the interval, so that it is not 0
    where no pair changed (Agresti and Min 2005, "Simple improved confidence intervals for
    comparing matched proportions").
    """
    changes = [100.0 * (b - a) for a, b in zip(before, after, strict=True)]
    reach = 1.96 * statistics.stdev([*changes, 100.0, -100.0]) / math.sqrt(len(changes) + 2)
    return statistics.mean(changes), reach


def times_as_fast(pipe: nova.NovaPipeline, changes: dict[str, Any], rounds: int = 9) -> Any:
    """Return the median seconds of a video and of the default's beside it, and their ratio."""

    def seconds(changes: dict[str, Any]) -> float:
        start = time.perf_counter()
        pipe(PROMPT, generator=torch.Generator().manual_seed(0), plan_changes=changes)
        return time.perf_counter() - start

    pairs = [(seconds({}), seconds(changes)) for _ in range(rounds + 1)][1:]
    default, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    return ours, default, statistics.median(a / b for a, b in pairs)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    columns = ["option", "ms a video", "default in turn, ms", "times as fast"]
    columns += ["digit, %", "direction, %", "Fréchet, frames"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        near = " (near tie)" if abs(row["ratio"] - 1) < NEAR and row["option"] != "default" else ""
        cells = [row["option"], f"{1e3 * row['seconds']:.0f}"]
        cells += [f"{1e3 * row['default_seconds']:.0f}", f"{row['ratio']:.2f}{near}"]
        for name in ("digit", "direction"):
            gain, reach = row[f"{name}_gain"]
            cells.append(f"{row[name]:.1f} ({gain:+.1f} ± {reach:.1f})")
        lines.append("| " + " | ".join([*cells, f"{row['frechet']:.2f}"]) + " |")
    return "\n".join(lines) + "\n"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw each figure against time."""
    import matplotlib.pyplot as plt

    figures = {"digit": "digit right, %", "direction": "direction right, %"}
    figures["frechet"] = "Fréchet distance, frames"
    figure, axes = plt.subplots(1, 3, figsize=(15, 6), layout="constrained")
    for axis, (name, label) in zip(axes, figures.items(), strict=True):
        for row in rows:
            bold = row["option"] in ("default", "fast")
            axis.plot(row["ratio"], row[name], "o" if bold else ".", color="C3" if bold else "C0")
            axis.annotate(row["option"], (row["ratio"], row[name]), fontsize=6)
        axis.set(xlabel="times as fast", xscale="log", ylabel=label)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--model", default="moving-digits")
    asked = parser.parse_args()
    if not asked.prompts > 1:
        parser.error("--prompts: at least 2")
    pipe = nova.from_pretrained(asked.model, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    every = options(pipe)
    if unknown := set(asked.only or ()) - set(every):
        parser.error(f"--only: no {sorted(unknown)} among {list(every)}")
    asked.out.mkdir(parents=True, exist_ok=True)
    judge = load_judge()
    chosen = {name: c for name, c in every.items() if not asked.only or name in asked.only}
    rows, before = [], []
    for name, changes in {"default": {}, **chosen}.items():
        scores = judged(pipe, changes, judge, asked.prompts)
        hits = [right(outcome) for outcome in scores.outcomes]
        before = before or hits
        seconds, default, ratio = times_as_fast(pipe, changes)
        row: dict[str, Any] = {"option": name, "seconds": seconds, "ratio": ratio}
        row |= {"default_seconds": default, "prompts": asked.prompts}
        for number, figure in enumerate(("digit", "direction")):
            column = [hit[number] for hit in hits]
            row[figure] = 100 * statistics.mean(column)
            row[f"{figure}_gain"] = difference([hit[number] for hit in before], column)
        row["frechet"] = scores.figures["text.frechet_frames"].value
        rows.append(row)
        print(table([row]).splitlines()[-1], flush=True)
        (asked.out / "tradeoff.json").write_text(json.dumps(rows, indent=1) + "\n")
    (asked.out / "tradeoff.md").write_text(table(rows))
    plot(rows, asked.out / "tradeoff.png")


if __name__ == "__main__":
    main()
