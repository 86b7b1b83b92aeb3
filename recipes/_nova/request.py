"""What a call of the pipeline asks for: its words, and all of it as one value, checked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contar._errors import bad, check_callable, check_count, check_number
from contar._random import Generators
from contar._typing import Float, Int, Tensor
from contar.generation import Graphs
from contar.heads import DiffusionHead
from contar.tokenizers import VAETokenizer
from recipes._nova.call import Texts
from recipes._nova.editing import Edit, read_canvas, read_edit
from recipes._nova.inputs import read_clip, read_texts
from recipes._nova.network import Nova
from recipes._nova.settings import Settings


@dataclass(frozen=True)
class Words:
    """What a call says, in words or in the states of words."""

    texts: list[str] | Texts
    later: list[tuple[int, list[str]]]  # from a latent frame on
    negatives: list[str] | Texts | None
    mixed: tuple[list[str], float] | None  # with other texts, by a weight
    copies: int  # samples of each text
    alone: bool  # one sample of one text, no list of them

    @property
    def batch(self) -> int:
        """Samples in all."""
        return len(self.texts) * self.copies


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


def read_values(
    model: Nova, grid: tuple[int, int], defaults: Mapping[str, Any], **given: Any
) -> dict[str, Any]:
    """Return the numbers of a call by name, those left out by the pipeline's defaults."""
    values = {name: defaults[name] if x is None else x for name, x in given.items()}
    if given["num_inference_steps"] is None:  # a smaller frame has fewer tokens than the model's
        tokens = grid[0] * grid[1] // model.sizes.patch**2
        values["num_inference_steps"] = min(values["num_inference_steps"], tokens)
    own = () if model.motion is not None else ("motion_flow", "fps")
    if not isinstance(model.head, DiffusionHead):
        own = (*own, "num_diffusion_steps")
    return {**values, **{name: given[name] for name in own}}


def read_words(
    model: Nova,
    encoded: bool,
    timeline: Sequence[tuple[int, Any]],
    embeds: Any,
    negative_prompt: Any,
    negative_embeds: Any,
    mix: Any,
    copies: int,
) -> Words:
    """Return what a call says.

    Args:
        model: the network.
        encoded: whether the pipeline has a text encoder.
        timeline: prompts, with the latent frames from which they hold.
        embeds: states instead of the first prompt.
        negative_prompt: of the call.
        negative_embeds: states instead of it.
        mix: of the call.
        copies: samples of each prompt.

    Raises:
        ValueError: no text, texts and states at once, other states than the network takes, words
            without an encoder, other numbers of texts, a mix beside prompts that change, or no
            samples.
    """
    (_, prompt), *changes = timeline
    texts = _texts(model, encoded, "prompt", prompt, embeds)
    if texts is None:
        raise bad("prompt", None, "a text, several, or prompt_embeds")
    negatives = _texts(model, encoded, "negative_prompt", negative_prompt, negative_embeds)
    if isinstance(negative_prompt, str):
        negatives = negatives * len(texts)
    if negatives is not None and len(negatives) != len(texts):
        name = "negative_prompt" if negative_embeds is None else "negative_prompt_embeds"
        raise bad(name, f"{len(negatives)} texts", f"{len(texts)}, one for each prompt")
    later = [(frame, _texts(model, encoded, "prompt", words, None)) for frame, words in changes]
    if mix is not None and later:
        raise bad("mix", "a mix", "None beside prompts that change")
    for _, words in later:
        if words is None:
            raise bad("prompt", None, "a text, or several, from each frame on")
        if len(words) != len(texts):
            raise bad("prompt", f"{len(words)} texts", f"{len(texts)}, as before")
    mixed = None if mix is None else _read_mix(mix, len(texts), encoded)
    copies = check_count("num_images_per_prompt", copies)
    alone = isinstance(prompt, str) and copies == 1
    return Words(texts, later, negatives, mixed, copies, alone)


def _texts(model: Nova, encoded: bool, name: str, words: Any, states: Any) -> Any:
    """Return texts, or the states of texts, or None."""
    if states is not None:
        model.text.check(f"{name}_embeds", states)
    texts = read_texts(name, words, states)
    if not encoded and words is not None and any(texts or ()):
        raise bad(name, texts, f"{name}_embeds: this pipeline has no text encoder")
    return texts


def _read_mix(mix: Any, prompts: int, encoded: bool) -> tuple[list[str], float]:
    """Return the other texts and their weight."""
    if not isinstance(mix, Sequence) or isinstance(mix, str) or len(mix) != 2:
        raise bad("mix", mix, "(a text, or one for each prompt; a weight)")
    weight = check_number("mix", mix[1], 0, 1)
    texts = read_texts("mix", mix[0], None) or []
    if not encoded and any(texts):
        raise bad("mix", texts, "prompt_embeds of recipes.nova.mix: there is no text encoder")
    if isinstance(mix[0], str):
        texts = texts * prompts
    if len(texts) != prompts:
        raise bad("mix", f"{len(texts)} texts", f"{prompts}, one for each prompt")
    return texts, weight


def read_frames(
    settings: Settings,
    tokenizer: VAETokenizer,
    words: Words,
    frames: int,
    *,
    image: Any,
    video: Any,
    mask: Any,
    canvas: Any,
    grow: int,
) -> tuple[Float[Tensor, "b 3 n h w"] | None, Edit | None]:
    """Return given first frames, in [-1, 1], and what of them is given, if not all.

    Args:
        settings: of the result.
        tokenizer: that will take them.
        words: of the call.
        frames: of the result.
        image: of the call, as all that follow.
        video: instead of it.
        mask: what of it is made anew.
        canvas: what is added to it.
        grow: by how much the mask grows.

    Raises:
        ValueError: as `read_canvas`, `read_clip` and `read_edit`; or more than a chunk has.
    """
    sides = (side * tokenizer.space_stride for side in settings.latent)
    added = read_canvas(canvas, *sides)
    given = (settings.latent, tokenizer, frames, len(words.texts), added)
    clip = read_clip(image, video, *given)
    edit = read_edit(clip, mask, added, tokenizer, settings, grow)
    if edit is not None:
        return edit.clip, edit
    chunk = settings.plan.chunk
    if clip is not None and chunk and tokenizer.latent_frames(clip.shape[2]) > chunk:
        most = tokenizer.pixel_frames(chunk)
        raise bad("video", f"{clip.shape[2]} frames", f"at most {most}, those of a chunk")
    return clip, None
