"""What the runs of a comparison gave: a file, a table, a plot."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from contar._errors import bad
from contar._files import read_json


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
