"""A look at a model of moving digits just after its training: sheets, and what a judge sees."""

import json
import time
from pathlib import Path
from typing import Any

import torch

from contar._random import seeded
from contar._typing import Int, Tensor, UInt8
from contar.media import pixels_to_frames, save_sheet
from contar.tokenizers import VAETokenizer
from recipes import nova
from recipes.moving_digits.data.bouncing import BouncingDigits
from recipes.moving_digits.judges.judge import DigitJudge
from recipes.moving_digits.judges.tracking import direction_of
from recipes.moving_digits.model import LONGER, OVERLAP

_SHOWN, _BESIDE, _SEED = 40, 20, 7


def glance(
    pipe: nova.NovaPipeline, judge: DigitJudge, out: Path, *, count: int = 100
) -> dict[str, Any]:
    """Generate `count` videos of validation captions, and the like of three times their length.

    These are made in chunks, each from the last frames of the one before. The figures are returned
    and written to `out`, as `glance.json`, beside sheets: of each clip the first frame, two on the
    way and the last four.
    """
    out.mkdir(parents=True, exist_ok=True)
    digits = BouncingDigits("validation", count, seed=_SEED)
    asked = [digits[i] for i in range(count)]
    captions, real = [clip.caption for clip in asked], torch.stack([clip.frames for clip in asked])
    wanted = torch.tensor([clip.digit for clip in asked])
    pipe.set_progress_bar_config(disable=True)

    def generate(**options: Any) -> UInt8[Tensor, "b t h w 3"]:
        options |= {"generator": seeded(_SEED, "glance"), "output_type": "latent"}
        latents = pipe(captions, **options).frames
        return pixels_to_frames(VAETokenizer(pipe.vae).decode(latents)).cpu()

    began = time.monotonic()
    frames = generate()
    figures: dict[str, Any] = {"count": count, "seconds": time.monotonic() - began}
    for name, clips in (("model", frames), ("real", real)):
        ways = [direction_of(clip) == a.direction for clip, a in zip(clips, asked, strict=True)]
        figures[name] = {**_right(judge, clips, wanted), "direction": sum(ways) / count}
    chunks = {"chunk": pipe.transformer.sizes.frames, "overlap": OVERLAP}
    longer = generate(num_frames=LONGER * (frames.shape[1] - 1) + 1, plan_changes=chunks)
    figures["longer"] = _right(judge, longer, wanted)
    sheets = {"sheet": frames[:_SHOWN], "real": real[:_BESIDE], "longer": longer[:_BESIDE]}
    for name, clips in sheets.items():
        last = clips.shape[1] - 1
        rows = clips[:, [0, last // 4, last // 2, last - 3, last - 2, last - 1, last]]
        shown = rows.permute(0, 4, 1, 2, 3).float() / 255
        save_sheet(shown, out / f"{name}.png", labels=captions[: len(clips)])
    (out / "glance.json").write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def _right(
    judge: DigitJudge, clips: UInt8[Tensor, "n t h w 3"], wanted: Int[Tensor, " n"]
) -> dict[str, Any]:
    seen = judge.digits(clips.flatten(0, 1)).view(clips.shape[:2]).cpu()
    right = seen == wanted[:, None]
    return {
        "majority": float((2 * right.sum(1) > right.shape[1]).float().mean()),
        "last four": float(right[:, -4:].all(1).float().mean()),
        "all frames": float(right.all(1).float().mean()),
        "by frame": [round(float(share), 3) for share in right.float().mean(0)],
    }
