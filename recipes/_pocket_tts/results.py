"""What a generation and a training step of Pocket TTS return."""

from dataclasses import dataclass

from contar._typing import Bool, Float, Int, Tensor
from contar.tokenizers import AudioTokenizer


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
