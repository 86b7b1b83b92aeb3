"""A look at a model of moving digits just after its training: a sheet, and what a judge sees."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from contar._random import seeded
from contar._typing import Float, Int, Tensor, UInt8
from contar.conditioning import encode_texts
from contar.data import MovingDigits
from contar.evaluation import DigitJudge, direction_of
from contar.media import save_sheet
from contar.tokenizers.vae import VAETokenizer
from recipes import nova

OVERLAP = 2  # latent frames from which a longer clip goes on


def glance(
    pipe: nova.NovaPipeline,
    judge: DigitJudge,
    out: Path,
    *,
    count: int = 100,
    shown: int = 40,
    longer: int = 3,
    seed: int = 7,
    **changes: Any,
) -> dict[str, Any]:
    """Generate videos of validation captions; write `glance.json` and sheets; return the figures.

    Args:
        pipe: of moving digits.
        judge: of digits.
        out: folder, made if it is not there.
        count: videos.
        shown: of them on the sheets, with real clips on one of their own.
        longer: times the trained length of a second generation, in chunks; 1 leaves it out.
        seed: of clips and draws.
        changes: fields of the plan, such as `guidance` and `context_noise`.
    """
    out.mkdir(parents=True, exist_ok=True)
    digits = MovingDigits("validation", count, seed=seed)
    asked, drawn = [digits[i] for i in range(count)], digits.draw(range(count))
    plan, latents = _plan(pipe, changes), pipe.transformer.sizes.frames
    texts, began = _texts(pipe, [clip.caption for clip in asked]), time.monotonic()
    made = _generate(pipe, plan, texts, latents, seed)
    frames = _decode(pipe, made)
    seconds, wanted = time.monotonic() - began, torch.tensor([clip.digit for clip in asked])
    real = torch.stack([clip.frames for clip in asked])
    figures: dict[str, Any] = {"count": count, "seconds": seconds}
    for name, clips in (("model", frames), ("real", real)):
        ways = [direction_of(clip) == a.direction for clip, a in zip(clips, asked, strict=True)]
        figures[name] = {**_right(judge, clips, wanted), "direction": sum(ways) / count}
    _sheet(frames[:shown], asked, out / "sheet.png")
    _sheet(real[: min(shown, 20)], asked, out / "real.png")
    if longer > 1:
        long = _longer(pipe, plan, texts, made, longer * latents - (longer - 1), seed)
        frames = _decode(pipe, long)
        figures["longer"] = _right(judge, frames, wanted)
        _sheet(frames[: min(shown, 20)], asked, out / "longer.png")
    figures["begins"] = bool(drawn.begins.all())
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


def _plan(pipe: nova.NovaPipeline, changes: dict[str, Any]) -> nova.GenerationPlan:
    defaults = pipe.config["defaults"]
    scheduler = {**pipe.scheduler.config, "_class_name": type(pipe.scheduler).__name__}
    scale = changes.pop("guidance", defaults["guidance_scale"])
    return nova.GenerationPlan(
        **{
            "sets": defaults["num_inference_steps"],
            "diffusion_steps": defaults["num_diffusion_steps"],
            "guidance": nova.Guidance(scale, renorm_over="frame"),
            "scheduler": scheduler,
            **changes,
        }
    )


def _texts(pipe: nova.NovaPipeline, captions: Sequence[str]) -> list[Tensor]:
    length, device = pipe.transformer.sizes.text_length, pipe.transformer.device
    states = encode_texts(captions, pipe.tokenizer, pipe.text_encoder, length=length)
    return [state.to(device, pipe.transformer.dtype) for state in states]


def _generate(
    pipe: nova.NovaPipeline,
    plan: nova.GenerationPlan,
    texts: list[Tensor],
    frames: int,
    seed: int,
    context: Tensor | None = None,
) -> Float[Tensor, "b c t h w"]:
    from dataclasses import replace

    defaults = pipe.config["defaults"]
    return nova.generate(
        pipe.transformer, texts, replace(plan, frames=frames), context=context,
        motion_flow=defaults["motion_flow"], fps=defaults["fps"], generator=seeded(seed, "glance"),
    )  # fmt: skip


def _longer(
    pipe: nova.NovaPipeline,
    plan: nova.GenerationPlan,
    texts: list[Tensor],
    made: Tensor,
    frames: int,
    seed: int,
) -> Float[Tensor, "b c t h w"]:
    """Go on from the last frames, chunk after chunk."""
    chunk = made.shape[2]
    while made.shape[2] < frames:
        context = made[:, :, -OVERLAP:]
        more = _generate(pipe, plan, texts, chunk, seed + made.shape[2], context)
        made = torch.cat([made, more[:, :, OVERLAP:]], dim=2)
    return made[:, :, :frames]


def _decode(pipe: nova.NovaPipeline, latents: Tensor) -> UInt8[Tensor, "b t h w 3"]:
    pixels = VAETokenizer(pipe.vae).decode(latents).permute(0, 2, 3, 4, 1)
    return pixels.mul(127.5).add(127.5).clamp(0, 255).round().byte().cpu()


def _sheet(clips: UInt8[Tensor, "n t h w 3"], asked: Sequence[Any], path: Path) -> None:
    """Write a row for each clip: the first frame, the middle, the last four."""
    last = clips.shape[1] - 1
    rows = clips[:, [0, last // 4, last // 2, last - 3, last - 2, last - 1, last]]
    labels = [clip.caption for clip in asked[: len(clips)]]
    save_sheet(rows.permute(0, 4, 1, 2, 3).float() / 255, path, labels=labels)
