"""A report as a picture: figures with a common scale as dots, each of the others as bars."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contar.evaluation.figures import Figure, Scores

_COLORS = ("#0072b2", "#009e73", "#d55e00", "#cc79a7", "#999999")  # Okabe and Ito's
_MARKS = ("o", "s", "^", "D", "v")
_COMMON = ("share", "correlation", "similarity")


def empty_canvas(width: float, height: float) -> Any:
    """Return a figure of matplotlib's, in inches; ImportError says what to install for it."""
    try:
        from matplotlib.figure import Figure as Canvas
    except ImportError as error:
        raise ImportError('matplotlib is not installed (pip install "contar[demo]")') from error
    return Canvas(figsize=(width, height), layout="constrained", dpi=120)


def draw(rows: Mapping[str, Scores], titles: Mapping[str, tuple[str, str]], path: Path) -> Path:
    """Write the picture of scores as PNG; return its path.

    Left, from 0 to 1, shares and correlations with their 95% intervals, a strip for each; right,
    Fréchet distances and other figures, each on a scale of its own. Where a model has no such
    figure, none is drawn.

    Args:
        rows: scores by the model's name.
        titles: of the figures to show, with their kinds, as a `Report` has them.
        path: of the picture.

    Raises:
        ImportError: matplotlib is not installed.
    """
    common = {name: title for name, (title, kind) in titles.items() if kind in _COMMON}
    others = {name: title for name, title in titles.items() if name not in common}
    height = 1.2 + max(0.36 * len(common), 0.42 * len(others) * len(rows) ** 0.5, 1.5)
    canvas = empty_canvas(11, height)
    grid = canvas.add_gridspec(max(len(others), 1), 2, width_ratios=(1.7, 1))
    left = canvas.add_subplot(grid[:, 0])
    _strips(left, rows, common)
    for row, (name, (title, kind)) in enumerate(others.items()):
        figures = {label: scores.figures.get(name) for label, scores in rows.items()}
        _bars(canvas.add_subplot(grid[row, 1]), figures, f"{title}, dB" if kind == "dB" else title)
    handles, labels = left.get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower center", ncols=len(rows))
    canvas.savefig(path, format="png")
    return path


def _strips(axes: Any, rows: Mapping[str, Scores], titles: Mapping[str, str]) -> None:
    count = len(rows)
    for index, (label, scores) in enumerate(rows.items()):
        offset = (index - (count - 1) / 2) * 0.6 / count
        found = ((row, scores.figures.get(name)) for row, name in enumerate(titles))
        known = [(row + offset, f.value, f) for row, f in found if f and f.value is not None]
        places, values = [place for place, _, _ in known], [value for _, value, _ in known]
        below = [0.0 if f.low is None else max(0.0, value - f.low) for _, value, f in known]
        above = [0.0 if f.high is None else max(0.0, f.high - value) for _, value, f in known]
        axes.errorbar(
            values, places, xerr=[below, above], label=label,
            fmt=_MARKS[index % len(_MARKS)], color=_COLORS[index % len(_COLORS)], markersize=4.5,
            elinewidth=1.2,
        )  # fmt: skip
    for row in range(len(titles)):
        axes.axhspan(row - 0.5, row + 0.5, color="#f2f2f2" if row % 2 else "white", zorder=-1)
    axes.set_yticks(range(len(titles)), list(titles.values()))
    axes.set_ylim(max(len(titles), 1) - 0.5, -0.5)
    least = min((x for line in axes.lines for x in line.get_xdata() if math.isfinite(x)), default=0)
    axes.set_xlim(min(-0.03, least - 0.05), 1.03)
    axes.grid(axis="x", alpha=0.4)
    axes.set_title("shares and correlations, with 95% intervals", fontsize=9)


def _bars(axes: Any, figures: Mapping[str, Figure | None], title: str) -> None:
    for row, figure in enumerate(figures.values()):
        value = None if figure is None else figure.value
        color = _COLORS[row % len(_COLORS)]
        axes.barh(row, value or 0.0, color=color, height=0.7)
        text = "–" if value is None else f"{value:.3g}"
        axes.annotate(text, (value or 0.0, row), (3, 0), textcoords="offset points", va="center",
                      fontsize=8)  # fmt: skip
    axes.set_yticks(range(len(figures)), list(figures), fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.18)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_title(title, fontsize=9)
