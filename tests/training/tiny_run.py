"""A run of a tiny NOVA on random latents, as a program: it may be killed, and split over processes.

python tiny_run.py OUT [--resume] [--die-in-save N] [--die-in-step N] [--gradients FILE]
                       [--NAME VALUE ...]
"""

import argparse
import itertools
import os
import signal
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contar.data import Cache, Sample, write_cache
from contar.training import RunConfig, processes, saves, train
from recipes import nova
from recipes._nova.training import Batches, NovaObjective, NovaStage

TOWER = nova.Tower(depth=1, width=16, heads=2)
SIZES = nova.NovaConfig(
    temporal=TOWER, encoder=TOWER, decoder=TOWER,
    head={"name": "flow", "width": 16, "depth": 1},
    text_width=8,
    text_length=4, text_rows=4, latent=(8, 8), frames=3, adapter=2,
)  # fmt: skip
COUNT = 21


def make_cache(folder: Path) -> Cache:
    with processes().main_process_first():
        if folder.exists():
            return Cache(folder)
        rng = np.random.default_rng(0)
        samples = (
            Sample(
                {
                    "latents": rng.standard_normal((8, 3, 8, 8)).astype(np.float16) ** 2,
                    "text": rng.standard_normal((3, 8)).astype(np.float16),
                },
                {"caption": f"clip {i}", "fps": 8.0, "motion_flow": i / COUNT},
            )
            for i in range(COUNT)
        )
        write_cache(samples, folder, made_with={}, shard=8)
    return Cache(folder)


def whole(gradient: Any) -> torch.Tensor:
    """Return a gradient, of which processes may hold a part each."""
    return gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient.clone()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--die-in-save", type=int, default=0)
    parser.add_argument("--die-in-step", type=int, default=0)
    parser.add_argument("--gradients", type=Path)
    known, rest = parser.parse_known_args(arguments)
    kinds = {field.name: type(getattr(RunConfig(), field.name)) for field in fields(RunConfig)}
    given = {
        name.removeprefix("--"): value for name, value in zip(rest[::2], rest[1::2], strict=True)
    }
    options = {
        "steps": 8, "batch": 4, "warmup": 2, "log_every": 1, "save_every": 3, "validate_every": 4,
        **{name: kinds[name](value) for name, value in given.items()},
    }  # fmt: skip
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = nova.build(SIZES)
    cache = make_cache(known.out.parent / "cache")
    if known.die_in_save:
        written, flush = [], saves._flush

        def die(path: Path) -> None:
            written.append(path)
            if len(written) == known.die_in_save:
                os.kill(os.getpid(), signal.SIGKILL)
            flush(path)

        saves._flush = die
    step = torch.optim.AdamW.step
    if known.die_in_step:
        taken = itertools.count(1)

        def fall(self, *arguments, **keywords):
            if next(taken) == known.die_in_step:
                os.kill(os.getpid(), signal.SIGKILL)
            return step(self, *arguments, **keywords)

        torch.optim.AdamW.step = fall
    if known.gradients:

        def dump(self, *arguments, **keywords):
            if not known.gradients.exists():
                gradients = [whole(p.grad) for g in self.param_groups for p in g["params"]]
                if processes().is_main_process:
                    torch.save(gradients, known.gradients)
            return step(self, *arguments, **keywords)

        torch.optim.AdamW.step = dump
    config = RunConfig(**options)
    load = Batches(cache, SIZES, NovaStage(config, repeats=2, drop_text=0.3))
    train(
        NovaObjective(model, repeats=2), load, config, known.out, count=COUNT - 4,
        resume=known.resume, validate=[range(COUNT - 4, COUNT)], load_validation=load,
    )  # fmt: skip


if __name__ == "__main__":
    main()
