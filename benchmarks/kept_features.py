"""What keeping features across sets (`refresh`) costs in quality, at 256 tokens a picture.

    python -m benchmarks.kept_features --out FOLDER [--steps 6000] [--pictures 500]

Trains a small MAR on handwriting of 32 x 32 pixels in patches of 2, in saves that a second call
goes on from; then draws the same digits from the same noise exactly, with kept features, and in
fewer sets, and has the judge of moving-digits read them. Most are broken after so short a training:
"digit" is strict, "likeliest" does not ask whether the strokes hold together. Writes
FOLDER/kept-features.json and a sheet of pictures.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from contar.cpu import speed_up
from contar.evaluation import share
from contar.media import save_sheet
from contar.training import RunConfig, train
from recipes import mar
from recipes.moving_digits import DigitJudge, frechet_frames, load_digits, load_judge

SCALE, NOISE = 0.6, 0.03  # of pixels in [-1, 1]; constant ones have no density
PLAN = mar.GenerationPlan(sets=64, diffusion_steps=10, guidance=mar.Guidance(3.0), temperature=0.5)
CONFIG = mar.MarConfig(
    encoder=mar.Tower(3, 96, 4), decoder=mar.Tower(2, 96, 4),
    latent=(32, 32), channels=1, patch=2, classes=10, buffer=4,
    head={"name": "flow", "width": 96, "depth": 2},
)  # fmt: skip


class Objective(nn.Module):
    """MAR's losses of pictures and labels, drawn by a seed of the step."""

    def __init__(self, model: mar.Mar) -> None:
        super().__init__()
        self.model = model

    def forward(self, pictures: Tensor, labels: Tensor, seed: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        return {"loss": mar.training_losses(
            self.model, pictures, labels, repeats=1, generator=generator
        ).total}  # fmt: skip


def load(indices: Sequence[int], step: int | str) -> tuple[Tensor, Tensor, int]:
    """Return pictures [b, 1, 32, 32] about their place, labels [b], and the step's seed."""
    digits, rows = load_digits("train"), torch.tensor(indices)
    generator = torch.Generator().manual_seed(int(step))
    around = functional.pad(digits.pictures[rows].float() / 127.5 - 1, (2, 2, 2, 2), value=-1.0)
    moves = torch.randint(-1, 2, (len(rows), 2), generator=generator).tolist()
    moved = [x.roll(by, (0, 1)) for x, by in zip(around, moves, strict=True)]
    pictures = torch.stack(moved)[:, None]
    pictures = pictures + NOISE * torch.randn(pictures.shape, generator=generator)
    return pictures / SCALE, digits.labels[rows], int(step)


def frames(latents: Tensor) -> Tensor:
    """Return what the judge reads: uint8 [n, 64, 64, 3], the picture in the middle."""
    grey = ((latents[:, 0] * SCALE).clamp(-1, 1).add(1) * 127.5).round().byte()
    return functional.pad(grey, (16, 16, 16, 16))[..., None].expand(-1, -1, -1, 3).contiguous()


@torch.no_grad()
def likeliest(judge: DigitJudge, seen: Tensor) -> Tensor:
    """Return the digit of frames that a judge finds likeliest, however broken it is, [n]."""
    return judge.head(judge.features(seen).relu())[:, :10].argmax(1)


def drawn(model: mar.Mar, labels: Tensor, seed: int, **changes: Any) -> tuple[Tensor, float]:
    """Return a picture of each label from noise of its own, [n, 1, 32, 32], and the seconds."""
    plan = replace(PLAN, **changes)
    made, start = [], time.process_time()
    for first in range(0, len(labels), 50):
        some = labels[first : first + 50]
        generators = [torch.Generator().manual_seed(seed + first + i) for i in range(len(some))]
        made.append(mar.generate(model, some, plan, generator=generators))
    return torch.cat(made), time.process_time() - start


def main() -> None:
    """Train, draw, judge, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3500)
    parser.add_argument("--pictures", type=int, default=400)
    given = parser.parse_args()
    config = RunConfig(steps=given.steps, batch=32, learning_rate=1.5e-3, warmup=200, ema=0.998)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        objective = Objective(mar.build(CONFIG))
    count = len(load_digits("train").labels)
    trained: Any = train(objective, load, config, given.out / "run", count=count, resume=True)
    model, judge, digits = speed_up(trained.model).eval(), load_judge(), load_digits("test")
    labels = torch.arange(given.pictures) % 10
    real = frames(
        functional.pad(digits.pictures.float() / 127.5 - 1, (2,) * 4, value=-1.0)[:, None] / SCALE
    )
    rows, shown, exact = [], [], None
    for name, changes in {
        "exact": {}, "refresh=2": {"refresh": 2}, "refresh=4": {"refresh": 4},
        "refresh=8": {"refresh": 8}, "32 sets": {"sets": 32}, "16 sets": {"sets": 16},
    }.items():  # fmt: skip
        pictures, seconds = drawn(model, labels, 0, **changes)
        seen = frames(pictures)
        right, strict = likeliest(judge, seen) == labels, judge.digits(seen) == labels
        exact = right if exact is None else exact
        rows.append({
            "option": name, "seconds": seconds / len(labels),
            "likeliest": asdict(share(int(right.sum()), len(labels))),
            "digit": asdict(share(int(strict.sum()), len(labels))),
            "lost": int((exact & ~right).sum()), "won": int((right & ~exact).sum()),
            "distance": frechet_frames(judge, real, seen),
        })  # fmt: skip
        print(rows[-1], flush=True)
        shown.append(seen[:20, 16:48, 16:48, :1].permute(3, 0, 1, 2) / 255)
        settings = {
            "steps": given.steps,
            "sets": PLAN.sets,
            "guidance": PLAN.guidance.scale,
            "temperature": PLAN.temperature,
        }
        told = {"settings": {**settings, "torch": torch.__version__}, "rows": rows}
        (given.out / "kept-features.json").write_text(json.dumps(told, indent=1) + "\n")
    sheet = torch.stack(shown)
    save_sheet(sheet, given.out / "kept-features.png", labels=[row["option"] for row in rows])


if __name__ == "__main__":
    main()
