"""A small causal 3D VAE of contar's own: time stride 4, space stride 8."""

from collections.abc import Sequence

from diffusers.configuration_utils import register_to_config
from einops import rearrange
from torch import nn
from torch.nn import functional

from contar._errors import DEEPEST, bad, check_grid, check_numbers, check_size, check_tensor, plain
from contar._layers import CausalConv3d
from contar._typing import Float, Tensor
from contar.tokenizers.autoencoder import Autoencoder


class FrameNorm(nn.GroupNorm):
    """Group norm whose statistics are of each frame alone, so that no frame knows a later one."""

    def forward(self, input: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        """Normalise."""
        frames = super().forward(rearrange(input, "b c t h w -> (b t) c h w"))
        return rearrange(frames, "(b t) c h w -> b c t h w", b=len(input))


class Past:
    """The frames that causal convolutions saw last, in the order in which they are called.

    Args:
        frames: of each convolution, [b, c, kernel - 1, h, w]; None begins a clip.

    Attributes:
        begins: whether a clip begins.
        latest: likewise after the calls so far, for the next piece of the clip.
    """

    def __init__(self, frames: Sequence[Tensor] | None) -> None:
        self.begins = frames is None
        self.latest: list[Tensor] = []
        self._frames = iter(frames or ())

    def convolve(self, conv: CausalConv3d, x: Float[Tensor, "b c t h w"]) -> Tensor:
        """Convolve a piece behind the frames before it, and note its last ones."""
        count = conv.kernel_size[0] - 1
        if not count:
            return conv(x)
        before = None if self.begins else next(self._frames)
        self.latest.append(conv.padded(x[:, :, -count:], before)[:, :, -count:])
        return conv(x, before)


def _conv(channels: int, out: int, kernel: tuple[int, int, int]) -> CausalConv3d:
    return CausalConv3d(channels, out, kernel, padding=(kernel[1] // 2, kernel[2] // 2))


def _run(conv: CausalConv3d, x: Tensor, past: Past | None) -> Tensor:
    return conv(x) if past is None else past.convolve(conv, x)


class _ResBlock(nn.Module):
    def __init__(self, channels: int, *, time: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = FrameNorm(8, channels), FrameNorm(8, channels)
        self.conv1 = _conv(channels, channels, (3 if time else 1, 3, 3))
        self.conv2 = _conv(channels, channels, (1, 3, 3))

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        h = _run(self.conv1, functional.silu(self.norm1(x)), past)
        return x + self.conv2(functional.silu(self.norm2(h)))


class _Blocks(nn.Sequential):
    def forward(self, input: Tensor, past: Past | None = None) -> Tensor:
        for block in self:
            input = block(input, past)
        return input


class _Down(nn.Module):
    """Half the grid, and about half the frames."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.space = nn.Linear(4 * channels, out)
        self.time = CausalConv3d(out, out, (3, 1, 1), stride=(2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = rearrange(x, "b c t (h p) (w q) -> b t h w (p q c)", p=2, q=2)
        return self.time(rearrange(self.space(x), "b t h w c -> b c t h w"))


class _Up(nn.Module):
    """Twice the grid, and twice the frames but the first."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.time = CausalConv3d(channels, 2 * channels, (3, 1, 1))
        self.space = nn.Linear(channels, 4 * out)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        x = rearrange(_run(self.time, x, past), "b (r c) t h w -> b (t r) h w c", r=2)
        if past is None or past.begins:
            x = x[:, 1:]
        return rearrange(self.space(x), "b t h w (p q c) -> b c t (h p) (w q)", p=2, q=2)


class CausalVAE(Autoencoder):
    """Clips of 4k + 1 frames to k + 1 latent frames and back, used as diffusers' autoencoders are.

    Latents up to frame t depend on no later pixel, and pixels on no later latent: convolutions are
    causal and norms see one frame. So an image is the first frame of any clip.

    Args:
        in_channels: of the pixels.
        latent_channels: of the latents.
        widths: of the three levels of resolution, 1/2, 1/4 and 1/8, multiples of 8.
        depth: residual blocks at each level.
        latents_mean: of each channel, as measured on training data; None is 0.
        latents_std: likewise; None is 1.

    Raises:
        ValueError: a number below 1, or other widths.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        latent_channels: int = 4,
        widths: Sequence[int] = (32, 64, 96),
        depth: int = 1,
        latents_mean: Sequence[float] | None = None,
        latents_std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        given = self.config  # as Python's numbers, so that it can be saved
        self.register_to_config(**{k: plain(v) for k, v in given.items() if k[0] != "_"})
        for name, value in (("in_channels", in_channels), ("latent_channels", latent_channels)):
            check_size(name, value)
        check_size("depth", depth, 1, DEEPEST)
        if any(width % 8 for width in check_grid("widths", widths, "(1/2, 1/4, 1/8)")):
            raise bad("widths", list(widths), "three multiples of 8")
        for name, values in (("latents_mean", latents_mean), ("latents_std", latents_std)):
            check_numbers(name, values, latent_channels)
        a, b, c = widths

        def blocks(width: int, *, time: bool) -> _Blocks:
            return _Blocks(*(_ResBlock(width, time=time) for _ in range(depth)))

        self.stem = nn.Linear(4 * in_channels, a)
        self.encoder = nn.Sequential(
            blocks(a, time=False), _Down(a, b), blocks(b, time=True), _Down(b, c),
            blocks(c, time=True), FrameNorm(8, c), nn.SiLU(),
            _conv(c, 2 * latent_channels, (1, 1, 1)),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            _conv(latent_channels, c, (3, 3, 3)), blocks(c, time=True), _Up(c, b),
            blocks(b, time=True), _Up(b, a), blocks(a, time=False), FrameNorm(8, a), nn.SiLU(),
        )  # fmt: skip
        self.out = nn.Linear(a, 4 * in_channels)

    def _moments(self, x: Tensor) -> Tensor:
        h = self.stem(rearrange(x, "b c t (h p) (w q) -> b t h w (p q c)", p=2, q=2))
        return self.encoder(h.movedim(-1, 1))

    def decode_next(
        self, z: Float[Tensor, "b c t h w"], state: tuple[Tensor, ...] | None = None
    ) -> tuple[Float[Tensor, "b c2 t2 h2 w2"], tuple[Tensor, ...]]:
        """Return the frames of a clip's next latents, and the state to go on from.

        All pieces of a clip together are `decode` of the whole, up to rounding, wherever it is cut.

        Args:
            z: [b, c, t, h, w], the next latents of clips, at least one.
            state: what the call for those before returned, which is left as it is; None begins
                clips. It is the last two frames that each causal convolution saw.

        Raises:
            ValueError: another shape, or a state of other clips or of another autoencoder.
        """
        self._check("z", z, self.config["latent_channels"])
        if state is not None:
            self._check_state(state, z)
        past = Past(state)
        return self._pixels(z, past), tuple(past.latest)

    def _check_state(self, state: tuple[Tensor, ...], z: Tensor) -> None:
        batch, (height, width), shapes = len(z), z.shape[3:], []
        for layer in self.decoder:
            for conv in layer.modules():
                if isinstance(conv, nn.Conv3d) and conv.kernel_size[0] > 1:
                    shapes.append((batch, conv.in_channels, 2, height, width))
            if isinstance(layer, _Up):
                height, width = 2 * height, 2 * width
        if not isinstance(state, tuple) or len(state) != len(shapes):
            raise bad("state", type(state).__name__, "what decode_next returned for these clips")
        for x, shape in zip(state, shapes, strict=True):
            check_tensor("state", x, shape, "[b, c, 2, h, w]", like=z)

    def _pixels(self, z: Tensor, past: Past | None = None) -> Tensor:
        first, *middle, norm, silu = self.decoder
        h = _run(first, z, past)  # type: ignore[arg-type]
        for layer in middle:
            h = layer(h, past)
        h = self.out(silu(norm(h)).movedim(1, -1))
        return rearrange(h, "b t h w (p q c) -> b c t (h p) (w q)", p=2, q=2)
