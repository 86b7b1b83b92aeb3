"""Everything that a GPU has to tell, in minutes: does it compute the same, and how fast.

    python -m benchmarks.gpu --out FOLDER [--minutes 8] [--official NOVA] [--device cpu --tiny]

Steps go by their worth and are written to FOLDER/results.{json,md} one by one; what the minutes do
not allow is said to be left out. `--needs` prints the packages that it takes beside PyTorch.
`--official` is a folder with the code of github.com/baaivision/NOVA, timed in turn with ours.
`--tiny` takes sizes that a CPU runs in seconds, so that no second of a GPU goes to a typing error.
"""

import argparse
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_correct, gpu_speed
from benchmarks.gpu_rows import Asked, Row, table

NEEDS = (
    "diffusers", "einops", "timm", "transformers", "accelerate", "safetensors", "jaxtyping",
    "beartype", "tyro", "tqdm", "pytest", "hypothesis",
)  # fmt: skip
# (name, function, least seconds that it is begun with)
STEPS: tuple[tuple[str, Callable[[Asked, list[Row]], None], int], ...] = (
    ("machine", gpu_speed.machine, 2),
    ("NOVA 480p, batch 1", gpu_speed.nova_one, 40),
    ("goldens", gpu_correct.goldens, 5),
    ("laws", gpu_correct.laws, 30),
    ("parts of NOVA 480p", gpu_speed.nova_parts, 20),
    ("NOVA 480p, batch 8", gpu_speed.nova_eight, 60),
    ("NOVA 480p, compiled", gpu_speed.nova_compiled, 70),
    ("heads", gpu_speed.heads, 10),
    ("bfloat16", gpu_correct.bfloat16, 5),
    ("attention", gpu_speed.attention, 10),
    ("NOVA 480p, 128 sets", gpu_speed.nova_paper, 25),
    ("MAR-H", gpu_speed.mar_huge, 20),
    ("moving digits", gpu_speed.moving_digits, 5),
)


@dataclass
class Step:
    """What became of a step.

    Attributes:
        name: of the step.
        state: "done", "left out: no time", "stopped: no time" or "failed".
        seconds: that it took.
        rows: that it made, in order.
        log: where it failed.
    """

    name: str
    state: str = "left out: no time"
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    log: str = ""


def take(step: Step, function: Callable[[Asked, list[Row]], None], asked: Asked) -> None:
    """Run a step for as long as there is time; its rows stay, whatever happens."""

    def stop(*_: Any) -> None:
        raise TimeoutError

    start = time.perf_counter()
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(max(1, int(asked.left())))
    try:
        function(asked, step.rows)
        step.state = "done" if all(row.held for row in step.rows) else "failed"
    except TimeoutError:
        step.state = "stopped: no time"
    except Exception:
        step.state, step.log = "failed", traceback.format_exc()
        print(step.log, flush=True)
    finally:
        signal.alarm(0)
        step.seconds = time.perf_counter() - start
        if asked.device == "cuda":
            torch.cuda.empty_cache()


def write(steps: list[Step], asked: Asked) -> None:
    """Write what there is so far."""
    told = [{**vars(step), "rows": [row.told() for row in step.rows]} for step in steps]
    (asked.out / "results.json").write_text(json.dumps(told, indent=1) + "\n")
    pages = [f"# {asked.describe()}\n"]
    for step in steps:
        pages.append(f"## {step.name}: {step.state}, {step.seconds:.0f} s\n")
        pages.append(table(step.rows) if step.rows else "")
        pages.append(f"```\n{step.log.strip()}\n```\n" if step.log else "")
    (asked.out / "results.md").write_text("\n".join(page for page in pages if page))


def main(arguments: list[str]) -> int:
    """Run all steps; return 1 if one failed."""
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("--out", type=Path, default=Path("gpu"))
    reader.add_argument("--minutes", type=float, default=8.0)
    reader.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    reader.add_argument("--official", type=Path)
    reader.add_argument("--tiny", action="store_true")
    reader.add_argument("--only", nargs="+", choices=[name for name, *_ in STEPS])
    reader.add_argument("--needs", action="store_true")
    given = reader.parse_args(arguments)
    if given.needs:
        print(*NEEDS)
        return 0
    if given.device == "cuda" and not torch.cuda.is_available():
        reader.error("--device cuda: torch sees no GPU here; --device cpu --tiny tries the command")
    if given.tiny and given.device == "cpu":
        torch.set_num_threads(1)  # of so little a second thread costs more than it brings
    end = time.monotonic() + 60 * given.minutes
    asked = Asked(given.out, given.device, given.tiny, given.official, end)
    asked.out.mkdir(parents=True, exist_ok=True)
    steps = [Step(name) for name, *_ in STEPS if given.only is None or name in given.only]
    chosen = {name: (function, least) for name, function, least in STEPS}
    for step in steps:
        function, least = chosen[step.name]
        if asked.left() > (1 if asked.tiny else least):
            take(step, function, asked)
        write(steps, asked)
        print(f"{step.name}: {step.state}, {step.seconds:.1f} s", flush=True)
        if step.rows:
            print(table(step.rows), flush=True)
    return int(any(step.state == "failed" for step in steps))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
