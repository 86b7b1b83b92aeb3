"""What each head of one size costs, to draw tokens and to learn.

    python -m benchmarks.every_head --out FILE [--rounds 9]

FILE is JSON. All heads are asked for 16 values given 192, the sizes of moving-digits, in batches of
one sample and without guidance; a training step is the loss of 1,024 tokens and its gradient. Rows
are timed in turn, in float32, by the processor's clock, which others on the machine do not move;
run it with one thread.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from contar._timing import quantile
from contar.cpu import speed_up
from contar.heads import head_names, make_head

VALUES, COND, TOKENS, LEARNED = 16, 192, (1, 16, 256), 1024
HEADS: dict[str, dict[str, Any]] = {
    "diffusion, 50 steps": {"name": "diffusion", "width": 192, "depth": 3},
    "flow, 25 steps": {"name": "flow", "width": 192, "depth": 3},
    "flow, 10 steps": {"name": "flow", "width": 192, "depth": 3, "steps": 10},
    "mixture": {"name": "mixture", "components": 24, "width": 512},
    "energy": {"name": "energy", "width": 192, "depth": 4},
    "mean flow, 2 steps": {"name": "mean_flow", "width": 192, "depth": 3, "steps": 2},
    "mean flow, 1 step": {"name": "mean_flow", "width": 192, "depth": 3, "steps": 1},
    "flow map, 2 steps": {"name": "flow_map", "width": 192, "depth": 3, "steps": 2},
    "flow map, 1 step": {"name": "flow_map", "width": 192, "depth": 3, "steps": 1},
}


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Return each head's parameters, and its milliseconds: the median of the rounds."""
    torch.manual_seed(0)
    heads: dict[str, Any] = {
        title: speed_up(_module(sizes, VALUES, COND))
        for title, sizes in HEADS.items()
        if sizes["name"] in head_names()
    }
    rows = {title: {"parameters": float(_size(head))} for title, head in heads.items()}

    def draw(head: Any, cond: torch.Tensor) -> None:
        with torch.no_grad():
            head.sample(cond, noise=torch.Generator().manual_seed(0))

    def learn(head: Any, target: torch.Tensor, cond: torch.Tensor) -> None:
        head.zero_grad()
        head.loss(target, cond, generator=torch.Generator().manual_seed(0)).mean().backward()

    for count in TOKENS:
        cond = torch.randn(1, count, COND)
        runs = {title: lambda head=head, z=cond: draw(head, z) for title, head in heads.items()}
        _add(rows, f"{count} tokens, ms", runs, rounds)
    pair = torch.randn(LEARNED, VALUES), torch.randn(LEARNED, COND)
    runs = {title: lambda head=head: learn(head, *pair) for title, head in heads.items()}
    _add(rows, "training step, ms", runs, rounds)
    return rows


def _add(rows: dict[str, dict[str, float]], column: str, runs: Any, rounds: int) -> None:
    seconds: dict[str, list[float]] = {title: [] for title in runs}
    for turn in range(1 + rounds):  # the first warms up
        for title, run in runs.items():
            start = time.process_time()
            run()
            if turn:
                seconds[title].append(time.process_time() - start)
    for title, took in seconds.items():
        rows[title][column] = round(1e3 * quantile(took, 0.5), 3)


def _module(sizes: dict[str, Any], values: int, cond: int) -> Any:
    return make_head(sizes, values, cond)


def _size(head: Any) -> int:
    return sum(p.numel() for p in head.parameters())


def main() -> None:
    """Measure, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    settings = {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    rows = measure(given.rounds)
    for title, row in rows.items():
        print(title, row, flush=True)
    given.out.write_text(json.dumps({**settings, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
