"""What each head learns in equal time: moving-digits' tokens, given its own towers.

    python -m benchmarks.heads_learned --latents FOLDER --out FILE [--seconds 24] [--seeds 0 1 2]

Every head is trained from random weights on the same tokens of training clips and their conditions,
a tenth of them without a caption, which the shipped model's towers make and stay as they are; then
the model makes videos with it, in 4 sets and with guidance 1.75, which the judge reads. Seconds are
of the processor, of one thread, which others on the machine do not move; drawing the videos and
making the conditions are not counted. FILE is JSON, written after each run; one that is there is
gone on with.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from contar._random import seeded_weights
from contar.cpu import speed_up
from contar.evaluation import share
from contar.heads import make_head
from contar.training import RunConfig
from recipes import nova
from recipes._nova.step import read_step
from recipes._nova.training import Batches, NovaObjective, NovaStage
from recipes.moving_digits import (
    FPS,
    SHARES,
    BouncingDigits,
    digits_latents,
    direction_of,
    frechet_frames,
    load_judge,
)

CLIPS, BATCH, TOKENS, RATE, SEED = 1024, 8, 1024, 1e-3, 5000
# Each with the steps in which it draws a token, if it takes steps.
HEADS: dict[str, tuple[dict[str, Any], int | None]] = {
    "flow": ({"name": "flow", "width": 192, "depth": 3}, 10),
    "mean flow": ({"name": "mean_flow", "width": 192, "depth": 3}, 2),
    "flow map": ({"name": "flow_map", "width": 192, "depth": 3}, 2),
    "energy": ({"name": "energy", "width": 192, "depth": 4}, None),
    "mixture": ({"name": "mixture", "components": 24, "width": 512}, None),
    "diffusion": ({"name": "diffusion", "width": 192, "depth": 3}, 50),
}

# How the model draws with it, beside the head's own solver and steps.
DRAWN = {"sets": 4, "guidance": nova.Guidance(1.75, renorm_over="frame"), "temperature": 1.0}

# What a table says of a run, and the factor of its unit.
FIGURES = {"digit in most frames": 100, "in each of the last four": 100, "distance": 1}


def examples(pipe: nova.NovaPipeline, folder: Path) -> tuple[Tensor, Tensor]:
    """Return hidden tokens of training clips, [m, c], and their conditions, [m, d]."""
    digits = BouncingDigits("train", CLIPS)
    unknown = torch.full((CLIPS,), float("nan"))
    latents = digits_latents(
        digits, pipe.vae, pipe.tokenizer, pipe.text_encoder, folder,
        scores=lambda: unknown, length=pipe.transformer.sizes.text_length, fps=float(FPS),
    )  # fmt: skip
    model = pipe.transformer
    stage = NovaStage(RunConfig(batch=BATCH), repeats=1, shares=SHARES)
    load, objective = Batches(latents, model.sizes, stage), NovaObjective(model)
    tokens, conditions = [], []
    with torch.no_grad():
        for step in range(CLIPS // BATCH):
            batch = load(range(step * BATCH, (step + 1) * BATCH), step)[0]
            read = read_step(model, batch.latents, repeats=1, **objective.given(batch))
            token, condition, _ = nova.hidden_tokens(model, batch.latents, read)
            tokens.append(token)
            conditions.append(condition)
    return torch.cat(tokens), torch.cat(conditions)


def batches(count: int, seed: int) -> Iterator[Tensor]:
    """Yield rows of steps without end, each token once before any comes again."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=generator)
        yield from order[: count // TOKENS * TOKENS].view(-1, TOKENS)


def train(
    head: Any, tokens: Tensor, conditions: Tensor, seconds: float, seed: int
) -> tuple[int, float, float]:
    """Train for so many seconds of the processor; return steps, seconds, the last losses' mean."""
    optimizer = torch.optim.AdamW(head.parameters(), RATE, betas=(0.9, 0.95), weight_decay=0.02)
    generator, losses = torch.Generator().manual_seed(seed), []
    start, done = time.process_time(), 0.0
    for rows in batches(len(tokens), seed):
        rate = min(done / 0.05, 1) * (1 + math.cos(math.pi * done)) / 2
        for group in optimizer.param_groups:
            group["lr"] = RATE * rate
        loss = head.loss(tokens[rows], conditions[rows], generator=generator).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        done = (time.process_time() - start) / seconds
        if done >= 1:
            break
    head.eval()
    last = losses[-50:]
    return len(losses), seconds * done, sum(last) / len(last)


def judged(
    pipe: nova.NovaPipeline, head: nn.Module, steps: int | None, asked: Any, seed: int
) -> dict[str, Any]:
    """Return what the judge says of videos that are drawn by a head, and the seconds of one."""
    model = copy.copy(pipe.transformer)
    model._modules = {**model._modules, "head": head}
    parts = {**pipe.components, "transformer": model}
    kept = {name: pipe.config[name] for name in ("defaults", "text_package")}
    other, judge = nova.NovaPipeline(**parts, **kept), load_judge()
    other.set_progress_bar_config(disable=True)
    clips = [asked[i] for i in range(len(asked))]
    draws = [torch.Generator().manual_seed(seed + i) for i in range(len(clips))]
    changes = {"scheduler": None, "diffusion_steps": steps, **DRAWN}
    start = time.process_time()
    out: Any = other([clip.caption for clip in clips], generator=draws, plan_changes=changes)
    took = (time.process_time() - start) / len(clips)
    frames = torch.from_numpy(out.frames)
    right = torch.stack([judge.digits(f) == c.digit for f, c in zip(frames, clips, strict=True)])
    moved = [direction_of(f) == c.direction for f, c in zip(frames, clips, strict=True)]
    real = torch.cat([clip.frames for clip in clips])
    return {
        "digit in most frames": share(int((right.float().mean(1) > 0.5).sum()), len(clips)).value,
        "in each of the last four": share(int(right[:, -4:].all(1).sum()), len(clips)).value,
        "direction": sum(moved) / len(clips),
        "distance": frechet_frames(judge, real, frames.flatten(0, 1)),
        "seconds a video": round(took, 4),
    }


def rows(runs: list[dict[str, Any]]) -> dict[str, str]:
    """Return each head's cells of a Markdown table: means over its seeds ± standard deviations."""
    found = {}
    for name in dict.fromkeys(run["head"] for run in runs):
        of_it = [run for run in runs if run["head"] == name]
        cells = [f"{mean(run['steps'] for run in of_it):.0f}"]
        for figure, factor in FIGURES.items():
            values = [factor * run[figure] for run in of_it]
            spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.1f}{spread}")
        found[name] = " | ".join(cells)
    return found


def main() -> None:
    """Train and judge each head with each seed; write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latents", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=24.0)
    parser.add_argument("--videos", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--heads", choices=HEADS, nargs="+", default=list(HEADS))
    given = parser.parse_args()
    settings = {
        "seconds": given.seconds, "videos": given.videos, "threads": torch.get_num_threads(),
        "torch": torch.__version__, "clips": CLIPS, "tokens of a step": TOKENS, "rate": RATE,
    }  # fmt: skip
    runs: list[dict[str, Any]] = []
    if given.out.exists():
        runs = json.loads(given.out.read_text())["runs"]
    pipe = nova.from_pretrained("moving-digits", dtype=torch.float32)
    tokens, conditions = examples(pipe, given.latents)
    settings["tokens"] = len(tokens)
    asked = BouncingDigits("validation", given.videos, seed=SEED)
    sizes = pipe.transformer.head
    for seed in given.seeds:
        for name in given.heads:
            config, steps = HEADS[name]
            if any((run["head"], run["seed"]) == (name, seed) for run in runs):
                continue
            with seeded_weights(seed):
                made: Any = make_head(config, sizes.token_dim, sizes.cond_dim)
            head = speed_up(made)
            count, took, loss = train(head, tokens, conditions, given.seconds, seed)
            told = {"head": name, "seed": seed, "steps": count, "seconds": round(took, 2)}
            runs.append({**told, "loss": loss, **judged(pipe, head, steps, asked, SEED)})
            print(runs[-1], flush=True)
            given.out.write_text(json.dumps({"settings": settings, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
