"""What a generation and a training step of Pocket TTS are given, checked once, and return."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from contar._errors import (
    bad,
    check_finite,
    check_number,
    check_size,
    check_tensor,
    keep_plain,
)
from contar._typing import Bool, Float, Int, Tensor
from contar.tokenizers import AudioTokenizer
from recipes._pocket_tts.network import PocketTTS

Text = Int[Tensor, " _"] | Sequence[int]


@dataclass(frozen=True)
class SpeechPlan:
    """How speech is made.

    Args:
        frames: latents at most; None is as many as the longest text may take, (tokens / 3 + 2)
            seconds.
        steps: in which the head draws a latent; None is the head's own number.
        temperature: variance of the noise that a latent is drawn from; 0 has none.
        threshold: of the end-of-speech logit, above which a sample ends.
        least: first latents, at which no sample ends.
        tail: latents after the one that ends, in which a codec fades out; or one number for each
            sample.

    Raises:
        ValueError: a number outside its range.
    """

    frames: int | None = None
    steps: int | None = None
    temperature: float = 0.7
    threshold: float = -4.0
    least: int = 6
    tail: int | tuple[int, ...] = 2

    def __post_init__(self) -> None:
        keep_plain(self)
        if self.frames is not None:
            check_size("frames", self.frames)
        if self.steps is not None:
            check_size("steps", self.steps)
        check_number("temperature", self.temperature, 0)
        check_number("threshold", self.threshold)
        check_size("least", self.least, 0)
        for tail in self.tail if isinstance(self.tail, tuple) else (self.tail,):
            check_size("tail", tail, 0)


class Prompts(NamedTuple):
    """What is to be said, and by whom, as tensors on the model's device."""

    texts: list[Int[Tensor, " _"]]
    voices: list[Float[Tensor, "_ c"] | None]


def read_prompts(model: PocketTTS, texts: Any, voices: Any) -> Prompts:
    """Return texts and voices, checked.

    Raises:
        ValueError: no texts, tokens that the model does not have, or voices that do not fit.
    """
    if not isinstance(texts, Sequence) or isinstance(texts, str) or not len(texts):
        raise bad("texts", texts, "a list of at least one text, each its tokens [l]")
    read = []
    for i, text in enumerate(texts):
        tokens = text
        if not isinstance(text, Tensor):
            if not isinstance(text, Sequence) or not all(type(token) is int for token in text):
                raise bad(f"texts[{i}]", text, "tokens: a tensor [l], or a list of integers")
            tokens = torch.tensor(text, dtype=torch.int64, device="cpu")
        below = model.sizes.vocabulary
        check_tensor(f"texts[{i}]", tokens, (None,), "[l]", kind="int", below=below)
        if not len(tokens):
            raise bad(f"texts[{i}]", "none", "at least one token")
        read.append(tokens.to(model.device))
    voices = [None] * len(read) if voices is None else voices
    check_list("voices", voices, len(read))
    for i, voice in enumerate(voices):
        if voice is not None:
            check_latents(f"voices[{i}]", voice, model)
    return Prompts(read, [None if voice is None else voice.to(model.device) for voice in voices])


def check_list(name: str, values: Any, count: int) -> None:
    """Raise a ValueError unless `values` is a list with one for each of `count` texts."""
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != count:
        got = f"{len(values)}" if isinstance(values, Sequence) else type(values).__name__
        raise bad(name, got, f"a list with one for each of {count} texts")


def check_latents(name: str, latents: Any, model: PocketTTS) -> None:
    """Raise a ValueError unless `latents` are a codec's, [t, token_dim], at least one, finite."""
    check_tensor(name, latents, (None, model.sizes.token_dim), "[t, token_dim]")
    if not len(latents):
        raise bad(name, "none", "at least one latent")
    check_finite(name, latents)


@dataclass(frozen=True)
class SpeechFrame:
    """One latent of each sample, as soon as it is made.

    Attributes:
        latents: [b, token_dim] at the codec's scale; 0 where a sample is over.
        alive: [b], whether it belongs to the sample.
        end_logits: [b], of the end of speech.
    """

    latents: Float[Tensor, "b c"]
    alive: Bool[Tensor, " b"]
    end_logits: Float[Tensor, " b"]


@dataclass(frozen=True)
class Speech:
    """What was said.

    Attributes:
        latents: [b, t, token_dim] at the codec's scale; 0 behind a sample's end.
        lengths: [b], latents of each sample.
    """

    latents: Float[Tensor, "b t c"]
    lengths: Int[Tensor, " b"]

    def waves(self, codec: AudioTokenizer) -> list[Float[Tensor, " _"]]:
        """Return each sample as sound, about in [-1, 1], at the codec's rate."""
        pairs = zip(self.latents, self.lengths.tolist(), strict=True)
        return [codec.decode(latents[None, :length])[0] for latents, length in pairs]


@dataclass(frozen=True)
class SpeechLosses:
    """The losses of one step, each a scalar.

    Attributes:
        total: what to minimise.
        flow: of the head.
        end: of the end of speech, before its weight in the total.
    """

    total: Float[Tensor, ""]
    flow: Float[Tensor, ""]
    end: Float[Tensor, ""]
