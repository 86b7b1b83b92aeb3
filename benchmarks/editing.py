"""How well the shipped model edits handwriting that it never saw.

    python benchmarks/editing.py PART --out FILE [--grow 1] [--count 200]

PART "half": the lower half of a picture is hidden, and the prompt names its digit. "swap": in each
frame of a video the 28 pixels square around the digit are hidden, and the prompt is the clip's
with another digit. FILE is JSON; figures of other parts and growths that it holds stay.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from contar.evaluation import share
from contar.media import frames_to_pixels, pixels_to_frames
from contar.tokenizers import VAETokenizer
from recipes import nova
from recipes._nova.pixels import read_edit
from recipes._nova.settings import read_plan
from recipes.moving_digits import BouncingDigits, DigitJudge, caption, direction_of, load_judge

SEED = 3000  # of clips and noise, on which no setting was chosen
BATCH = 20


def seeded(numbers: Sequence[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(SEED + i) for i in numbers]


def told(hits: Sequence[bool]) -> dict[str, Any]:
    """Return a share with its 95% interval."""
    return asdict(share(sum(hits), len(hits)))


def grey_levels(frames: Tensor, wanted: Tensor, where: Tensor) -> float:
    """Return the root of the mean square by which pixels are off, of 255."""
    return float((frames.float() - wanted.float())[:, where].square().mean().sqrt())


def half(pipe: nova.NovaPipeline, judge: DigitJudge, count: int, grow: int) -> dict[str, Any]:
    """Complete pictures whose lower half is hidden."""
    digits = BouncingDigits("test", count, seed=SEED)
    clips = [digits[i] for i in range(count)]
    real, wanted = torch.stack([c.frames[0] for c in clips]), [c.digit for c in clips]
    side, mask = real.shape[1], torch.zeros(real.shape[1:3], dtype=torch.bool)
    mask[side // 2 :] = True
    made = []
    for start in range(0, count, BATCH):
        rows = range(start, min(start + BATCH, count))
        prompts = [clips[i].caption for i in rows]
        options: dict[str, Any] = {"num_frames": 1, "generator": seeded(rows)}
        out = pipe(prompts, image=real[rows[0] : rows[-1] + 1], mask=mask, grow=grow, **options)
        made.append(torch.from_numpy(out.frames)[:, 0])
    frames = torch.cat(made)
    tokenizer, token = VAETokenizer(pipe.vae), pipe.transformer.sizes.patch * 8
    again = pixels_to_frames(tokenizer.decode(tokenizer.encode(frames_to_pixels(real[:, None]))))
    kept = torch.zeros_like(mask)
    kept[: side // 2 - grow * token] = True
    result: dict[str, Any] = {
        name: told((judge.digits(x) == torch.tensor(wanted)).tolist())
        for name, x in (("digit", frames), ("digit of what is given", real))
    }
    for name, where in (("kept tokens", kept), ("black", ~mask)):
        result[f"off in {name}"] = grey_levels(frames, real, where)
        result[f"tokenizer off in {name}"] = grey_levels(again[:, 0], real, where)
    return result


def swap(pipe: nova.NovaPipeline, judge: DigitJudge, count: int, grow: int) -> dict[str, Any]:
    """Put another digit in the place of one that moves."""
    digits = BouncingDigits("test", count, seed=SEED)
    right, way, real, kept = [], [], [], []
    plan = nova.GenerationPlan(frames=pipe.transformer.sizes.frames, sets=1)
    settings, blank = read_plan(pipe.transformer, plan), torch.zeros(1, 3, 17, 64, 64)
    for i in range(count):
        clip = digits[i]
        other = (clip.digit + 1 + i % 9) % 10
        hidden = square(clip.frames[..., 0] > 0)
        edit = read_edit(blank, hidden, (0, 0, 0, 0), VAETokenizer(pipe.vae), settings, grow)
        kept.append(float(edit.keep.flatten(1).sum(1).float().mean()))  # type: ignore[union-attr]
        phrasing = int(torch.randint(5, (), generator=seeded([i])[0]))
        prompt = caption(other, clip.direction, None, choose=lambda n, k=phrasing: k % n, test=True)
        made = pipe(prompt, video=clip.frames, mask=hidden, grow=grow, generator=seeded([i])).frames
        frames = torch.from_numpy(made[0])
        right.append(int(judge.majority(frames[None])) == other)
        way.append(direction_of(frames) == clip.direction)
        real.append(direction_of(clip.frames) == clip.direction)
    hits = {"new digit": right, "direction": way, "direction of what is given": real}
    figures: dict[str, Any] = {name: told(column) for name, column in hits.items()}
    return {**figures, "kept tokens of a frame": sum(kept) / count}


def square(seen: Tensor, side: int = 28) -> Tensor:
    """Return [t, h, w], True in a square in the middle of what is seen in each frame."""
    hidden = torch.zeros_like(seen)
    for white, frame in zip(hidden, seen, strict=True):
        y, x = frame.nonzero(as_tuple=True)
        top, left = (max(0, int(z.min() + z.max() + 1 - side) // 2) for z in (y, x))
        white[top : top + side, left : left + side] = True
    return hidden


def main() -> None:
    parts = {"half": half, "swap": swap}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=parts)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--grow", type=int, default=1)
    parser.add_argument("--count", type=int, default=200)
    asked = parser.parse_args()
    pipe = nova.from_pretrained("moving-digits", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    result = parts[asked.part](pipe, load_judge(), asked.count, asked.grow)
    every = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    every[f"{asked.part}, grow {asked.grow}"] = result
    asked.out.write_text(json.dumps(every, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
