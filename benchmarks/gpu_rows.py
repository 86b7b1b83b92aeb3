"""Rows of `benchmarks.gpu`: what was asked, how a thing is timed, how it is told."""

import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from contar._timing import quantile

NEAR = 0.03  # ratios within this of 1 are told as near ties


@dataclass
class Asked:
    """What the command was asked for.

    Attributes:
        out: folder of the results.
        device: "cuda" or "cpu".
        tiny: sizes of seconds on a CPU.
        official: folder with the official NOVA's code, or None.
        end: when to be done, of `time.monotonic`.
        peak: operations a second by dtype, once they are measured.
    """

    out: Path
    device: str
    tiny: bool
    official: Path | None
    end: float
    peak: dict[str, float] = field(default_factory=dict)

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.end - time.monotonic()

    def describe(self) -> str:
        """Return hardware and versions in a line."""
        name = platform.processor() or platform.machine()
        if self.device == "cuda":
            name = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
        return f"{name}, torch {torch.__version__}, Python {platform.python_version()}" + (
            ", tiny" if self.tiny else ""
        )


@dataclass
class Row:
    """One line of a table.

    Attributes:
        name: what was done, with its exact shapes.
        cells: what is told of it, by column.
        held: False where what had to hold did not; such a row tells no time.
    """

    name: str
    cells: dict[str, str] = field(default_factory=dict)
    held: bool = True

    def told(self) -> dict[str, Any]:
        """Return the row as JSON has it."""
        return {"row": self.name, **self.cells, **({} if self.held else {"held": False})}


def timed_rows(
    title: str,
    seconds: Mapping[str, list[float]],
    *,
    flops: float | None = None,
    peak: float | None = None,
) -> list[Row]:
    """Return a row for each run; the first is the one that the others are compared with.

    Args:
        title: of the case, with its shapes.
        seconds: of each run, in turn.
        flops: of one run, where all do the same work.
        peak: operations a second of the machine, where they were measured.
    """
    rows, first = [], next(iter(seconds))
    for name, values in seconds.items():
        unit, scale = ("ms", 1e3) if quantile(values, 0.5) < 1 else ("s", 1.0)
        shown = [f"{scale * quantile(values, share):.3g}" for share in (0.5, 0.2, 0.8)]
        cells = {
            "p50": f"{shown[0]} {unit}",
            "p20 to p80": f"{shown[1]} to {shown[2]}",
            "rounds": f"{len(values)}",
        }
        if len(seconds) > 1:
            ratios = [was / is_ for was, is_ in zip(seconds[first], values, strict=True)]
            ratio = quantile(ratios, 0.5)
            near = " (near tie)" if abs(ratio - 1) < NEAR and name != first else ""
            cells[f"times as fast as {first}"] = f"{ratio:.2f}{near}"
        if flops:
            rate = flops / quantile(values, 0.5)
            cells["TFLOP/s"] = f"{rate / 1e12:.3g}"
            cells |= {"of peak": f"{rate / peak:.1%}"} if peak else {}
        rows.append(Row(f"{title}: {name}", cells))
    return rows


def table(rows: list[Row]) -> str:
    """Return rows as Markdown, a column for each kind of cell."""
    columns = list(dict.fromkeys(column for row in rows for column in row.cells))
    lines = ["| " + " | ".join(["", *columns]) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        cells = [row.cells.get(column, "") for column in columns]
        name = row.name if row.held else f"**DOES NOT HOLD** {row.name}"
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines) + "\n"


def error(ours: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the largest difference over the largest wanted value; NaN stays NaN."""
    difference = (ours.float() - wanted.float()).abs().max()
    return (difference / wanted.float().abs().max().clamp_min(1e-12)).item()


def rms_error(ours: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the root mean square of the difference over that of what was wanted."""
    difference = (ours.float() - wanted.float()).square().mean().sqrt()
    return (difference / wanted.float().square().mean().sqrt().clamp_min(1e-12)).item()
