"""Losses of a run's stages as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contar._errors import bad
from contar.training.log import read_log

_SMOOTHED = 20  # part of the log over which losses are averaged: a twentieth


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
    mean over a twentieth of the log, in validation each row.

    Args:
        runs: folders of `contar.training.train`, by what they shall be called.
        path: of the picture.

    Raises:
        FileNotFoundError: a folder without a log.
        ValueError: a log that is none.
        ImportError: matplotlib is not installed.
    """
    figure = require_matplotlib()(figsize=(11, 3), layout="constrained", dpi=80)
    panels = figure.subplots(1, len(runs), squeeze=False)[0]
    for axes, (title, folder) in zip(panels, runs.items(), strict=True):
        columns = _read(folder / "log.csv")
        name = "error" if "error" in columns else "loss"
        steps, values = columns[name]
        span = max(1, len(values) // _SMOOTHED)
        recent = [values[max(0, i - span) : i] for i in range(1, len(values) + 1)]
        smooth = [sum(rows) / len(rows) for rows in recent]
        axes.plot(steps, smooth, linewidth=0.8, label="training")
        axes.set(title=title, xlabel="step", ylabel=name)
        most = int(0.97 * len(smooth)) + 1
        shown = sorted(smooth)[:most]  # the first steps would dwarf the rest
        if (folder / "validation.csv").exists():
            places, checked = _read(folder / "validation.csv").get(name, ([], []))
            label = "validation, averaged weights"
            axes.plot(places, checked, "o-", markersize=3, label=label)
            shown += checked
        if name == "error":
            axes.set_yscale("log")
        else:
            room = 0.05 * (max(shown) - min(shown)) or 1.0
            axes.set_ylim(min(shown) - room, max(shown) + room)
    panels[0].legend(fontsize="small")
    figure.savefig(path, format="png")
    return path


def _read(file: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Return steps and values of each column, where it has one."""
    if not file.is_file():
        raise FileNotFoundError(f"{file.name}: got no such file in {file.parent}, allowed: one")
    names, rows = read_log(file)
    columns = {}
    for place, name in enumerate(names[1:], 1):
        of_it = [row for row in rows if row[place]]
        columns[name] = [int(row[0]) for row in of_it], [float(row[place]) for row in of_it]
    if not any(columns.get(name, ([],))[0] for name in ("loss", "error")):
        raise bad(file.name, f"{file} without a loss", "the log of a run")
    return columns
