"""What a call of the pipeline asks for, and what None means in it: its numbers and words."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from contar._errors import (
    bad,
    check_callable,
    check_choice,
    check_count,
    check_instance,
    check_number,
    check_text,
    check_timestep,
    plain,
)
from contar._random import Generators
from contar._typing import Float, Int, Tensor
from contar.conditioning import Guidance
from contar.generation import GenerationPlan, Graphs
from contar.heads import DiffusionHead, check_draw
from contar.tokenizers import Tokenizer, longest_clip
from recipes._nova.call import Texts
from recipes._nova.motion import MOTION, UNSET
from recipes._nova.network import Nova
from recipes._nova.pixels import Edit
from recipes._nova.settings import Settings, read_plan, read_timeline

# What the released models are made for; a model of fewer latent frames makes as many as it has.
RELEASED_DEFAULTS = {
    "num_frames": 33, "num_inference_steps": 64, "num_diffusion_steps": 25, "guidance_scale": 5.0,
    "guidance_renorm": 1.0, "temperature": 1.0, **MOTION,
}  # fmt: skip

# Fields of a plan, by the arguments of a call that say them.
SAID_BY = {
    "sets": ("num_inference_steps",),
    "diffusion_steps": ("num_diffusion_steps",),
    "guidance": ("guidance_scale", "guidance_trunc", "min_guidance_scale", "guidance_renorm"),
    "temperature": ("temperature",),
    "flow_shift": ("flow_shift",),
}


@dataclass(frozen=True)
class Words:
    """What a call says, in words or in the states of words."""

    timeline: list[tuple[int, list[str] | Texts]]  # from which latent frame on
    negatives: list[str] | Texts | None
    others: list[str] | None  # to be mixed in
    weight: float  # of these
    copies: int  # samples of each text
    alone: bool  # one sample of one text, no list of them

    @property
    def prompts(self) -> int:
        """How many there are."""
        return len(self.timeline[0][1])

    @property
    def batch(self) -> int:
        """Samples in all."""
        return self.prompts * self.copies


@dataclass(frozen=True)
class Request:
    """What a call asks for."""

    settings: Settings
    words: Words
    clip: Float[Tensor, "n 3 t h w"] | None  # given first frames, in [-1, 1]
    edit: Edit | None  # what of the clip is given
    motion: tuple[Tensor | None, Tensor | None]  # flow scores and frame rates
    order: Int[Tensor, "b m"] | None
    generator: Generators
    graphs: Graphs | None
    callback: Callable[..., object] | None

    def __post_init__(self) -> None:
        if self.graphs is not None:
            self.settings.plan.check_graphs(self.graphs)
        if self.callback is not None:
            check_callable("callback_on_step_end", self.callback)


def default_values(
    network: Nova, tokenizer: Tokenizer, stored: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what None means for a network and its tokenizer, `stored` first.

    Raises:
        ValueError: an unknown name or a value outside its range in `stored`, or no mapping.
    """
    check_instance("defaults", stored, Mapping)
    sizes = network.sizes
    tokens = sizes.latent[0] * sizes.latent[1] // sizes.patch**2
    values: dict[str, Any] = dict(RELEASED_DEFAULTS)
    most = min(values["num_frames"], tokenizer.pixel_frames(sizes.frames))
    values["num_frames"] = longest_clip(tokenizer, most)
    values["num_inference_steps"] = min(values["num_inference_steps"], tokens)
    stored = {name: plain(value) for name, value in stored.items()}
    for name, value in stored.items():
        check_choice("defaults", name, tuple(values))
        if name.startswith("num_"):
            check_count(f"defaults[{name!r}]", value)
        elif name == "temperature":
            stored[name] = _stored_temperature(value)
        elif name != "motion_flow" or value != UNSET:
            check_number(f"defaults[{name!r}]", value, 0)
    return {**values, **stored}


def _stored_temperature(value: Any) -> float | tuple[float, float]:
    """Return a stored temperature as a plan takes it: one, or two, which are a list in JSON."""
    several = isinstance(value, list | tuple)
    if several and len(value) != 2:
        raise bad("defaults['temperature']", value, "a number, or (first frame's, last frame's)")
    for one in value if several else [value]:
        check_number("defaults['temperature']", one, 0)
    return tuple(value) if several else value


def read_numbers(
    model: Nova,
    scheduler: Any,
    tokenizer: Tokenizer,
    defaults: Mapping[str, Any],
    *,
    height: int | None,
    width: int | None,
    guidance_trunc: float,
    min_guidance_scale: float | None,
    flow_shift: float | None,
    plan_changes: Mapping[str, Any] | None,
    **given: Any,
) -> tuple[dict[str, Any], Settings]:
    """Return the numbers that a pipeline has `defaults` for, filled in, and what all of them mean.

    Arguments are those of the pipeline and of its call. `given` are the numbers that there are
    defaults for; motion and diffusion steps have none where the model does not take them.

    Raises:
        ValueError: a number outside its range, by the name that a call has for it, or one that
            `plan_changes` says, too.
    """
    images, diffusion = model.motion is None, isinstance(model.head, DiffusionHead)
    grid = _read_grid(model, height, width, tokenizer.space_stride)
    tokens = grid[0] * grid[1] // model.sizes.patch**2
    # A smaller frame has fewer tokens than the model's.
    defaults = {**defaults, "num_inference_steps": min(defaults["num_inference_steps"], tokens)}
    if images:
        defaults |= {"motion_flow": None, "fps": None}
    if not diffusion:
        defaults["num_diffusion_steps"] = None
    values = {name: defaults[name] if x is None else x for name, x in given.items()}
    frames = tokenizer.latent_frames(values["num_frames"])
    if images and frames > 1:
        raise bad("num_frames", values["num_frames"], "1: this model makes images")
    sets = _count("num_inference_steps", values, tokens, "tokens of a frame")
    steps, config = values["num_diffusion_steps"], None
    if diffusion:  # another takes its own steps
        config = {**scheduler.config, "_class_name": type(scheduler).__name__}
        trained = config.get("num_train_timesteps") or math.inf
        steps = _count("num_diffusion_steps", values, trained, "it was trained with")
    elif steps is not None:
        steps = check_count("num_diffusion_steps", steps)
        check_draw(model.head, Guidance(), 1.0, steps, "num_diffusion_steps")
    guidance = _read_guidance(model, values, guidance_trunc, min_guidance_scale)
    plan = GenerationPlan(
        frames=frames, sets=sets, diffusion_steps=steps, guidance=guidance, scheduler=config,
        temperature=values["temperature"],
        flow_shift=flow_shift, grid=grid,
    )  # fmt: skip
    if plan_changes is not None:
        said = {
            **given, "guidance_trunc": guidance_trunc or None,
            "min_guidance_scale": min_guidance_scale, "flow_shift": flow_shift,
        }  # fmt: skip
        plan = _changed(plan, plan_changes, said)
    return values, read_plan(model, plan)


def _read_guidance(
    model: Nova, values: Mapping[str, Any], truncation: float, start: float | None
) -> Guidance:
    """Return the guidance of a call."""
    scale = check_number("guidance_scale", values["guidance_scale"], 0)
    if start is not None:
        check_number("min_guidance_scale", start, 0)
    if check_number("guidance_trunc", truncation, 0) and isinstance(model.head, DiffusionHead):
        check_timestep("guidance_trunc", truncation, len(model.head.process))
    renorm = check_number("guidance_renorm", values["guidance_renorm"], 0, 1)
    return Guidance(scale, start, truncation, renorm, "frame")


def _changed(
    plan: GenerationPlan, changes: Mapping[str, Any], said: Mapping[str, Any]
) -> GenerationPlan:
    """Return a plan with other values of the fields that are named.

    `said` are arguments of the call by name, None where they were left out.
    """
    check_instance("plan_changes", changes, Mapping)
    names = {field.name for field in fields(plan)} - {"frames", "grid"}
    for name in changes:
        check_choice("plan_changes", name, sorted(names))
        for argument in SAID_BY.get(name, ()):
            if said[argument] is not None:
                raise bad("plan_changes", f"{name} beside {argument}", "one of the two")
    return replace(plan, **changes)


def _read_grid(model: Nova, height: int | None, width: int | None, stride: int) -> tuple[int, int]:
    """Return the latent grid of frames of so many pixels; None is the model's own."""
    latent, unit = model.sizes.latent, 2 * model.sizes.patch * stride
    sides = []
    for name, side, own in (("height", height, latent[0]), ("width", width, latent[1])):
        side = own * stride if side is None else check_count(name, side)
        if side % unit:
            raise bad(name, side, f"a multiple of {unit}")
        sides.append(side // stride)
    return sides[0], sides[1]


def _count(name: str, values: Mapping[str, Any], most: float, what: str) -> int:
    count = check_count(name, values[name])
    if count > most:
        raise bad(name, count, f"at most the {most} {what}")
    return count


def read_words(
    settings: Settings,
    tokenizer: Tokenizer,
    frames: int,
    encoded: bool,
    prompt: Any,
    embeds: Any,
    negative_prompt: Any,
    negative_embeds: Any,
    mix: Any,
    copies: int,
) -> Words:
    """Return what a call of so many frames says, in words where these can be encoded.

    Raises:
        ValueError: as `read_timeline`; no text, texts and states at once, other states than the
            network takes, words without an encoder, other numbers of texts, a mix beside prompts
            that change, or no samples.
    """
    model, read, prompts = settings.model, [], 0
    timeline = read_timeline("prompt", prompt, settings.plan, frames, tokenizer.time_stride)
    for frame, words in timeline:
        texts = _texts(model, encoded, "prompt", words, None if frame else embeds)
        if texts is None:
            allowed = "a text, or several" if frame else "a text, several, or prompt_embeds"
            raise bad("prompt", None, allowed)
        if frame and len(texts) != prompts:
            raise bad("prompt", f"{len(texts)} texts", f"{prompts}, as before")
        read.append((frame, texts))
        prompts = len(texts)
    negatives = _texts(model, encoded, "negative_prompt", negative_prompt, negative_embeds)
    if isinstance(negative_prompt, str):
        negatives = negatives * prompts
    if negatives is not None and len(negatives) != prompts:
        name = "negative_prompt" if negative_embeds is None else "negative_prompt_embeds"
        raise bad(name, f"{len(negatives)} texts", f"{prompts}, one for each prompt")
    others, weight = None, 0.0
    if mix is not None:
        if len(read) > 1:
            raise bad("mix", "a mix", "None beside prompts that change")
        others, weight = _read_mix(mix, prompts, encoded)
    copies = check_count("num_images_per_prompt", copies)
    alone = isinstance(timeline[0][1], str) and copies == 1
    return Words(read, negatives, others, weight, copies, alone)


def _texts(model: Nova, encoded: bool, name: str, words: Any, states: Any) -> Any:
    """Return texts, or the states of texts, or None."""
    if words is not None and states is not None:
        raise bad(f"{name}_embeds", f"embeddings and a {name}", "one of the two")
    if states is not None:
        model.text.check(f"{name}_embeds", states)
    if states is not None or words is None:
        return states
    instead = "" if encoded else f"'', or {name}_embeds: this pipeline has no text encoder"
    return _strings(name, words, instead)


def _strings(name: str, words: Any, instead: str) -> list[str]:
    """Return texts, which are empty where something else has to be given instead."""
    texts = [words] if isinstance(words, str) else words
    if not isinstance(texts, Sequence) or not texts:
        raise bad(name, words, "a text, or at least one in a list")
    texts = [check_text(name, text) for text in texts]
    if instead and any(texts):
        raise bad(name, texts, instead)
    return texts


def _read_mix(mix: Any, prompts: int, encoded: bool) -> tuple[list[str], float]:
    """Return the other texts and their weight."""
    if not isinstance(mix, Sequence) or isinstance(mix, str) or len(mix) != 2:
        raise bad("mix", mix, "(a text, or one for each prompt; a weight)")
    weight = check_number("mix", mix[1], 0, 1)
    instead = "" if encoded else "prompt_embeds of recipes.nova.mix: there is no text encoder"
    texts = _strings("mix", mix[0], instead)
    texts = texts * prompts if isinstance(mix[0], str) else texts
    if len(texts) != prompts:
        raise bad("mix", f"{len(texts)} texts", f"{prompts}, one for each prompt")
    return texts, weight
