"""A pipeline of moving digits before the judges: its model card's figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from contar._errors import check_count
from contar._typing import Tensor, UInt8
from contar.evaluation import Report
from contar.generation import fast_changes
from contar.media import frames_to_pixels, pixels_to_frames
from contar.tokenizers import VAETokenizer
from recipes import nova
from recipes.moving_digits.data.bouncing import BouncingDigits
from recipes.moving_digits.data.moving import FRAMES
from recipes.moving_digits.evaluation.abilities import Abilities, real
from recipes.moving_digits.evaluation.figures import FIGURES
from recipes.moving_digits.evaluation.scoring import evaluate
from recipes.moving_digits.judges.judge import load_judge
from recipes.moving_digits.judges.reader import Reader
from recipes.moving_digits.model import LONGER, OVERLAP, build


def abilities_of(pipe: nova.NovaPipeline, **settings: Any) -> Abilities:
    """Return what a pipeline of moving digits is able to, called with `settings`.

    Clip i of a call is drawn from its seed + i alone.
    """
    pipe.set_progress_bar_config(disable=True)

    def make(captions: Sequence[str], seed: int, **options: Any) -> UInt8[Tensor, "b t h w 3"]:
        generators = [torch.Generator().manual_seed(seed + i) for i in range(len(captions))]
        options = {"num_frames": FRAMES, "generator": generators, **settings, **options}
        out = pipe(list(captions), **options)
        return torch.from_numpy(out.frames)

    def reconstruct(clips: UInt8[Tensor, "b t h w 3"]) -> UInt8[Tensor, "b t h w 3"]:
        tokenizer = VAETokenizer(pipe.vae)
        pixels = frames_to_pixels(clips.to(pipe.vae.device))
        return pixels_to_frames(tokenizer.decode(tokenizer.encode(pixels))).cpu()

    chunks = {"chunk": pipe.transformer.sizes.frames, "overlap": OVERLAP}
    chunks |= settings.get("plan_changes") or {}

    return Abilities(
        text_to_video=lambda captions, seed, motion: make(captions, seed, motion_flow=motion),
        image_to_video=lambda first, captions, seed: make(captions, seed, image=first),
        continuation=lambda first, captions, seed: make(captions, seed, video=first),
        longer=lambda captions, seed: make(
            captions, seed, num_frames=LONGER * (FRAMES - 1) + 1, plan_changes=chunks
        ),
        reconstruct=reconstruct,
    )


def evaluate_pipeline(
    pipe: nova.NovaPipeline,
    out: Path,
    *,
    count: int = 200,
    seed: int = 1000,
    fast: bool = False,
) -> Report:
    """Judge a pipeline, real clips and an untrained network alike; write JSON and a picture.

    Args:
        pipe: of moving digits.
        out: folder for `scores.json`, `clips.jsonl` and `scores.png`.
        count: test clips asked for, 2 or more, by phrasings that training never saw.
        seed: of the clips; model cards take it, nothing is tuned on it.
        fast: with `contar.generation.fast_changes`, a quarter of the sets, but four
            if there are so many, in few steps.

    Raises:
        ValueError: a number outside its range, before anything is made.
        ImportError: an extra is missing; "contar[demo,eval,video]" has all.
    """
    check_count("count", count, 2)
    asked = BouncingDigits("test", count, seed=seed)
    longer = BouncingDigits("test", count, seed=seed, frames=LONGER * (FRAMES - 1) + 1)
    reference = BouncingDigits("test", count, seed=seed + 1)
    out.mkdir(parents=True, exist_ok=True)
    judge = load_judge()
    network = pipe.transformer
    untrained = build(network.sizes).to(network.device, network.dtype).eval()
    raw = nova.NovaPipeline(
        untrained, pipe.vae, pipe.scheduler, pipe.text_encoder, pipe.tokenizer,
        defaults=pipe.config["defaults"],
    )  # fmt: skip
    settings: dict[str, Any] = {}
    if fast:
        sets = pipe.config["defaults"]["num_inference_steps"]
        scheduler = {**pipe.scheduler.config, "_class_name": type(pipe.scheduler).__name__}
        settings["plan_changes"] = fast_changes(scheduler, sets)
    try:
        reader = Reader()
    except ImportError:  # the extra `eval`
        reader = None
    models = {
        "model": abilities_of(pipe, **settings),
        "real clips": real(asked, seed=seed, longer=longer),
        "untrained": abilities_of(raw, **settings),
    }
    scores = {
        name: evaluate(
            abilities, asked, judge, reader=reader, reference=reference, seed=seed,
            notes={"model": name, "fast": fast}, progress=True,
        )
        for name, abilities in models.items()
    }  # fmt: skip
    report = Report(scores, FIGURES)
    report.save(out)
    return report
