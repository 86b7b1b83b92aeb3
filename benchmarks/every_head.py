"""What each head of one size costs, to draw tokens and to learn, and what it learns in equal time.

    python -m benchmarks.every_head --out FILE [--rounds 9] [--seconds 8]

FILE is JSON. All heads are asked for 16 values given 192, the sizes of moving-digits, in batches of
one sample and without guidance; a training step is the loss of 1,024 tokens and its gradient. Rows
are timed in turn, in float32. Then each head learns, for so many seconds of a processor, the 9
values of a token of small digits (`recipes.variants.digit_pixels`) given its place and its digit,
and is measured by the energy distance between its tokens and the data's: 0 if they are alike.
"""

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from contar._timing import in_turn, quantile
from contar.cpu import speed_up
from contar.heads import head_names, make_head
from recipes.variants.digit_pixels import SMALL, DigitPixels

VALUES, COND, TOKENS, LEARNED = 16, 192, (1, 16, 256), 1024
HEADS: dict[str, dict[str, Any]] = {
    "diffusion, 50 steps": {"name": "diffusion", "width": 192, "depth": 3},
    "flow, 25 steps": {"name": "flow", "width": 192, "depth": 3},
    "flow, 10 steps": {"name": "flow", "width": 192, "depth": 3, "steps": 10},
    "mixture": {"name": "mixture", "components": 24, "width": 512},
    "energy": {"name": "energy", "width": 192, "depth": 4},
    "mean flow, 2 steps": {"name": "mean_flow", "width": 192, "depth": 3, "steps": 2},
    "mean flow, 1 step": {"name": "mean_flow", "width": 192, "depth": 3, "steps": 1},
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
    in_turn(runs, device="cpu", rounds=1)  # warms up
    for title, seconds in in_turn(runs, device="cpu", rounds=rounds).items():
        rows[title][column] = round(1e3 * quantile(seconds, 0.5), 3)


def patches() -> tuple[Tensor, Tensor]:
    """Return [m, 9], tokens of 4,000 digits, and [m, 26], their places and digits as one-hot."""
    batches = [DigitPixels(SMALL, label_drop=0.0).batch(0, step, 100) for step in range(40)]
    tokens = torch.cat([tokens for tokens, _ in batches])
    labels = torch.cat([labels for _, labels in batches])
    place = functional.one_hot(torch.arange(16), 16).expand(len(tokens), -1, -1)
    digit = functional.one_hot(labels, 10)[:, None].expand(-1, 16, -1)
    return tokens.flatten(0, 1), torch.cat([place, digit], dim=-1).float().flatten(0, 1)


def distance(head: Any, tokens: Tensor, cond: Tensor) -> float:
    """Return the mean energy distance over the middle places of three digits.

    Source: Szekely & Rizzo 2013: twice the mean distance between, less those within.
    """
    found = []
    for digit in (0, 3, 8):
        for place in (5, 6, 9, 10):
            rows = (cond[:, place] == 1) & (cond[:, 16 + digit] == 1)
            draws = torch.Generator().manual_seed(3)
            drawn = head.sample(cond[rows][None], noise=draws)[0]
            between, *within = (
                torch.cdist(a, b).mean().item()
                for a, b in ((drawn, tokens[rows]), (drawn, drawn), (tokens[rows], tokens[rows]))
            )
            found.append(2 * between - sum(within))
    return sum(found) / len(found)


def learned(sizes: dict[str, Any], seconds: float, seed: int = 0) -> dict[str, float]:
    """Return the steps that a head takes in so many seconds of a processor, and its distance."""
    tokens, cond = patches()
    torch.manual_seed(seed)
    draws, module = torch.Generator().manual_seed(seed), speed_up(_module(sizes, 9, 26))
    optimizer = torch.optim.AdamW(module.parameters(), betas=(0.9, 0.95))
    start, steps, share = time.process_time(), 0, 0.0
    while share < 1:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(share / 0.05, 1) * (1 + math.cos(math.pi * share)) / 2
        rows = torch.randint(len(tokens), (512,), generator=draws)
        optimizer.zero_grad()
        module.loss(tokens[rows], cond[rows], generator=draws).mean().backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        steps += 1
        share = (time.process_time() - start) / seconds
    with torch.no_grad():
        return {"steps": steps, "energy distance": round(distance(module, tokens, cond), 3)}


def _module(sizes: dict[str, Any], values: int, cond: int) -> Any:
    return make_head(sizes, values, cond)


def _size(head: Any) -> int:
    return sum(p.numel() for p in head.parameters())


def main() -> None:
    """Measure, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=8.0)
    given = parser.parse_args()
    settings = {
        "seconds": given.seconds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    rows = measure(given.rounds)
    for title, row in rows.items():
        row.update(learned(HEADS[title], given.seconds))
        print(title, row, flush=True)
    given.out.write_text(json.dumps({**settings, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
