"""Waves of sound to continuous latents and back, over a codec of transformers."""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from contar._errors import bad, check_finite, check_size, check_tensor
from contar._typing import Float, Tensor
from contar.tokenizers.protocol import State

KNOWN_CODECS = ("PocketTTSAudioTokenizerModel",)


class AudioTokenizer:
    """Mono waves to latents, one after the other in time, and back.

    It holds the codec and nothing else: dtype and device are that one's. Waves and latents of any
    float dtype go in, float32 comes out, and it is finite. The codec is causal, so that what
    follows a wave or its latents changes nothing before.

    Args:
        codec: transformers' `PocketTTSAudioTokenizerModel` (of 5.24 on).

    Raises:
        ValueError: another codec.
    """

    def __init__(self, codec: nn.Module) -> None:
        if type(codec).__name__ not in KNOWN_CODECS:
            raise bad("codec", type(codec).__name__, "one of " + ", ".join(KNOWN_CODECS))
        self.codec: Any = codec

    @property
    def channels(self) -> int:
        """Values of a latent."""
        return self.codec.config.latent_dim

    @property
    def rate(self) -> int:
        """Samples of a wave a second."""
        return self.codec.config.sampling_rate

    @property
    def stride(self) -> int:
        """Samples of a wave for each latent."""
        return self.codec.config.frame_size

    @property
    def reach(self) -> int:
        """How many latents before it a latent's samples depend on, at most."""
        c = self.codec.config
        dilations = sum(c.dilation_growth_rate**i for i in range(c.num_residual_layers))
        stage = 1 + (c.residual_kernel_size - 1) * dilations
        convolutions = c.kernel_size + c.last_kernel_size + stage * len(c.upsampling_ratios)
        steps = c.num_hidden_layers * c.sliding_window + convolutions
        return math.ceil(steps / c.latent_stride) + 1

    @torch.no_grad()
    def encode(self, waves: Float[Tensor, "b n"]) -> Float[Tensor, "b t c"]:
        """Return the latents [b, ceil(n / stride), channels] of waves; silence fills up the last.

        Args:
            waves: [b, n], about in [-1, 1], of `rate` samples a second.

        Raises:
            ValueError: another shape, no samples, NaN or infinite ones, or a codec that has no
                encoder.
        """
        check_tensor("waves", waves, (None, None), "[b, n]")
        if not waves.numel():
            raise bad("waves", tuple(waves.shape), "at least one wave of one sample")
        check_finite("waves", waves)
        if self.codec.encoder is None:
            raise bad("codec", "one without an encoder", "one with it, to encode")
        full = functional.pad(waves, (0, -waves.shape[1] % self.stride))
        latents = self.codec.encode(full[:, None].to(self.codec.device, self.codec.dtype)).latents
        check_finite("latents", latents)
        return latents.float()

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b t c"]) -> Float[Tensor, "b n"]:
        """Return the waves [b, t · stride], about in [-1, 1], of latents.

        Raises:
            ValueError: another shape, no latents, NaN or infinite ones, or a codec that has no
                decoder.
        """
        check_tensor("latents", latents, (None, None, self.channels), "[b, t, channels]")
        if not latents.numel():
            raise bad("latents", tuple(latents.shape), "at least one latent")
        check_finite("latents", latents)
        if self.codec.decoder is None:
            raise bad("codec", "one without a decoder", "one with it, to decode")
        given = latents.to(self.codec.device, self.codec.dtype)
        waves = self.codec.decode(given).audio_values[:, 0, : latents.shape[1] * self.stride]
        check_finite("waves", waves)
        return waves.float()

    def decode_next(
        self,
        latents: Float[Tensor, "b t c"],
        state: State | None = None,
        *,
        overlap: int | None = None,
    ) -> tuple[Float[Tensor, "b n"], State]:
        """Return the waves of the next latents, and the state to go on from.

        Codecs of transformers hand out no state of their convolutions: the latents before are
        decoded once more.

        Args:
            latents: [b, t, channels], the next of each wave.
            state: what the call for those before returned, which is left as it is; None begins
                waves.
            overlap: latents that are decoded once more; None is `reach`, with which all pieces
                together equal the whole, up to rounding. With fewer they come near, sooner.

        Raises:
            ValueError: as `decode`, an overlap below 1, or a state of other waves.
        """
        keep = self.reach if overlap is None else check_size("overlap", overlap)
        check_tensor("latents", latents, (None, None, self.channels), "[b, t, channels]")
        z = latents
        if state is not None:
            if not isinstance(state, tuple) or len(state) != 1:
                raise bad("state", type(state).__name__, "what the call before returned")
            shape = (len(latents), None, self.channels)
            check_tensor("state", state[0], shape, "[b, t, channels]", like=latents)
            z = torch.cat([state[0], latents], dim=1)
        waves = self.decode(z)[:, -latents.shape[1] * self.stride :]
        return waves, (z[:, max(0, z.shape[1] - keep) :].clone(),)
