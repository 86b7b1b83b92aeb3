"""Training on several processes beside one: losses, gradients, saves, and runs that are killed.

    python -m benchmarks.ranks [--out benchmarks/results/ranks.json]

A tiny NOVA, its blocks computed again for their gradients, learns from random latents on a CPU, on
two and four processes (gloo) and on one: with a copy of the weights each (DDP), and with weights
that the processes share out (FSDP2). What a figure may be at most is in `LIMITS`, which
tests/training/test_scale.py holds it to (`make scale`).
"""

import argparse
import csv
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contar.data import Sample, write_cache
from contar.training import Latents, RunConfig, fingerprint, saves, train
from recipes import nova
from recipes._nova.training import Batches, NovaObjective, NovaStage

TOWER = nova.Tower(depth=2, width=32, heads=2)
SIZES = nova.NovaConfig(
    temporal=TOWER, encoder=TOWER, decoder=TOWER,
    head={"name": "flow", "width": 32, "depth": 2},
    text_width=8, text_length=4, text_rows=4, latent=(8, 8), frames=3, adapter=2,
)  # fmt: skip
ROOT = Path(__file__).parents[1]
COUNT, STEPS, SEED = 20, 8, 0
TRAIN = ["-m", "recipes.cli", "train", "cached", "--model", "moving-digits"]
FEW = ["--stage.run.batch", "4", "--stage.run.steps", "2", "--stage.run.log-every", "1"]
EVERY: dict[str, Any] = {"log_every": 1, "validate_every": 4, "save_every": 2}
LIMITS = {"losses": 1e-5, "gradients": 1e-5, "saves": 0.0, "killed": 1e-6}
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
    load = Batches(latents(), SIZES, stage)
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


def in_bfloat16(folder: Path) -> dict[str, float]:
    """Return how far two processes are from one in the losses of a run in bfloat16."""
    half: Any = {"options": {"precision": "bf16"}}
    do(1, Job(folder / "one", **half))
    do(2, Job(folder / "DDP", **half), Job(folder / "FSDP2", shard=True, **half))
    return {way: off(folder / way, folder / "one") for way in ("DDP", "FSDP2")}


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
    """Return how far a run that was killed at random moments is from one that was not.

    A moment is some steps and a part of one, or of the beginning, after the run went on; one of the
    processes is killed, by chance, and the others are left to end by themselves for half a minute.
    """
    draws = random.Random(SEED)
    steps: Any = {"steps": 40, "shard": shard}
    do(count, Job(folder / "unbroken", **steps))
    with (folder / "unbroken" / "log.csv").open(newline="") as lines:
        step = median(float(row["seconds"]) for row in csv.DictReader(lines))
    out, kills, alone = folder / "killed", [], 0
    while len(kills) < times:
        before = steps_of(out)
        processes = begin(count, [Job(out, resume=True, **steps)])
        goal = before + draws.randrange(3)
        while steps_of(out) < goal and all(process.is_alive() for process in processes):
            time.sleep(0.01)
        time.sleep(draws.uniform(0, step))
        victim = draws.choice(processes)
        if not all(process.is_alive() for process in processes):
            raise RuntimeError(f"the run ended by itself before kill {len(kills) + 1}")
        os.kill(victim.pid, signal.SIGKILL)
        alone += all(code is not None for code in end(processes, 30))
        for process in processes:
            process.kill()
            process.join()
        whole_ = saves.complete_saves(out)
        save = whole_[-1].name if whole_ else None
        kills.append({"began with": before, "killed with": steps_of(out), "last save": save})
    do(count, Job(out, resume=True, **steps))
    return {"off": off(out, folder / "unbroken"), "ended by themselves": alone, "kills": kills}


def steps_of(out: Path) -> int:
    """Return the steps that a run has logged."""
    try:
        return max(0, (out / "log.csv").read_bytes().count(b"\n") - 1)  # also while one is written
    except FileNotFoundError:
        return 0


def one_at_a_time(folder: Path) -> dict[str, Any]:
    """Return how a second run on a folder ends while a first goes on, and how that does."""
    cache, out = random_cache(folder), folder / "out"
    words = [*TRAIN, "--cache", str(cache), "--out", str(out), *FEW, "--stage.run.steps", "1000"]
    command = ["torchrun", "--nproc-per-node", "2", *words]
    first = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 300
        while not (out / "network" / "log.csv").exists():
            if first.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the first run has not begun")
            time.sleep(0.5)
        again = ["torchrun", "--nproc-per-node", "2", "--master-port", "29511", *words]
        printed = refused(again, folder)
        return {"said": printed, "the first goes on": first.poll() is None}
    finally:
        first.terminate()
        first.wait()


def error_of_one(folder: Path) -> list[str]:
    """Return what two processes say where one of them reads a sample with NaN."""
    cache = random_cache(folder, wrong=True)
    words = [*TRAIN, "--cache", str(cache), "--out", str(folder / "out"), *FEW]
    options = ["--stage.from-disk", "--stage.run.steps", "20"]
    return refused(["torchrun", "--nproc-per-node", "2", *words, *options], folder)


def refused(command: Sequence[str], folder: Path) -> list[str]:
    """Return what a command that ends by an error says of it: the lines of contar or Python."""
    run = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)
    if not run.returncode:
        raise RuntimeError(f"{command} ended well")
    starts = ("contar: ", "ValueError", "RuntimeError", "torch.distributed.Dist")
    lines = run.stderr.replace(str(folder), "FOLDER").splitlines()
    return [line for line in lines if line.startswith(starts)]


def commands_of_the_page(folder: Path) -> dict[str, int]:
    """Do the commands of docs/train.md on two processes; return steps that each logged.

    Slurm's are done on one node, by programs that do as srun and scontrol do there.
    """
    cache, tools, told = random_cache(folder), folder / "tools", {}
    tools.mkdir()
    for name, content in {
        "srun": 'shift\nexec "$@"', "scontrol": "echo 127.0.0.1",
    }.items():  # fmt: skip
        (tools / name).write_text(f"#!/bin/sh\n{content}\n")
        (tools / name).chmod(0o755)
    page = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    section = page.split("## Several processes")[1].split("\n## ")[0]
    changed = {
        "per-node 8": "per-node 2", "num-processes 8": "num-processes 2",
        "--cache latents": f"--cache {cache}", "--model first/model": "--model moving-digits",
    }  # fmt: skip
    for command in re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
        out = folder / f"out-{len(told)}"
        for old, new in {**changed, "--out second": f"--out {out} {' '.join(FEW)}"}.items():
            command = command.replace(old, new)
        slurm = {"SLURM_JOB_NODELIST": "here", "SLURM_NNODES": "1", "SLURM_JOB_ID": "7"}
        run = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, timeout=600,
            env={**environment(), **slurm, "PATH": f"{tools}:{environment()['PATH']}"},
        )  # fmt: skip
        if run.returncode or not (out / "model" / "model_index.json").exists():
            raise RuntimeError(f"{command} ended with {run.returncode}: {run.stderr[-3000:]}")
        name = next(word for word in ("srun", "accelerate", "torchrun") if word in command)
        told[name] = len(rows(out / "network"))
    return told


def random_cache(folder: Path, wrong: bool = False) -> Path:
    """Write a cache of random clips for moving-digits; one may hold NaN."""
    pipe = nova.from_pretrained("moving-digits", dtype=torch.float32)
    sizes, draws = pipe.transformer.sizes, np.random.default_rng(SEED)
    made_with = {"tokenizer": fingerprint(pipe.vae), "text_encoder": fingerprint(pipe.text_encoder)}
    shape = (2 * sizes.channels, 2, *sizes.latent)
    samples = []
    for number in range(COUNT):
        arrays = {
            "latents": np.abs(draws.standard_normal(shape)).astype(np.float16),
            "text": draws.standard_normal((3, sizes.text_width)).astype(np.float16),
        }
        if wrong and number == 7:
            arrays["latents"][0] = np.nan
        facts = {"caption": f"clip {number}", "fps": 8.0, "motion_flow": 1.0}
        samples.append(Sample(arrays, facts))
    folder.mkdir(parents=True, exist_ok=True)
    return write_cache(samples, folder / "cache", made_with=made_with)


def environment() -> dict[str, str]:
    """Return the environment of commands: this Python's programs, one thread, no GPU."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    one = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **one, "PATH": path}


MEASURED: dict[str, Callable[[Path], Any]] = {
    "equal": equal_steps,
    "bfloat16": in_bfloat16,
    "saves": readable_saves,
    "numbers that change": changing_numbers,
    "killed DDP": partial(killed, shard=False),
    "killed FSDP2": partial(killed, shard=True),
    "one at a time": one_at_a_time,
    "error of one": error_of_one,
    "commands": commands_of_the_page,
}


def main() -> None:
    """Measure all, or what is named; write the figures beside those that are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "ranks.json")
    parser.add_argument("names", nargs="*", help="of " + ", ".join(MEASURED))
    given = parser.parse_args()
    told: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    told |= {"torch": torch.__version__, "device": "cpu, gloo", "limits": LIMITS}
    for name in given.names or MEASURED:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as place:
            told[name] = MEASURED[name](Path(place) / "runs")
        print(name, f"{time.monotonic() - start:.0f} s", json.dumps(told[name]), flush=True)
        given.out.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
