"""A look at a model of moving digits just after its training: sheets, and what a judge sees."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from contar._random import seeded
from contar._typing import Float, Int, Tensor, UInt8
from contar.conditioning import encode_texts
from contar.media import pixels_to_frames, save_sheet
from contar.tokenizers import VAETokenizer
from recipes import nova
from recipes.moving_digits.data import BouncingDigits
from recipes.moving_digits.judges import DigitJudge, direction_of
from recipes.moving_digits.model import LONGER, OVERLAP

_SHOWN, _BESIDE, _SEED = 40, 20, 7


def glance(
    pipe: nova.NovaPipeline, judge: DigitJudge, out: Path, *, count: int = 100
) -> dict[str, Any]:
    """Generate videos of validation captions; write `glance.json` and sheets; return the figures.

    Clips of three times the trained length are made in chunks, each from the last frames of the
    one before.

    Args:
        pipe: of moving digits.
        judge: of digits.
        out: folder, made if it is not there.
        count: videos.
    """
    out.mkdir(parents=True, exist_ok=True)
    digits = BouncingDigits("validation", count, seed=_SEED)
    asked = [digits[i] for i in range(count)]
    plan, texts = _plan(pipe), _texts(pipe, [clip.caption for clip in asked])
    began = time.monotonic()
    frames = _decode(pipe, _generate(pipe, plan, texts))
    seconds, wanted = time.monotonic() - began, torch.tensor([clip.digit for clip in asked])
    real = torch.stack([clip.frames for clip in asked])
    figures: dict[str, Any] = {"count": count, "seconds": seconds}
    for name, clips in (("model", frames), ("real", real)):
        ways = [direction_of(clip) == a.direction for clip, a in zip(clips, asked, strict=True)]
        figures[name] = {**_right(judge, clips, wanted), "direction": sum(ways) / count}
    length = LONGER * (plan.frames - 1) + 1
    chunked = replace(plan, frames=length, chunk=plan.frames, overlap=OVERLAP)
    longer = _decode(pipe, _generate(pipe, chunked, texts))
    figures["longer"] = _right(judge, longer, wanted)
    _sheet(frames[:_SHOWN], asked, out / "sheet.png")
    _sheet(real[:_BESIDE], asked, out / "real.png")
    _sheet(longer[:_BESIDE], asked, out / "longer.png")
    (out / "glance.json").write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def _right(
    judge: DigitJudge, clips: UInt8[Tensor, "n t h w 3"], wanted: Int[Tensor, " n"]
) -> dict[str, Any]:
    device = judge.head.weight.device
    seen = judge.digits(clips.flatten(0, 1).to(device)).view(clips.shape[:2]).cpu()
    right = seen == wanted[:, None]
    return {
        "majority": float((2 * right.sum(1) > right.shape[1]).float().mean()),
        "last four": float(right[:, -4:].all(1).float().mean()),
        "all frames": float(right.all(1).float().mean()),
        "by frame": [round(float(share), 3) for share in right.float().mean(0)],
    }


def _plan(pipe: nova.NovaPipeline) -> nova.GenerationPlan:
    defaults = pipe.config["defaults"]
    return nova.GenerationPlan(
        frames=pipe.transformer.sizes.frames,
        sets=defaults["num_inference_steps"],
        diffusion_steps=defaults["num_diffusion_steps"],
        guidance=nova.Guidance(defaults["guidance_scale"], renorm_over="frame"),
        scheduler={**pipe.scheduler.config, "_class_name": type(pipe.scheduler).__name__},
    )


def _texts(pipe: nova.NovaPipeline, captions: Sequence[str]) -> list[Tensor]:
    length, device = pipe.transformer.sizes.text_length, pipe.transformer.device
    states = encode_texts(captions, pipe.tokenizer, pipe.text_encoder, length=length)
    return [state.to(device, pipe.transformer.dtype) for state in states]


def _generate(
    pipe: nova.NovaPipeline,
    plan: nova.GenerationPlan,
    texts: list[Tensor],
) -> Float[Tensor, "b c t h w"]:
    defaults = pipe.config["defaults"]
    return nova.generate(
        pipe.transformer, texts, plan,
        motion_flow=defaults["motion_flow"], fps=defaults["fps"], generator=seeded(_SEED, "glance"),
    )  # fmt: skip


def _decode(pipe: nova.NovaPipeline, latents: Tensor) -> UInt8[Tensor, "b t h w 3"]:
    return pixels_to_frames(VAETokenizer(pipe.vae).decode(latents)).cpu()


def _sheet(clips: UInt8[Tensor, "n t h w 3"], asked: Sequence[Any], path: Path) -> None:
    """Write a row for each clip: the first frame, the middle, the last four."""
    last = clips.shape[1] - 1
    rows = clips[:, [0, last // 4, last // 2, last - 3, last - 2, last - 1, last]]
    labels = [clip.caption for clip in asked[: len(clips)]]
    save_sheet(rows.permute(0, 4, 1, 2, 3).float() / 255, path, labels=labels)
