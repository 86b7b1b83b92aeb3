"""Training on several processes beside one: losses, gradients, saves, and runs that are killed.

    python -m benchmarks.ranks [--out benchmarks/results/ranks.json]

A tiny NOVA, its blocks computed again for their gradients, learns from random latents on a CPU, on
two and four processes (gloo) and on one: with a copy of the weights each (DDP), and with weights
that the processes share out (FSDP2). What a figure may be at most is in `LIMITS`; one beyond it
ends the command with its name.
"""

import argparse
import csv
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from contar.training import Latents, RunConfig, saves, train
from recipes import nova
from recipes._nova.training import NovaObjective, NovaStage, batches_of

TOWER = nova.Tower(depth=2, width=32, heads=2)
SIZES = nova.NovaConfig(
    temporal=TOWER, encoder=TOWER, decoder=TOWER,
    head={"name": "flow", "width": 32, "depth": 2},
    text_width=8, text_length=4, text_rows=4, latent=(8, 8), frames=3, adapter=2,
)  # fmt: skip
COUNT, STEPS, SEED = 20, 8, 0
EVERY: dict[str, Any] = {"log_every": 1, "validate_every": 4, "save_every": 2}
LIMITS = {"losses": 1e-5, "gradients": 1e-5, "saves": 0.0, "killed DDP": 1e-6, "killed FSDP2": 1e-6}
SERVER = multiprocessing.get_context("forkserver")
PRELOADED = ["accelerate", "torch.distributed.fsdp", "torch.distributed.checkpoint"]


@dataclass(frozen=True)
class Job:
    """A run, or what is left of one.

    Args:
        out: its folder.
        shard: weights are shared out.
        resume: go on.
        stop: step before which it ends by itself; None is the end.
        gradients: file for those of its first step.
        averaged: file for the averaged weights that it returns.
        steps: of the run.
        swapped: layers are those of `contar.cpu`.
        options: of the run, beside those of all.
    """

    out: Path
    shard: bool = False
    resume: bool = False
    stop: int | None = None
    gradients: Path | None = None
    averaged: Path | None = None
    steps: int = STEPS
    swapped: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


class StoppedError(Exception):
    """A run has come to where it was to stop."""


def latents() -> Latents:
    """Return random clips."""
    draws = torch.Generator().manual_seed(SEED)
    moments = torch.randn(COUNT, 8, 3, 8, 8, generator=draws)
    moments[:, 4:] = moments[:, 4:].abs()
    return Latents(
        moments=moments.half(),
        texts=torch.randn(COUNT, 3, 8, generator=draws).half(),
        lengths=torch.full((COUNT,), 3),
        text_of=torch.arange(COUNT),
        motion_flow=torch.rand(COUNT, generator=draws),
        fps=torch.full((COUNT,), 8.0),
        begins=torch.ones(COUNT, dtype=torch.bool),
        made_with={},
        fingerprint="random",
    )


def work(job: Job) -> None:
    """Do a job, in each of its processes."""
    from contar.cpu import plain, speed_up

    torch.manual_seed(SEED)
    run = RunConfig(**{
        "steps": job.steps, "batch": 8, "warmup": 2, "shard": job.shard, **EVERY, **job.options
    })  # fmt: skip
    stage = NovaStage(run, repeats=2, drop_text=0.3, checkpoint=True)
    load = batches_of(latents(), SIZES, stage)
    model = nova.build(SIZES)
    objective = NovaObjective(
        speed_up(model) if job.swapped else plain(model), repeats=2, checkpoint=True
    )

    def until(indices: Sequence[int], step: int | str) -> Any:
        if step == job.stop:
            raise StoppedError
        return load(indices, step)

    step = torch.optim.AdamW.step

    def dump(self: Any, *arguments: Any, **options: Any) -> Any:
        if job.gradients and not job.gradients.exists():
            found = [whole(p.grad) for g in self.param_groups for p in g["params"]]
            if int(os.environ.get("RANK", 0)) == 0:
                torch.save(found, job.gradients)
        return step(self, *arguments, **options)

    torch.optim.AdamW.step = dump
    try:
        held = range(COUNT - 4, COUNT)
        averaged = train(
            objective, until, run, job.out, count=COUNT - 4, resume=job.resume,
            validate=[held[:2], held[2:]], load_validation=load,
        )  # fmt: skip
        if job.averaged and int(os.environ.get("RANK", 0)) == 0:
            torch.save(averaged.state_dict(), job.averaged)
    except StoppedError:
        pass
    finally:
        torch.optim.AdamW.step = step


def whole(tensor: Any) -> Tensor:
    """Return a tensor as a whole, of which processes may hold a part each."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor.clone()


def _process(rank: int, count: int, port: int, jobs: Sequence[Job], seed: int) -> None:
    torch.set_num_threads(1)
    if count > 1:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
    sys.stderr = open(os.devnull, "w") if rank else sys.stderr  # noqa: SIM115
    for job in jobs:
        work(job)
    if count > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def begin(count: int, jobs: Sequence[Job]) -> list[Any]:
    """Begin jobs, one after the other, on so many processes."""
    SERVER.set_forkserver_preload([*PRELOADED, "benchmarks.ranks"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = [(rank, count, port, jobs, SEED) for rank in range(count)]
    processes = [SERVER.Process(target=_process, args=each) for each in given]
    for process in processes:
        process.start()
    return processes


def end(processes: Sequence[Any], timeout: float = 600) -> list[int | None]:
    """Wait for processes; return their exit codes."""
    until = time.monotonic() + timeout
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
    return [process.exitcode for process in processes]


def do(count: int, *jobs: Job) -> None:
    """Do jobs on so many processes."""
    codes = end(begin(count, jobs))
    if any(codes):
        raise RuntimeError(f"jobs {jobs} on {count} processes ended with {codes}")


def rows(out: Path, name: str = "log") -> list[dict[str, float]]:
    """Return a run's log, without seconds."""
    with (out / f"{name}.csv").open(newline="") as lines:
        found = list(csv.DictReader(lines))
    return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in found]


def off(one: Path, other: Path) -> float:
    """Return how far losses and norms of two runs are apart, relative to their size."""
    pairs = []
    for name in ("log", "validation"):
        mine, theirs = rows(one, name), rows(other, name)
        if [row["step"] for row in mine] != [row["step"] for row in theirs]:
            raise RuntimeError(f"{one} and {other} logged other steps")
        pairs += [(a[k], b[k]) for a, b in zip(mine, theirs, strict=True) for k in a]
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in pairs)


def apart(mine: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Return how far tensors are apart at most, relative to the largest number."""
    largest = max(float(x.abs().max()) for x in theirs if x.numel())
    pairs = zip(mine, theirs, strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs if a.numel()) / largest


def equal_steps(folder: Path) -> dict[str, Any]:
    """Return how far two and four processes are from one, in losses and in gradients."""
    do(1, Job(folder / "one", gradients=folder / "one.pt"))
    alone = torch.load(folder / "one.pt")
    told: dict[str, Any] = {"losses": {}, "gradients": {}}
    for count in (2, 4):
        ways = {
            "DDP": {}, "FSDP2": {"shard": True},
            "DDP, layers of contar.cpu": {"swapped": True},
            "FSDP2, layers of contar.cpu": {"shard": True, "swapped": True},
            "FSDP2, batch in 2 parts": {"shard": True, "options": {"parts": 2}},
        }  # fmt: skip
        jobs = {
            f"{way}, {count}": Job(folder / f"{way}{count}", gradients=folder / f"{way}{count}.pt",
                                   **options)
            for way, options in ways.items()
            if count * options.get("options", {}).get("parts", 1) <= 8
        }  # fmt: skip
        do(count, *jobs.values())
        for name, job in jobs.items():
            told["losses"][name] = off(job.out, folder / "one")
            told["gradients"][name] = apart(torch.load(str(job.gradients)), alone)
    return told


def readable_saves(folder: Path) -> dict[str, Any]:
    """Return how far what any number reads is from what another number saved."""
    told: dict[str, Any] = {}
    writers = {"1": (1, False), **{
        f"{way} {count}": (count, way == "FSDP2") for way in ("DDP", "FSDP2") for count in (2, 4)
    }}  # fmt: skip
    for name, (count, shard) in writers.items():
        do(count, Job(folder / name, shard=shard, averaged=folder / f"{name}.pt"))
    for count in (1, 2, 4):
        for way in ("FSDP2", "DDP") if count > 1 else ("",):
            jobs = {}
            for name in writers:
                out = folder / f"{name} by {way}{count}"
                shutil.copytree(folder / name, out)
                jobs[name] = Job(
                    out, shard=way == "FSDP2", resume=True, averaged=out.with_suffix(".read.pt")
                )
            do(count, *jobs.values())
            for name, job in jobs.items():
                saved, read = torch.load(folder / f"{name}.pt"), torch.load(str(job.averaged))
                key = f"saved by {name}, read by {way} {count}".replace("  ", " ")
                told[key] = max(float((saved[k] - read[k]).abs().max()) for k in saved)
    return told


def changing_numbers(folder: Path) -> dict[str, float]:
    """Return how far a run that went on with other numbers of processes is from one process's."""
    do(1, Job(folder / "one"))
    told = {}
    for first, shards in {
        "DDP": (False, False, False), "FSDP2": (True, True, True),
        "FSDP2, DDP, FSDP2": (True, False, True),
    }.items():  # fmt: skip
        out = folder / first
        for count, stop, shard in zip((2, 4, 1), (4, 6, None), shards, strict=True):
            do(count, Job(out, shard=shard, resume=stop != 4, stop=stop))
        told[f"{first} on 2, 4, 1"] = off(out, folder / "one")
    return told


def killed(folder: Path, shard: bool, times: int = 10, count: int = 2) -> dict[str, Any]:
    """Return how far a run that was killed at random moments is from one that was not."""
    draws = random.Random(SEED)
    steps: Any = {"steps": 40, "shard": shard}
    start = time.monotonic()
    do(count, Job(folder / "unbroken", **steps))
    seconds = time.monotonic() - start
    out, at, alone = folder / "killed", [], 0
    while len(at) < times:
        done = len(rows(out)) if (out / "log.csv").exists() else 0
        processes = begin(count, [Job(out, resume=True, **steps)])
        # From before the first save to behind the last: the moments spread over the run.
        time.sleep(draws.uniform(0.2, 0.3) * seconds)
        running = [process for process in processes if process.is_alive()]
        if len(running) < count:
            raise RuntimeError(f"the run ended by itself before kill {len(at) + 1}")
        os.kill(draws.choice(running).pid, signal.SIGKILL)
        codes = end(processes, 30)
        alone += all(code is not None for code in codes)
        for process in processes:
            process.kill()
            process.join()
        whole_ = saves.complete_saves(out)
        at.append({
            "from row": done,
            "row": len(rows(out)) if (out / "log.csv").exists() else 0,
            "save": whole_[-1].name if whole_ else None,
        })  # fmt: skip
    do(count, Job(out, resume=True, **steps))
    return {"off": off(out, folder / "unbroken"), "ended by themselves": alone, "kills": at}


def main() -> None:
    """Measure all; write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ranks.json"))
    parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        told: dict[str, Any] = {"torch": torch.__version__, "steps": STEPS, "limits": LIMITS}
        told |= equal_steps(folder / "equal")
        print(json.dumps(told, indent=2), flush=True)


if __name__ == "__main__":
    main()
