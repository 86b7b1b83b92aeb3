"""The shipped model with a head in one pass, learned from its own; both before the judge.

    python -m benchmarks.distilled train --out RUN [--head mean_flow] [--steps 400] [--width 192]
    python -m benchmarks.distilled judge --out FILE [--model RUN/model] [--count 100] [--sets 4 2 1]
    python -m benchmarks.distilled where --out FILE [--model RUN/model]

The first teaches a mean flow (or a flow map) what the model's own head draws by default, but at
temperature 1, on the conditions of training clips, and saves a pipeline. The second has both, and
the model as `fast` asks it, make the same prompts from the same seeds and writes JSON: shares with
their 95% intervals, differences over the pairs with theirs, and a processor's seconds for a video
in batches of 25. The third says where the time of a video goes, in milliseconds of the processor:
what is outside the head is what a head of no cost would leave.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from contar.evaluation import share
from contar.generation import fast_changes
from contar.training import RunConfig
from recipes import nova
from recipes._nova.distilling import HeadStage, train_head
from recipes.moving_digits import (
    FPS,
    SHARES,
    BouncingDigits,
    digits_latents,
    direction_of,
    load_judge,
)

SEED, BATCH = 77, 25
OLD = {  # the default of its first months
    "sets": 16, "diffusion_steps": 25, "scheduler": None, "temperature": 1.0,
    "guidance": nova.Guidance(1.75, renorm_over="frame"),
}  # fmt: skip


def train(given: argparse.Namespace) -> None:
    """Teach the head; save RUN/model."""
    pipe = nova.from_pretrained("moving-digits", dtype=torch.float32)
    digits = BouncingDigits("train", given.clips)
    unknown = torch.full((given.clips,), float("nan"))
    latents = digits_latents(
        digits, pipe.vae, pipe.tokenizer, pipe.text_encoder, given.out / "latents",
        scores=lambda: unknown, length=pipe.transformer.sizes.text_length, fps=float(FPS),
    )  # fmt: skip
    run = RunConfig(steps=given.steps, batch=8, learning_rate=given.rate, warmup=50)
    stage = HeadStage(run, repeats=given.repeats, pool=given.pool, shares=SHARES)
    head = {"name": given.head, "steps": given.passes, "width": given.width}
    network = train_head(stage, head, pipe, latents, given.out / "head", resume=False)
    defaults = {**pipe.config["defaults"], "guidance_scale": 1.0, "temperature": 1.0}
    kept = {"defaults": defaults, "text_package": pipe.config["text_package"]}
    parts = {**pipe.components, **kept, "transformer": network}
    nova.NovaPipeline(**parts).save_pretrained(given.out / "model")


def judge(given: argparse.Namespace) -> None:
    """Have the models make the same videos; write what the judge says."""
    asked = BouncingDigits("validation", given.count, seed=given.seed)
    clips, judge = [asked[i] for i in range(given.count)], load_judge()
    told: dict[str, Any] = {"count": given.count, "seed": given.seed}
    told |= {"threads": torch.get_num_threads(), "torch": torch.__version__}
    first: dict[str, Tensor] = {}
    for key, (pipe, options) in _rows(given).items():
        start, made = time.process_time(), []
        for row in range(0, given.count, BATCH):
            rows = range(row, min(row + BATCH, given.count))
            draws = [torch.Generator().manual_seed(given.seed + i) for i in rows]
            out: Any = pipe([clips[i].caption for i in rows], generator=draws, **options)
            made.append(torch.from_numpy(out.frames))
        seconds = (time.process_time() - start) / given.count
        pairs = list(zip(torch.cat(made), clips, strict=True))
        right = torch.stack([judge.digits(frames) == clip.digit for frames, clip in pairs])
        hits = {
            "digit in most frames": right.float().mean(1) > 0.5,
            "in each of the last four": right[:, -4:].all(1),
            "in all frames": right.all(1),
            "direction": torch.tensor([direction_of(f) == clip.direction for f, clip in pairs]),
        }
        first = first or hits
        shares = {
            name: {**asdict(share(int(h.sum()), given.count)), "gain": gained(first[name], h)}
            for name, h in hits.items()
        }
        told[key] = {**shares, "processor seconds a video, in batches": round(seconds, 4)}
        print(key, told[key], flush=True)
        given.out.write_text(json.dumps(told, indent=1) + "\n")


def gained(before: Tensor, after: Tensor) -> list[float]:
    """Return the gain in points of 100 and half of its 95% interval, over pairs.

    With one pair more that lost and one that gained (Agresti and Min 2005).
    """
    changes = (100.0 * (after.float() - before.float())).tolist()
    reach = 1.96 * statistics.stdev([*changes, 100.0, -100.0]) / math.sqrt(len(changes) + 2)
    return [round(statistics.mean(changes), 2), round(reach, 2)]


def where(given: argparse.Namespace) -> None:
    """Write each part's milliseconds of a video, by the processor's clock; medians of rounds."""
    told: dict[str, Any] = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    for count, rounds in ((1, 7), (16, 3)):
        for key, (pipe, options) in _rows(given, old=True).items():
            taken = [_parts(pipe, count, options) for _ in range(1 + rounds)][1:]
            middle = sorted(taken, key=lambda parts: parts["all"])[rounds // 2]
            told[f"{key}, batches of {count}"] = middle
            print(key, count, middle, flush=True)
    given.out.write_text(json.dumps(told, indent=1) + "\n")


def _parts(pipe: nova.NovaPipeline, count: int, options: dict[str, Any]) -> dict[str, float]:
    network = pipe.transformer
    parts = {
        "text": (pipe.text_encoder, "forward"),
        "temporal": (network.temporal, "forward"),
        "spatial": (network.spatial, "forward"),
        "head": (network.head, "sample"),
        "VAE": (pipe.vae, "decode"),
    }
    prompts = ["a seven moves to the left"] * count
    with _metered(parts) as seconds:
        start = time.process_time()
        pipe(prompts, generator=torch.Generator().manual_seed(0), **options)
        whole = time.process_time() - start
    seconds |= {"other": whole - sum(seconds.values()), "all": whole}
    return {name: round(1e3 * took / count, 2) for name, took in seconds.items()}


@contextmanager
def _metered(parts: dict[str, tuple[Any, str]]) -> Iterator[dict[str, float]]:
    sums = dict.fromkeys(parts, 0.0)

    def meter(name: str, function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            before = time.process_time()
            result = function(*arguments, **options)
            sums[name] += time.process_time() - before
            return result

        return call

    for name, (owner, method) in parts.items():
        setattr(owner, method, meter(name, getattr(owner, method)))
    try:
        yield sums
    finally:
        for owner, method in parts.values():
            delattr(owner, method)


def _rows(
    given: argparse.Namespace, *, old: bool = False
) -> dict[str, tuple[nova.NovaPipeline, dict[str, Any]]]:
    """Return what is compared: pipelines with options of their calls, the default first."""
    pipe = nova.from_pretrained("moving-digits", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    sets = pipe.config["defaults"]["num_inference_steps"]
    fast = fast_changes(pipe.scheduler, sets)
    rows: dict[str, tuple[nova.NovaPipeline, dict[str, Any]]] = {"default": (pipe, {})}
    if old:
        rows["16 sets of 25 steps"] = (pipe, {"plan_changes": OLD})
    rows |= {
        f"fast, {count} sets": (pipe, {"plan_changes": {**fast, "sets": count}})
        for count in given.sets
    }
    for folder in given.model:
        other = nova.from_pretrained(str(folder), dtype=torch.float32)
        other.set_progress_bar_config(disable=True)
        name = folder.parent.name if len(given.model) > 1 else "distilled"
        rows |= {
            f"{name}, {count} sets": (other, {"num_inference_steps": count}) for count in given.sets
        }
    return rows


def main() -> None:
    """Train, judge or say where the time goes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("train", "judge", "where"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, nargs="*", default=())
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--sets", type=int, nargs="+", default=(4,))
    parser.add_argument("--head", choices=("mean_flow", "flow_map"), default="mean_flow")
    parser.add_argument("--passes", type=int, default=1)
    parser.add_argument("--clips", type=int, default=512)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--pool", type=int, default=40)
    given = parser.parse_args()
    {"train": train, "judge": judge, "where": where}[given.part](given)


if __name__ == "__main__":
    main()
