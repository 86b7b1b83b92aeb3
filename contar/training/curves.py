"""Losses of a run's stages as a picture."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SMOOTHED = 10  # rows of the log


def require_matplotlib() -> Any:
    """Return matplotlib's `Figure`; ImportError says what to install if it is not there."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('matplotlib is not installed (pip install "contar[demo]")') from error
    return Figure


def save_curves(runs: Mapping[str, Path], path: Path) -> Path:
    """Write the losses of runs as PNG, side by side; return its path.

    Each shows "error" on a logarithmic axis if its objective has one, else "loss": in training the
    mean of the last 10 rows of the log, in validation each row.

    Args:
        runs: folders of `contar.training.train`, by what they shall be called.
        path: of the picture.

    Raises:
        FileNotFoundError: a folder without a log.
        ImportError: matplotlib is not installed.
    """
    figure = require_matplotlib()(figsize=(11, 3), layout="constrained", dpi=80)
    panels = figure.subplots(1, len(runs), squeeze=False)[0]
    for axes, (title, folder) in zip(panels, runs.items(), strict=True):
        steps, columns = _read(folder / "log.csv")
        name = "error" if "error" in columns else "loss"
        values = columns[name]
        recent = [values[max(0, i - _SMOOTHED) : i] for i in range(1, len(values) + 1)]
        smooth = [sum(rows) / len(rows) for rows in recent]
        axes.plot(steps, smooth, linewidth=0.8, label="training")
        axes.set(title=title, xlabel="step", ylabel=name)
        most = int(0.97 * len(smooth)) + 1
        shown = sorted(smooth)[:most]  # the first steps would dwarf the rest
        if (folder / "validation.csv").exists():
            places, columns = _read(folder / "validation.csv")
            label = "validation, averaged weights"
            axes.plot(places, columns[name], "o-", markersize=3, label=label)
            shown += columns[name]
        if name == "error":
            axes.set_yscale("log")
        else:
            room = 0.05 * (max(shown) - min(shown)) or 1.0
            axes.set_ylim(min(shown) - room, max(shown) + room)
    panels[0].legend(fontsize="small")
    figure.savefig(path, format="png")
    return path


def _read(file: Path) -> tuple[list[int], dict[str, list[float]]]:
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    steps = [int(row.pop("step")) for row in rows]
    return steps, {name: [float(row[name]) for row in rows] for name in rows[0]}
