"""The shipped model with a head in one pass, learned from its own; both before the judge.

    python -m benchmarks.distilled train --out RUN [--steps 400] [--width 192]
    python -m benchmarks.distilled judge --model RUN/model --out FILE [--count 100]

The first teaches a mean flow what the model's own head draws with its defaults (10 steps, guidance
1.75), on the conditions of training clips, and saves a pipeline. The second has both make the same
prompts from the same seeds and writes JSON: shares with their 95% intervals, a processor's seconds
for a video in batches of 25, and one video's seconds by the clock, in turn.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from contar._timing import in_turn, quantile
from contar.evaluation import share
from contar.training import RunConfig
from recipes import nova
from recipes._nova.distilling import HeadStage, train_head
from recipes.moving_digits import FPS, SHARES, BouncingDigits, direction_of, load_judge
from recipes.moving_digits.stages.latents import digits_latents

SEED, BATCH, CLIPS = 77, 25, 512


def train(given: argparse.Namespace) -> None:
    """Teach the head; save RUN/model."""
    pipe = nova.from_pretrained("moving-digits", dtype=torch.float32)
    digits, unknown = BouncingDigits("train", CLIPS), torch.full((CLIPS,), float("nan"))
    latents = digits_latents(
        digits, pipe.vae, pipe.tokenizer, pipe.text_encoder, given.out / "latents",
        scores=lambda: unknown, length=pipe.transformer.sizes.text_length, fps=float(FPS),
    )  # fmt: skip
    run = RunConfig(steps=given.steps, batch=8, learning_rate=given.rate, warmup=50)
    stage = HeadStage(run, repeats=given.repeats, pool=given.pool, shares=SHARES)
    head = {"name": "mean_flow", "steps": 1, "width": given.width}
    network = train_head(stage, head, pipe, latents, given.out / "head", resume=False)
    defaults = {**pipe.config["defaults"], "guidance_scale": 1.0}
    kept = {"defaults": defaults, "text_package": pipe.config["text_package"]}
    parts = {**pipe.components, **kept, "transformer": network}
    nova.NovaPipeline(**parts).save_pretrained(given.out / "model")


def judge(given: argparse.Namespace) -> None:
    """Have both models make the same videos; write what the judge says."""
    asked = BouncingDigits("validation", given.count, seed=SEED)
    clips, judge = [asked[i] for i in range(given.count)], load_judge()
    names = {"default": "moving-digits", "one pass": str(given.model)}
    pipes = {key: nova.from_pretrained(name, dtype=torch.float32) for key, name in names.items()}
    told: dict[str, Any] = {"count": given.count, "seed": SEED, "threads": torch.get_num_threads()}

    def make(pipe: nova.NovaPipeline, first: int, count: int) -> Tensor:
        rows = range(first, min(first + count, given.count))
        draws = [torch.Generator().manual_seed(SEED + i) for i in rows]
        out: Any = pipe([clips[i].caption for i in rows], num_frames=17, generator=draws)
        return torch.from_numpy(out.frames)

    for key, pipe in pipes.items():
        pipe.set_progress_bar_config(disable=True)
        start = time.process_time()
        made = torch.cat([make(pipe, i, BATCH) for i in range(0, given.count, BATCH)])
        seconds = (time.process_time() - start) / given.count
        pairs = list(zip(made, clips, strict=True))
        right = torch.stack([judge.digits(frames) == clip.digit for frames, clip in pairs])
        hits = {
            "digit in most frames": right.float().mean(1) > 0.5,
            "in each of the last four": right[:, -4:].all(1),
            "in all frames": right.all(1),
            "direction": torch.tensor([direction_of(f) == clip.direction for f, clip in pairs]),
        }
        shares = {name: asdict(share(int(h.sum()), given.count)) for name, h in hits.items()}
        told[key] = {**shares, "processor seconds a video, in batches": round(seconds, 4)}
    runs = {key: lambda pipe=pipe: make(pipe, 0, 1) for key, pipe in pipes.items()}
    in_turn(runs, device="cpu", rounds=2)
    for key, took in in_turn(runs, device="cpu", rounds=7).items():
        told[key]["seconds of one video"] = round(quantile(took, 0.5), 4)
    given.out.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told, indent=1))


def main() -> None:
    """Train or judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("train", "judge"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--pool", type=int, default=40)
    given = parser.parse_args()
    {"train": train, "judge": judge}[given.part](given)


if __name__ == "__main__":
    main()
