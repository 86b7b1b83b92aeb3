"""A run of one weight, which learns a = 2 in y = a x."""

import csv
from pathlib import Path
from typing import Any

import torch
from torch import nn

from contar.training import RunConfig, train

QUICK: dict[str, Any] = {"steps": 4, "batch": 4, "warmup": 1, "log_every": 1, "save_every": 2}


class Line(nn.Module):
    """y = a x, whose loss is not a number from a chosen step on."""

    def __init__(self, bad_from: int = 99) -> None:
        super().__init__()
        self.a, self.bad_from = nn.Parameter(torch.zeros(1)), bad_from

    def forward(self, x: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
        loss = (self.a * x - 2 * x).square().mean()
        return {"loss": loss * float("nan") if step >= self.bad_from else loss}


class Dropped(Line):
    """Draws from the global generator."""

    def forward(self, x: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
        return super().forward(nn.functional.dropout(x), step)


def load(indices, step):
    return torch.tensor(indices, dtype=torch.float32), 0 if step == "validation" else step


def run(
    out: Path,
    objective: nn.Module | None = None,
    *,
    resume: bool = False,
    described: dict[str, str] | None = None,
    **options: Any,
) -> nn.Module:
    config = RunConfig(**{**QUICK, **options})
    model = objective or Line()
    return train(model, load, config, out, count=16, resume=resume, described=described)


def rows(file: Path) -> list[dict[str, str]]:
    """Return a log's rows, but for their seconds."""
    with file.open(newline="") as lines:
        kept = list(csv.DictReader(lines))
    return [{k: v for k, v in row.items() if k != "seconds"} for row in kept]
