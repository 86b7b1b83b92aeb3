"""One tokenizer over image and video autoencoders: strides, scale, shift, frame counts."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from contar._defaults import fixed_defaults
from contar._errors import bad, check_finite, check_size, check_tensor
from contar._memory import peak_bytes
from contar._random import Generators, check_generator, normal
from contar._typing import Float, Tensor
from contar.tokenizers.protocol import STRIDES, State, latent_frames

OVERLAP = 4  # latent frames, with which pieces are as long as the Open-Sora-Plan VAE's own tiles


def _of_own(vae: Any) -> tuple[int, int]:
    return vae.temporal_compression_ratio, vae.spatial_compression_ratio


def _of_config(vae: Any) -> tuple[int, int]:
    frames = getattr(vae.config, "temporal_compression_ratio", 1)  # an image autoencoder has none
    return int(frames), 2 ** (len(vae.config.block_out_channels) - 1)


KNOWN_VAES = {
    "AutoencoderKL": lambda vae: (*_of_config(vae), False),
    "AutoencoderKLAllegro": lambda vae: (*_of_config(vae), False),
    "AutoencoderKLCogVideoX": lambda vae: (*_of_config(vae), True),
    "AutoencoderKLHunyuanVideo": lambda vae: (*_of_own(vae), True),
    "AutoencoderKLLTXVideo": lambda vae: (*_of_own(vae), True),
    "AutoencoderKLMochi": lambda vae: (*_of_own(vae), True),
    "AutoencoderKLWan": lambda vae: (
        vae.config.scale_factor_temporal, vae.config.scale_factor_spatial, True,
    ),
    "CausalVAE": lambda vae: (*STRIDES, True),
    "OpenSoraVAE": lambda vae: (*STRIDES, True),
}  # fmt: skip
"""By a VAE's class: frames and pixels for each latent one, from its config; whether the first frame
stands alone.
"""


def _column(values: Any) -> Float[Tensor, " c"]:
    if isinstance(values, Tensor):
        return values.float().flatten()
    return torch.tensor(values, dtype=torch.float32, device="cpu").flatten()


class VAETokenizer:
    """Clips of pixels to scaled latents and back, over an autoencoder of diffusers or our own.

    It holds the autoencoder and nothing else: its dtype, device, tiling and slicing are that one's
    (`vae.enable_tiling()`). One in float16 whose config says `force_upcast`, as its activations
    grow beyond what float16 holds, runs in float32. Pixels and latents of any float dtype go in,
    float32 comes out, and it is finite. Clips are taken one by one, so memory does not grow with
    the batch.

    Args:
        vae: `OpenSoraVAE`, or an image or video autoencoder of diffusers; an image autoencoder
            takes a clip frame by frame.

    Raises:
        ValueError: an autoencoder whose strides are not known here, or that asks for a timestep.
    """

    def __init__(self, vae: nn.Module) -> None:
        name = type(vae).__name__
        if name not in KNOWN_VAES:
            raise bad("vae", name, "one of " + ", ".join(KNOWN_VAES))
        if getattr(vae.config, "timestep_conditioning", False):
            raise bad("vae", f"{name} with timestep_conditioning", "one without")
        self.vae: Any = vae
        self.time_stride, self.space_stride, self._lone_first = KNOWN_VAES[name](vae)
        # CogVideoX decodes latent frames two by two, and knows the clip's first one by an odd
        # number of them: of an even number, each comes back as a whole stride.
        cogvideox = name == "AutoencoderKLCogVideoX"
        self._together: int = vae.num_latent_frames_batch_size if cogvideox else 1  # type: ignore[assignment]
        self._hands_out = hasattr(vae, "decode_next")

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        config = self.vae.config
        return config.z_dim if "z_dim" in config else config.latent_channels

    @property
    def shift(self) -> Float[Tensor, " c"]:
        """What is taken from a latent of the network."""
        mean, plain = self._statistic("latents_mean"), self.vae.config.get("shift_factor")
        return _column([plain or 0.0]) if mean is None else mean

    @property
    def scale(self) -> Float[Tensor, " c"]:
        """What the difference is multiplied with."""
        factor, std = self.vae.config.get("scaling_factor") or 1.0, self._statistic("latents_std")
        return _column([factor]) if std is None else factor / std

    def _statistic(self, name: str) -> Tensor | None:
        value = self.vae.config.get(name)
        if value is None:
            value = dict(self.vae.named_buffers(recurse=False)).get(name)
        return None if value is None else _column(value)

    def latent_frames(self, frames: int, name: str = "num_frames") -> int:
        """Return how many latent frames a clip has.

        Raises:
            ValueError: a number of frames that the autoencoder does not take, or that does not come
                back; names the nearest.
        """
        alone, together = self._lone_first, self._together
        return latent_frames(
            frames, self.time_stride, lone_first=alone, together=together, name=name
        )

    def pixel_frames(self, latents: int) -> int:
        """Return how many frames so many latent frames decode to."""
        first = int(self._lone_first)
        if (check_size("latents", latents) - first) % self._together:
            return latents * self.time_stride
        return (latents - first) * self.time_stride + first

    @property
    def incremental(self) -> bool:
        """Whether pieces of a clip, decoded by `decode_next`, equal the whole, decoded.

        So it is where the autoencoder decodes frames alone or hands its state out. Others decode in
        overlapping pieces, which come near.
        """
        return self.time_stride == 1 or self._hands_out

    def encode(
        self, pixels: Float[Tensor, "b c t h w"], *, generator: Generators | None = None
    ) -> Float[Tensor, "b c2 t2 h2 w2"]:
        """Return the scaled latents of clips.

        Args:
            pixels: as in `posterior`.
            generator: draws from the posterior, [b, c, t', h', w'] at once or each sample's own;
                None takes the posterior's mean.

        Raises:
            ValueError: as `posterior`, or a generator that does not fit.
        """
        self._check_pixels(pixels)
        if generator is None:
            return self._normal(pixels)[0]
        generator = check_generator(generator, len(pixels), pixels.device)
        mean, deviation = self._normal(pixels)
        return mean + deviation * normal(*mean.shape, generator=generator, device=mean.device)

    def posterior(
        self, pixels: Float[Tensor, "b c t h w"]
    ) -> tuple[Float[Tensor, "b c2 t2 h2 w2"], Float[Tensor, "b c2 t2 h2 w2"]]:
        """Return mean and deviation of the scaled latents of clips.

        Args:
            pixels: [b, 3, t, h, w] in [-1, 1].

        Raises:
            ValueError: another shape, a number of frames that `latent_frames` refuses, a height
                or width that the stride does not divide, NaN or infinite pixels, or latents that
                come out so.
        """
        self._check_pixels(pixels)
        return self._normal(pixels)

    @torch.no_grad()
    def _normal(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        with self._running() as dtype:
            pairs = [self._posterior(clip[None].to(dtype)) for clip in pixels]
        mean, deviation = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        self._check_result("latents", mean, self.latent_frames(pixels.shape[2]))
        shift, scale = self._affine(pixels.device)
        return (mean - shift) * scale, deviation * scale

    def _check_pixels(self, pixels: Tensor) -> None:
        check_tensor("pixels", pixels, (None, 3, None, None, None), "[b, 3, t, h, w]")
        if not len(pixels):
            raise bad("pixels", tuple(pixels.shape), "at least one clip")
        self.latent_frames(pixels.shape[2], "pixels.frames")
        for name, size in (("height", pixels.shape[3]), ("width", pixels.shape[4])):
            if not size or size % self.space_stride:
                raise bad(f"pixels.{name}", size, f"a multiple of {self.space_stride}")
        check_finite("pixels", pixels)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b 3 t2 h2 w2"]:
        """Return the pixels, about in [-1, 1], of scaled latents.

        Raises:
            ValueError: another shape, NaN or infinite latents, or pixels that come out so.
        """
        self._check_latents(latents)
        plain = self._plain(latents)
        with self._running() as dtype:
            pixels = torch.cat([self._decode(clip[None]).float() for clip in plain.to(dtype)])
        self._check_result("pixels", pixels, self.pixel_frames(latents.shape[2]))
        return pixels

    @torch.no_grad()
    def decode_next(
        self,
        latents: Float[Tensor, "b c t h w"],
        state: State | None = None,
        *,
        overlap: int = OVERLAP,
    ) -> tuple[Float[Tensor, "b 3 t2 h2 w2"], State]:
        """Return the pixels of clips' next latents, and the state to go on from.

        All pieces together have the frames of `decode` of the whole. They equal them, up to
        rounding, wherever a clip is cut, if `incremental`; else each piece is decoded behind the
        latents before it, and comes near.

        Args:
            latents: [b, c, t, h, w], as in `decode`: the next of each clip.
            state: what the call for those before returned, which is left as it is; None begins
                clips.
            overlap: latent frames that are decoded once more before each piece, where not
                `incremental`.

        Raises:
            ValueError: as `decode`, an overlap below 1, or a state of other clips.
        """
        check_size("overlap", overlap)
        self._check_latents(latents)
        if state is not None:
            self._check_state(state, latents)
        frames = latents.shape[2] * self.time_stride
        if state is None and self._lone_first:
            frames -= self.time_stride - 1
        if not self._hands_out:
            z = latents if state is None else torch.cat([state[0], latents], dim=2)
            kept = 0 if self.incremental else min(overlap, z.shape[2])
            return self.decode(z)[:, :, -frames:], (z[:, :, z.shape[2] - kept :].clone(),)
        pieces, states = [], []
        with self._running() as dtype:
            for i, clip in enumerate(self._plain(latents).to(dtype)):
                before = None if state is None else tuple(x[i : i + 1] for x in state)
                piece, after = self.vae.decode_next(clip[None], before)
                pieces.append(piece.float())
                states.append(after)
        pixels = torch.cat(pieces)
        self._check_result("pixels", pixels, frames)
        return pixels, tuple(torch.cat(parts) for parts in zip(*states, strict=True))

    def _check_latents(self, latents: Tensor) -> None:
        check_tensor("latents", latents, (None, self.channels, None, None, None), "[b, c, t, h, w]")
        if 0 in latents.shape:
            raise bad("latents", tuple(latents.shape), "no empty axis")
        check_finite("latents", latents)

    def _check_state(self, state: Any, latents: Tensor) -> None:
        """Raise a ValueError unless a state may be of these clips; ours looks closer at it."""
        batch, channels, _, *grid = latents.shape
        tensors = isinstance(state, tuple) and all(isinstance(x, Tensor) for x in state)
        if not tensors or any(x.shape[:1] != (batch,) for x in state):
            raise bad("state", type(state).__name__, f"what decode_next returned, of {batch} clips")
        if not self._hands_out:
            shape = (batch, channels, None, *grid)
            if len(state) != 1:
                raise bad("state", f"{len(state)} tensors", "what decode_next returned")
            check_tensor("state", state[0], shape, "[b, c, t, h, w]", like=latents)

    def _plain(self, latents: Tensor) -> Tensor:
        """Return latents as the autoencoder makes them."""
        shift, scale = self._affine(latents.device)
        return latents.float() / scale + shift

    @contextmanager
    def _running(self) -> Iterator[torch.dtype]:
        """Have the autoencoder run in the dtype that its config asks for, which is yielded."""
        if self.vae.dtype != torch.float16 or not self.vae.config.get("force_upcast"):
            with fixed_defaults():
                yield self.vae.dtype
            return
        tensors = [*self.vae.parameters(), *self.vae.buffers()]
        kept = [x.data for x in tensors]
        try:
            for x in tensors:
                x.data = x.data.float() if x.dtype == torch.float16 else x.data
            with fixed_defaults():
                yield torch.float32
        finally:
            for x, data in zip(tensors, kept, strict=True):
                x.data = data

    def _check_result(self, name: str, made: Tensor, frames: int) -> None:
        """Raise a ValueError unless an autoencoder made finite values of so many frames."""
        kind = type(self.vae).__name__
        if made.shape[2] != frames:  # by a setting of its own, such as drop_last_temporal_frames
            raise bad("vae", f"{name} of {made.shape[2]} frames", f"a {kind} that makes {frames}")
        cure = " (float32 may help: vae.to(torch.float32))" * (self.vae.dtype == torch.float16)
        check_finite(name, made, f"finite ones from {kind}{cure}")

    def _affine(self, device: torch.device) -> list[Tensor]:
        return [x.to(device).reshape(-1, 1, 1, 1) for x in (self.shift, self.scale)]

    def _posterior(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation, float32, of one clip [1, 3, t, h, w]."""
        name = type(self.vae).__name__
        if name == "AutoencoderKL":
            moments = self.vae.encode(clip[0].transpose(0, 1)).latent_dist.parameters
            moments = moments.transpose(0, 1)[None]
        elif name == "AutoencoderKLAllegro":  # its own encode knows nothing but tiles
            self._check_untiled()
            raw = self.vae.encoder(clip)[0].transpose(0, 1)
            moments = self.vae.quant_conv(raw).transpose(0, 1)[None]
        else:
            moments = self.vae.encode(clip).latent_dist.parameters
        mean, log_variance = moments.float().split(self.channels, dim=1)[:2]
        return mean, (0.5 * log_variance.clamp(-30, 20)).exp()

    def _check_untiled(self) -> None:
        if self.vae.use_tiling:
            raise bad("vae.use_tiling", True, "False: Allegro's tiles drop what they do not cover")

    def _decode(self, clip: Tensor) -> Tensor:
        """Return the frames of one clip [1, c, t, h, w] of plain latents."""
        name = type(self.vae).__name__
        if name == "AutoencoderKL":
            return self.vae.decode(clip[0].transpose(0, 1)).sample.transpose(0, 1)[None]
        if name == "AutoencoderKLAllegro":
            self._check_untiled()
            plain = self.vae.post_quant_conv(clip[0].transpose(0, 1)).transpose(0, 1)[None]
            return self.vae.decoder(plain)
        return self.vae.decode(clip).sample


def vae_memory(
    tokenizer: VAETokenizer, frames: int, size: tuple[int, int], dtype: torch.dtype
) -> dict[str, int]:
    """Return the bytes that encoding and decoding one clip take at most, beside weights and clip.

    Args:
        tokenizer: its autoencoder on `meta`.
        frames: of the clip.
        size: height and width in pixels.
        dtype: of the autoencoder.

    Raises:
        ValueError: frames or sides that the tokenizer does not take.
    """
    tokenizer = VAETokenizer(copy.deepcopy(tokenizer.vae))
    nn.Module.to(tokenizer.vae, dtype=dtype)  # diffusers' own warns of a list that is empty
    empty: Any = {"dtype": torch.float32, "device": "meta"}
    pixels = torch.zeros(1, 3, frames, *size, **empty)
    grid = [side // tokenizer.space_stride for side in size]
    count = tokenizer.latent_frames(frames)
    latents = torch.zeros(1, tokenizer.channels, count, *grid, **empty)
    return {
        "encode": peak_bytes(lambda: tokenizer.encode(pixels)),
        "decode": peak_bytes(lambda: tokenizer.decode(latents)),
    }
