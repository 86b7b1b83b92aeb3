"""Moving digits: the whole road from handwriting to a text-to-video model, stage by stage.

`contar train moving-digits --out RUN` makes RUN/vae (tokenizer), RUN/latents (of the clips, with
texts and motion scores), RUN/images (text to image), RUN/video (text to video, from the images'
weights), RUN/model, a pipeline for `nova.from_pretrained` in bfloat16 with curves.png beside it,
RUN/glance (a sheet of videos and what a judge sees in them) and RUN/scores. Each stage goes on from
its saves. The numbers are for a GPU, which is taken where there is one; they are about those of the
model that contar carries, whose card says how it was made.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from contar._errors import bad, check_count, check_number, keep_plain
from contar.evaluation import require_torchmetrics
from contar.media import motion_score
from contar.tokenizers import CausalVAE
from contar.training import (
    Latents,
    RunConfig,
    VaeStage,
    check_own,
    one_run,
    processes,
    require_matplotlib,
    save_curves,
    train_vae,
)
from recipes import nova
from recipes._nova.training import NovaStage, load_parts, quieten, train_network
from recipes.moving_digits.data.bouncing import BouncingDigits
from recipes.moving_digits.data.moving import FRAMES
from recipes.moving_digits.evaluation.pipeline import evaluate_pipeline
from recipes.moving_digits.judges.judge import load_judge
from recipes.moving_digits.model import (
    DEFAULTS,
    FPS,
    PROMPTS,
    SHARES,
    TEXT,
    NetworkSizes,
    build,
    load_text,
    network,
    sampler,
)
from recipes.moving_digits.stages.first_look import glance
from recipes.moving_digits.stages.latents import digits_latents, scored


def _stage(steps: int, batch: int, **other: Any) -> NovaStage:
    run = RunConfig(
        steps=steps, batch=batch, learning_rate=1.5e-3, warmup=300, ema=0.9995, precision="bf16",
        log_every=50, validate_every=2000, sample_every=2000,
    )  # fmt: skip
    return NovaStage(run, repeats=4, shares=SHARES, **other)


@dataclass(frozen=True)
class MovingDigitsRecipe:
    """All stages.

    Args:
        vae: the tokenizer's.
        clips: encoded for both stages of the network, 2 or more.
        clip_frames: of each, 17 or 4 more and so on; from them the second stage cuts samples of
            `video.frames` latent frames, wherever in them a latent frame begins.
        cut: share of the clips that are cut from anywhere in a long course.
        network: sizes of the network.
        images: text to image.
        video: text to video.
        diffusion_steps: in which the pipeline draws a token.
        looked: videos of the look at the model, 0 leaves it out.
        judged: test clips of the evaluation, 2 or more; 0 leaves it out.
    """

    vae: VaeStage = field(
        default_factory=lambda: VaeStage(
            widths=(32, 64, 88), kl=2e-4, absolute=0.05, bright=4.0,
            run=RunConfig(
                steps=2250, batch=64, learning_rate=2e-3, weight_decay=1e-4, betas=(0.9, 0.99),
                precision="bf16", log_every=50, validate_every=1000, sample_every=2250,
            ),
        )
    )  # fmt: skip
    clips: int = 100_000
    clip_frames: int = 33
    cut: float = 0.4
    network: NetworkSizes = field(
        default_factory=lambda: NetworkSizes(width=192, heads=6, encoder=2)
    )
    images: NovaStage = field(default_factory=lambda: _stage(500, 1024))
    video: NovaStage = field(
        default_factory=lambda: _stage(
            6000, 512, context_noise=(0.0, 0.3), frames=5, later=0.4, drop_motion=0.6
        )
    )
    diffusion_steps: int = 6
    looked: int = 100
    judged: int = 200

    def __post_init__(self) -> None:
        keep_plain(self)
        check_count("clips", self.clips, 2)
        if (check_count("clip_frames", self.clip_frames, FRAMES) - 1) % 4:
            raise bad("clip_frames", self.clip_frames, "17, 21, 25 and so on")
        frames = (self.clip_frames + 3) // 4
        if (self.video.frames or frames) > frames:
            raise bad("video.frames", self.video.frames, f"at most the {frames} of the clips")
        check_number("cut", self.cut, 0, 1)
        check_count("diffusion_steps", self.diffusion_steps)
        check_count("looked", self.looked, 0)
        if check_count("judged", self.judged, 0) == 1:
            raise bad("judged", 1, "0, or 2 and more")


def smoke() -> MovingDigitsRecipe:
    """Return the whole road in a minute, to see that it holds; what it makes is noise."""
    quick = RunConfig(
        steps=4, batch=4, warmup=1, log_every=1, validate_every=4, sample_every=4, save_every=2
    )
    small = NetworkSizes(32, 2, 1, 1, 1, 1, 32)
    return MovingDigitsRecipe(
        vae=VaeStage(widths=(8, 16, 16), absolute=0.05, bright=4.0, run=quick),
        images=NovaStage(quick),
        video=NovaStage(
            replace(quick, precision="bf16"), context_noise=(0.0, 0.3), frames=5, later=0.5
        ),
        network=small, clips=16, diffusion_steps=5, looked=4, judged=4,
    )  # fmt: skip


def run(recipe: MovingDigitsRecipe, out: Path, *, resume: bool = False) -> Path:
    """Go the whole road; return the folder of the pipeline, whose weights are bfloat16.

    Args:
        recipe: of all stages.
        out: folder of the run.
        resume: go on where the run in `out` ended; scores that are there already are kept.

    Raises:
        ValueError: a folder with saves and no `resume`, one with a model that this run did not
            make, or in which another run goes on; a resumed run of another recipe.
        ImportError: an extra is missing; "contar[demo,eval,train,video]" has all.
    """
    config = recipe.vae.run
    digits = BouncingDigits("train", config.steps * config.batch, cut=recipe.cut)
    held = BouncingDigits("validation", 32, cut=recipe.cut)
    clips = BouncingDigits("train", recipe.clips, frames=recipe.clip_frames, cut=recipe.cut)
    # What is not installed is missed now rather than after an hour.
    words, encoder = load_text()
    motion_score(digits[0].frames)
    require_matplotlib()
    if recipe.judged:
        require_torchmetrics()
    encoder.to(processes().device)
    if clips.draw(range(len(clips))).begins.sum() < 2:
        raise bad("cut", recipe.cut, "a share that leaves 2 clips or more with their beginning")
    with one_run(out):
        check_own(out, ("latents", "glance", "model", "new-parts.txt"), out / "vae")
        with scored(clips, wait=(out / "latents").exists()) as scores:
            vae = train_vae(recipe.vae, digits, held, out / "vae", resume=resume)
            options: Any = {"scores": scores, "length": network(1).text_length, "fps": FPS}
            latents = digits_latents(clips, vae, words, encoder, out / "latents", **options)
        parts = (vae, sampler(), encoder, words)
        return _train_networks(recipe, latents.to(processes().device), parts, out, resume)


def _train_networks(
    recipe: MovingDigitsRecipe,
    latents: Latents,
    parts: tuple[CausalVAE, UniPCMultistepScheduler, Any, Any],
    out: Path,
    resume: bool,
) -> Path:
    """Go the road from the latents on."""

    def pipeline(model: nova.Nova) -> nova.NovaPipeline:
        defaults = {**DEFAULTS, "num_diffusion_steps": recipe.diffusion_steps}
        return nova.NovaPipeline(model, *parts, defaults=defaults, text_package=TEXT)

    options: Any = {"prompts": PROMPTS, "resume": resume}
    images = build(network(1, recipe.network))
    quieten(images)
    begin = latents.take(latents.begins.nonzero()[:, 0])
    images = train_network(recipe.images, pipeline(images), begin, out / "images", **options)
    video = build(network(5, recipe.network))
    quieten(video)
    new = load_parts(video, images.state_dict())
    if processes().is_main_process:
        print("new in the second stage:", ", ".join(sorted({name.split(".")[0] for name in new})))
        (out / "new-parts.txt").write_text("\n".join(new) + "\n")
    video = train_network(recipe.video, pipeline(video), latents, out / "video", **options)
    target, device = out / "model", video.device
    if not processes().is_main_process:
        return target
    pipeline(video).to(torch.bfloat16).save_pretrained(target)
    curves = {
        "tokenizer": out / "vae", "first stage: text to image": out / "images",
        "second stage: text to video": out / "video",
    }  # fmt: skip
    save_curves(curves, target / "curves.png")
    looks = recipe.looked and not (resume and (out / "glance" / "glance.json").exists())
    judges = recipe.judged and not (resume and (out / "scores" / "scores.json").exists())
    if not looks and not judges:
        return target
    pipe = nova.from_pretrained(target, dtype=torch.float32).to(device)
    if looks:
        seen = glance(pipe, load_judge().to(device), out / "glance", count=recipe.looked)
        print(json.dumps(seen))
    if judges:
        evaluate_pipeline(pipe, out / "scores", count=recipe.judged)
    return target
