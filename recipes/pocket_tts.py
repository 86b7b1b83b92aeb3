"""Pocket TTS: text to speech by continuous audio latents, one after the other.

Kyutai, github.com/kyutai-labs/pocket-tts, after "Continuous Audio Language Models" (Rouard et al.
2025, arXiv 2509.06926); the head learns by Lagrangian self-distillation (Boffi et al. 2025, arXiv
2505.18825). A causal tower reads a voice, a text and the latents so far; a flow map draws the next
one in one step, and a linear layer says whether the speech is over.

    model = from_pretrained(folder)
    speech = generate(model, [tokens], voices=[voice])
"""

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from contar._errors import bad, check_instance, check_number, check_size
from contar._random import Generators, check_generator
from contar._typing import Float, Tensor
from contar.attention import check_backend
from contar.conditioning import Guidance
from contar.heads import Noise, TokenHead, check_draw
from recipes._pocket_tts.call import (
    Prompts,
    Speech,
    SpeechFrame,
    SpeechLosses,
    SpeechPlan,
    Text,
    check_latents,
    check_list,
    read_prompts,
)
from recipes._pocket_tts.config import PRESETS, PocketTTSConfig, official_head
from recipes._pocket_tts.files import from_pretrained, load_codec
from recipes._pocket_tts.network import PocketTTS
from recipes._shared.building import build_model
from recipes._shared.sizes import Tower

__all__ = [
    "PRESETS",
    "Noise",
    "PocketTTS",
    "PocketTTSConfig",
    "Speech",
    "SpeechFrame",
    "SpeechLosses",
    "SpeechPlan",
    "Tower",
    "build",
    "from_pretrained",
    "generate",
    "load_codec",
    "measure",
    "official_head",
    "stream",
    "training_losses",
]


def build(
    preset: str | PocketTTSConfig = "pocket-tts",
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    compile: bool = False,
    head: TokenHead | None = None,
) -> PocketTTS:
    """Build a Pocket TTS with random weights, which makes noise.

    Args:
        preset: a name in `PRESETS`, or a config.
        device: where the weights are made, the CPU if None; "meta" makes none.
        dtype: of the weights, float32 if None.
        compile: compile what sampling repeats, as the model's `compile` does.
        head: an object of one's own that keeps the protocol `contar.heads.TokenHead`, instead of
            the one that the config names.

    Raises:
        ValueError: an unknown preset, device or dtype, or a head that does not fit.

    Example:
        >>> model = build(device="meta")
        >>> sum(p.numel() for p in model.parameters()) // 10**6
        89
    """
    options: Any = {"device": device, "dtype": dtype, "compile": compile, "head": head}
    return build_model(PocketTTS, preset, PRESETS, **options)


def generate(
    model: PocketTTS,
    texts: Sequence[Text],
    plan: SpeechPlan | None = None,
    *,
    voices: Sequence[Float[Tensor, "_ c"] | None] | None = None,
    noise: Noise | Generators | None = None,
    backend: Any = None,
) -> Speech:
    """Say texts. Arguments, errors and order of the draws as in `stream`."""
    frames = list(stream(model, texts, plan, voices=voices, noise=noise, backend=backend))
    latents = torch.stack([frame.latents for frame in frames], dim=1)
    return Speech(latents, torch.stack([frame.alive for frame in frames]).sum(0))


def stream(
    model: PocketTTS,
    texts: Sequence[Text],
    plan: SpeechPlan | None = None,
    *,
    voices: Sequence[Float[Tensor, "_ c"] | None] | None = None,
    noise: Noise | Generators | None = None,
    backend: Any = None,
) -> Iterator[SpeechFrame]:
    """Say texts, latent by latent, until all have ended.

    Every argument is checked before the first latent. Randomness comes from `noise` alone: a normal
    [b, 1, token_dim] for each latent.

    Args:
        model: a Pocket TTS; it is left as it is.
        texts: tokens [l] of each sample, of any lengths.
        plan: how long, how warm, when to stop; None is `SpeechPlan()`.
        voices: [f, token_dim] for each sample, latents of somebody who speaks, as the codec makes
            them, or None.
        noise: a generator, or one for each sample; a CPU generator works for every device. Or what
            is asked for each draw. None is freshly seeded.
        backend: of `attend`.

    Raises:
        ValueError: an argument that does not fit the model or the others.
    """
    plan = SpeechPlan() if plan is None else plan
    check_instance("model", model, PocketTTS)
    check_instance("plan", plan, SpeechPlan)
    prompts = read_prompts(model, texts, voices)
    device, batch = model.device, len(texts)
    check_backend(backend, device)
    check_draw(model.head, Guidance(), math.sqrt(plan.temperature), plan.steps, "plan.steps")
    tail = plan.tail if isinstance(plan.tail, tuple) else (plan.tail,) * batch
    if len(tail) != batch:
        raise bad("plan.tail", plan.tail, f"one number, or one for each of {batch} texts")
    if not isinstance(noise, Noise):
        noise = Noise(check_generator(noise, batch, device, "noise"), device)
    return _draw(model, plan, prompts, torch.tensor(tail, device=device), noise, backend)


def _draw(
    model: PocketTTS, plan: SpeechPlan, prompts: Prompts, tail: Tensor, noise: Noise, backend: Any
) -> Iterator[SpeechFrame]:
    """Yield latents until every sample has ended."""
    frames, temperature = plan.frames, math.sqrt(plan.temperature)
    if frames is None:
        frames = math.ceil((max(map(len, prompts.texts)) / 3 + 2) * model.sizes.rate)
    draws: Any = {"temperature": temperature, "noise": noise, "steps": plan.steps}
    with torch.no_grad():  # around each part, not the yields, which run in the caller's mode
        x, pads = model.sequences(prompts.texts, prompts.voices)
        prompt = x.shape[1]
        rope, padding = model.places(prompt + frames, pads)
        cache = model.tower.allocate_cache(len(x), prompt + frames)
    left = torch.full_like(tail, -1)  # latents to come of a sample that ends; -1 goes on
    alive = left < 0
    for seen in range(prompt, prompt + frames):
        with torch.no_grad():
            mask = None if padding is None else padding[:, :seen]
            options: Any = {"padding_mask": mask, "cache": cache, "backend": backend}
            z = model(x, rope=rope[:, :seen], **options)[:, -1:]
            latent = model.head.sample(z, **draws)[:, 0]
            end, codec = model.end(z)[:, 0, 0].float(), model.denormalize(latent)
            x = model.embed(latent)[:, None]
        yield SpeechFrame(codec.masked_fill(~alive[:, None], 0), alive, end)
        ends = (end > plan.threshold) & (left < 0) & (seen - prompt >= plan.least)
        left = torch.where(ends, tail, left)
        alive = alive & (left != 0)
        left = left - (left > 0).long()
        if not alive.any():
            return


def training_losses(
    model: PocketTTS,
    texts: Sequence[Text],
    latents: Sequence[Float[Tensor, "_ c"]],
    *,
    voices: Sequence[Float[Tensor, "_ c"] | None] | None = None,
    repeats: int = 4,
    end_weight: float = 0.1,
    generator: torch.Generator | None = None,
    head_options: dict[str, Tensor] | None = None,
    checkpoint: bool = False,
    backend: Any = None,
) -> SpeechLosses:
    """Return the losses of one training step: of the latents, and of the end of speech.

    Args:
        model: a Pocket TTS.
        texts: tokens [l] of each sample.
        latents: [t, token_dim] of each, what the text sounds like, as the codec makes them.
        voices: as in `stream`.
        repeats: draws of noise and times for each latent.
        end_weight: of the loss of the end of speech.
        generator: of the head's draws.
        head_options: what the head's loss takes instead of draws, as a flow map's `noise` and
            `times`, for the latents of all samples one after the other.
        checkpoint: keep each block's input only, and compute the block again for its gradients.
        backend: of `attend`.

    Raises:
        ValueError: an argument that does not fit the model or the others.
    """
    check_instance("model", model, PocketTTS)
    prompts = read_prompts(model, texts, voices)
    check_list("latents", latents, len(texts))
    for i, x in enumerate(latents):
        check_latents(f"latents[{i}]", x, model)
    check_size("repeats", repeats)
    check_number("end_weight", end_weight, 0)
    check_backend(backend, model.device)
    draws = check_generator(generator, 1, model.device)
    given = _head_options(model.head, head_options)
    clean = [model.normalize(x.to(model.device)) for x in latents]
    x, pads = model.sequences(prompts.texts, prompts.voices, clean)
    rope, padding = model.places(x.shape[1], pads)
    options: Any = {"padding_mask": padding, "checkpoint": checkpoint, "backend": backend}
    z = model(x, rope=rope, **options)
    said = [row[-len(frames) - 1 :] for row, frames in zip(z, clean, strict=True)]
    over = torch.cat([torch.arange(len(row), 0, -1) == 1 for row in said]).to(z.device)
    logits = model.end(torch.cat(said))[:, 0].float()
    end = functional.binary_cross_entropy_with_logits(logits, over.float())
    conditions = torch.cat([row[:-1] for row in said])
    flow = model.head.loss(
        torch.cat(clean), conditions, repeats=repeats, generator=draws, **given
    ).mean()
    return SpeechLosses(flow + end_weight * end, flow, end)


def _head_options(head: TokenHead, options: Any) -> dict[str, Any]:
    """Return what a head's loss is given instead of draws; refuse what it does not take."""
    if options is None:
        return {}
    check_instance("head_options", options, Mapping)
    parameters = inspect.signature(head.loss).parameters.values()
    own = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    allowed = [name for name in own[2:] if name not in ("repeats", "generator")]
    any_other = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for key in options:
        if key not in allowed and (key in own or not any_other):
            raise bad(f"head_options[{key!r}]", "a value", f"one of {', '.join(allowed) or 'none'}")
    return dict(options)


@torch.no_grad()
def measure(model: PocketTTS, latents: Iterable[Float[Tensor, "_ c"]]) -> PocketTTS:
    """Set mean and deviation of a codec's latents in a model that is to learn, and return it.

    Args:
        model: a Pocket TTS.
        latents: [t, token_dim] of each sample that stands for the others.

    Raises:
        ValueError: latents that do not fit, that are not finite or too few, or of which a value
            never changes.
    """
    check_instance("model", model, PocketTTS)
    if not isinstance(latents, Iterable):
        raise bad("latents", type(latents).__name__, "tensors [t, token_dim], one for each sample")
    frames = list(latents)
    for i, x in enumerate(frames):
        check_latents(f"latents[{i}]", x, model)
    if sum(map(len, frames)) < 2:
        raise bad("latents", f"{sum(map(len, frames))} in all", "at least two")
    together = torch.cat([x.to(model.device, torch.float32) for x in frames])
    std = together.std(0)
    if not std.all():
        raise bad("latents", "a value that never changes", "values that have a deviation")
    model.mean.copy_(together.mean(0))
    model.std.copy_(std)
    return model
