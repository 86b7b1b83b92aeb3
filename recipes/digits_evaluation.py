"""A pipeline of moving digits before the judges: its model card's figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from contar._errors import check_count
from contar._typing import Tensor, UInt8
from contar.data import BouncingDigits, MovingDigits
from contar.evaluation import Abilities, DigitJudge, Reader, Report, evaluate, real, train_judge
from contar.tokenizers.vae import VAETokenizer
from recipes import nova
from recipes.moving_digits import build

FRAMES = 17


def abilities_of(pipe: nova.NovaPipeline, **settings: Any) -> Abilities:
    """Return what a pipeline is able to; clip i of a call is drawn from its seed + i alone.

    Args:
        pipe: of moving digits.
        settings: of every call.
    """
    pipe.set_progress_bar_config(disable=True)

    def make(captions: Sequence[str], seed: int, **options: Any) -> UInt8[Tensor, "b t h w 3"]:
        generators = [torch.Generator().manual_seed(seed + i) for i in range(len(captions))]
        options = {"num_frames": FRAMES, "generator": generators, **settings, **options}
        out = pipe(list(captions), **options)
        return torch.from_numpy(out.frames)

    def reconstruct(clips: UInt8[Tensor, "b t h w 3"]) -> UInt8[Tensor, "b t h w 3"]:
        tokenizer = VAETokenizer(pipe.vae)
        pixels = clips.permute(0, 4, 1, 2, 3).to(pipe.vae.device) / 127.5 - 1
        again = tokenizer.decode(tokenizer.encode(pixels)).cpu().permute(0, 2, 3, 4, 1)
        return again.mul(127.5).add(127.5).clamp(0, 255).round().byte()

    return Abilities(
        text_to_video=lambda captions, seed, motion: make(captions, seed, motion_flow=motion),
        image_to_video=lambda first, captions, seed: make(captions, seed, image=first),
        continuation=lambda first, captions, seed: make(captions, seed, video=first),
        reconstruct=reconstruct,
    )


def evaluate_pipeline(
    pipe: nova.NovaPipeline,
    out: Path,
    *,
    count: int = 200,
    seed: int = 1000,
    judge_steps: int = 500,
    bouncing: bool = False,
) -> Report:
    """Judge a pipeline, real clips and an untrained network alike; write JSON and a picture.

    Args:
        pipe: of moving digits.
        out: folder for `scores.json`, `scores.png` and the judge, which is trained if not there.
        count: test clips asked for, 2 or more, by phrasings that training never saw.
        seed: of the clips; model cards take it, nothing is tuned on it.
        judge_steps: of the judge's training.
        bouncing: ask with clips of `BouncingDigits`, on which `contar train moving-digits` trains;
            the model that contar carries was trained on `MovingDigits`.

    Raises:
        ValueError: a number outside its range, before anything is made.
        ImportError: an extra is missing; "contar[demo,eval,video]" has all.
    """
    check_count("count", count, 2)
    digits = BouncingDigits if bouncing else MovingDigits
    asked = digits("test", count, seed=seed)
    reference = digits("test", count, seed=seed + 1)
    out.mkdir(parents=True, exist_ok=True)
    file = out / "judge.safetensors"
    judge = DigitJudge.load(file) if file.exists() else train_judge(steps=judge_steps)
    judge.save(file)
    network = pipe.transformer
    untrained = build(network.sizes).to(network.device, network.dtype).eval()
    raw = nova.NovaPipeline(
        untrained, pipe.vae, pipe.scheduler, pipe.text_encoder, pipe.tokenizer,
        defaults=pipe.config["defaults"],
    )  # fmt: skip
    models = {
        "model": abilities_of(pipe),
        "real clips": real(asked, seed=seed),
        "untrained": abilities_of(raw),
    }
    scores = {
        name: evaluate(
            abilities, asked, judge, reader=_reader(), reference=reference, seed=seed,
            notes={"model": name}, progress=True,
        )
        for name, abilities in models.items()
    }  # fmt: skip
    report = Report(scores)
    report.save(out)
    return report


def _reader() -> Reader | None:
    try:
        return Reader()
    except ImportError:  # the extra `eval`
        return None
