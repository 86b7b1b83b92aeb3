"""What contar's own video autoencoders share: how they are called, as diffusers' are."""

from diffusers.models.autoencoders.vae import (
    AutoencoderMixin,
    DecoderOutput,
    DiagonalGaussianDistribution,
)
from diffusers.models.modeling_outputs import AutoencoderKLOutput

from contar._errors import bad, check_tensor
from contar._models import Model
from contar._typing import Float, Tensor
from contar.tokenizers.protocol import STRIDES, latent_frames


class Autoencoder(Model, AutoencoderMixin):
    """Clips of 4k + 1 frames to k + 1 latent frames and back, by `_moments` and `_pixels`."""

    def _moments(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c2 t2 h2 w2"]:
        raise NotImplementedError

    def _pixels(self, z: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c2 t2 h2 w2"]:
        raise NotImplementedError

    def encode(
        self, x: Float[Tensor, "b c t h w"], return_dict: bool = True
    ) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        """Return the posterior of clips of 4k + 1 frames.

        Raises:
            ValueError: another shape or number of frames, or sides that 8 does not divide.
        """
        self._check("x", x, self.config["in_channels"])
        latent_frames(x.shape[2], STRIDES[0], lone_first=True, name="x.frames")
        if x.shape[3] % STRIDES[1] or x.shape[4] % STRIDES[1]:
            raise bad("x", tuple(x.shape), f"height and width of multiples of {STRIDES[1]}")
        posterior = DiagonalGaussianDistribution(self._moments(x))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(
        self, z: Float[Tensor, "b c t h w"], return_dict: bool = True
    ) -> DecoderOutput | tuple[Tensor]:
        """Return the frames of latents.

        Raises:
            ValueError: another shape.
        """
        self._check("z", z, self.config["latent_channels"])
        pixels = self._pixels(z)
        return DecoderOutput(sample=pixels) if return_dict else (pixels,)

    def _check(self, name: str, x: Tensor, channels: int) -> None:
        check_tensor(name, x, (None, channels, None, None, None), "[b, c, t, h, w]")
        if 0 in x.shape:
            raise bad(name, tuple(x.shape), "no empty axis")
