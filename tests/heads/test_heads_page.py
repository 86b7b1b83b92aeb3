"""The page of heads says of each what its runs say."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.heads_learned import HEADS, rows

ROOT = Path(__file__).parents[2]
COSTS = {  # of the heads that learned, the row of what they cost
    "flow": "flow, 10 steps",
    "mean flow": "mean flow, 2 steps",
    "flow map": "flow map, 2 steps",
    "energy": "energy",
    "mixture": "mixture",
    "diffusion": "diffusion, 50 steps",
}


def results(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


@pytest.mark.parametrize("head", HEADS)
def test_a_heads_row_says_what_its_runs_say_of_three_seeds(head):
    cost, learned = results("every-head")["rows"][COSTS[head]], results("heads-learned")["runs"]
    assert sorted(run["seed"] for run in learned if run["head"] == head) == [0, 1, 2]
    draws = ", ".join(f"{cost[f'{count} tokens, ms']:.3g}" for count in (1, 16, 256))
    cells = f"| {COSTS[head]} | {cost['training step, ms']:.3g} | {draws} | {rows(learned)[head]} |"
    assert cells in (ROOT / "docs" / "heads.md").read_text(encoding="utf-8")
