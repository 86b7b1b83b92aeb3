"""The Open-Sora-Plan causal 3D VAE, the tokenizer of the released 480p NOVA.

Source: Open-Sora-Plan v1.2's CausalVAE as the NOVA release carries it
(autoencoder_kl_opensora.py in github.com/baaivision/NOVA). Time stride 4, space stride 8.
"""

from collections.abc import Callable, Sequence

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import (
    AutoencoderMixin,
    DecoderOutput,
    DiagonalGaussianDistribution,
)
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from torch import nn
from torch.nn import functional

from contar._errors import DEEPEST, bad, check_choice, check_instance, check_size, check_tensor
from contar._layers import CausalConv3d
from contar._models import Model
from contar._typing import Float, Tensor
from contar.tokenizers._tiles import tiled, tiles
from contar.tokenizers.opensora_layers import (
    Downsample,
    MidBlock,
    ResBlock,
    Upsample,
    conv,
)
from contar.tokenizers.protocol import check_clip, latent_frames

STRIDES = (4, 8)  # frames, pixels


class _Stage(nn.Module):
    """Residual blocks, and a change of resolution but in the last stage."""

    def __init__(self, width: int, out: int, depth: int, kind: str) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResBlock(out if i else width, out, kind) for i in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resnets:
            x = block(x)
        return x


class _Encoder(nn.Module):
    def __init__(self, channels: int, out: int, kinds: list[str], widths: list[int], depth: int):
        super().__init__()
        self.kinds = kinds
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for i, (kind, width) in enumerate(zip(kinds, widths, strict=True)):
            stage = _Stage(widths[max(i - 1, 0)], width, depth, kind)
            if i + 1 < len(widths):
                stage.downsamplers = nn.ModuleList([Downsample(width, kinds[i + 1])])
            self.down_blocks.append(stage)
        self.mid_block = MidBlock(widths[-1], kinds[-1])
        self.conv_norm_out = nn.GroupNorm(32, widths[-1], eps=1e-6)
        self.conv_out = conv(kinds[-1], widths[-1], 2 * out)

    def forward(self, x: Tensor) -> Tensor:
        batch = len(x)
        x = self.conv_in(x.transpose(1, 2).flatten(0, 1))  # frames apart, up to the 3D stages
        for i, stage in enumerate(self.down_blocks):
            x = stage(x)
            if i + 1 < len(self.kinds):
                if x.ndim == 4 and self.kinds[i + 1] == "3d":
                    x = x.unflatten(0, (batch, -1)).transpose(1, 2)
                x = stage.downsamplers[0](x)  # type: ignore[index]
        x = self.mid_block(x)
        return self.conv_out(functional.silu(self.conv_norm_out(x)))


class _Decoder(nn.Module):
    def __init__(self, channels: int, out: int, widths: list[int], depth: int) -> None:
        super().__init__()
        widths = widths[::-1]
        self.conv_in = conv("3d", channels, widths[0])
        self.mid_block = MidBlock(widths[0], "3d")
        self.up_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            stage = _Stage(widths[max(i - 1, 0)], width, depth + 1, "3d")
            if i + 1 < len(widths):
                time = i + 2 < len(widths)
                stage.upsamplers = nn.ModuleList([Upsample(width, time=time)])
            self.up_blocks.append(stage)
        self.conv_norm_out = nn.GroupNorm(32, widths[-1], eps=1e-6)
        self.conv_out = conv("3d", widths[-1], out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for i, stage in enumerate(self.up_blocks):
            x = stage(x)
            if i + 1 < len(self.up_blocks):
                x = stage.upsamplers[0](x)  # type: ignore[index]
        return self.conv_out(functional.silu(self.conv_norm_out(x)))


class OpenSoraVAE(Model, AutoencoderMixin):
    """The autoencoder of the released 480p NOVA, used as diffusers' autoencoders are.

    Clips of 4k + 1 frames make k + 1 latent frames. Convolutions are causal in time; the group
    norms pool over all frames that are encoded together, so a latent also depends on later ones.

    Args are those of its `config.json`.

    Attributes:
        tile_frames: frames, 4k + 1, that are encoded or decoded together; later ones come in
            further tiles that share one frame with their neighbour, the last of which may be
            shorter. 17 as released; None takes whole clips.
        tile_size: side in latent pixels, a multiple of 4, of the tiles of each frame that
            `enable_tiling()` switches on; they overlap by a quarter.

    Raises:
        ValueError: block types other than two 2D stages followed by two 3D ones and four 3D ones
            upwards, or other strides.
    """

    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        down_block_types: Sequence[str] = (
            "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock3D", "DownEncoderBlock3D",
        ),
        up_block_types: Sequence[str] = ("UpDecoderBlock3D",) * 4,
        block_out_channels: Sequence[int] = (128, 256, 512, 512),
        layers_per_block: int = 2,
        act_fn: str = "silu",
        latent_channels: int = 4,
        norm_num_groups: int = 32,
        sample_size: int = 256,
        scaling_factor: float = 0.18215,
        shift_factor: float | None = None,
        latents_mean: Sequence[float] | None = None,
        latents_std: Sequence[float] | None = None,
        force_upcast: bool = True,
        use_quant_conv: bool = True,
        use_post_quant_conv: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        known = {"DownEncoderBlock2D": "2d", "DownEncoderBlock3D": "3d"}
        kinds = [known.get(name, "?") for name in down_block_types]
        if kinds != ["2d", "2d", "3d", "3d"]:
            raise bad("down_block_types", list(down_block_types), "two 2D stages, then two 3D")
        if len(up_block_types) != 4 or set(up_block_types) != {"UpDecoderBlock3D"}:
            raise bad("up_block_types", list(up_block_types), "four 3D stages")
        for name, value in (
            ("in_channels", in_channels), ("out_channels", out_channels),
            ("latent_channels", latent_channels), ("layers_per_block", layers_per_block),
        ):  # fmt: skip
            check_instance(name, value, int)
            check_size(name, value, 1, DEEPEST)
        four = isinstance(block_out_channels, Sequence) and len(block_out_channels) == 4
        if not four or any(check_size("block_out_channels", w) % 32 for w in block_out_channels):
            raise bad("block_out_channels", block_out_channels, "four multiples of 32")
        check_choice("act_fn", act_fn, ("silu",))
        check_choice("norm_num_groups", norm_num_groups, (32,))
        widths, latent = list(block_out_channels), latent_channels
        self.encoder = _Encoder(in_channels, latent, kinds, widths, layers_per_block)
        self.decoder = _Decoder(latent, out_channels, widths, layers_per_block)
        self.quant_conv = self.post_quant_conv = nn.Identity()
        if use_quant_conv:
            self.quant_conv = CausalConv3d(2 * latent, 2 * latent, 1)
        if use_post_quant_conv:
            self.post_quant_conv = CausalConv3d(latent, latent, 1)
        self.use_tiling = self.use_slicing = False
        self.tile_frames: int | None = 17
        self.tile_size = 32

    def encode(
        self, x: Float[Tensor, "b c t h w"], return_dict: bool = True
    ) -> AutoencoderKLOutput | tuple[DiagonalGaussianDistribution]:
        """Return the posterior of clips of 4k + 1 frames.

        Raises:
            ValueError: another shape or number of frames, or sides that 8 does not divide.
        """
        check_clip(x, self.config["in_channels"], STRIDES)
        self._check_tiles("x", x)
        moments = self._sliced(self._encode_frames, x)
        posterior = DiagonalGaussianDistribution(moments)
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(
        self, z: Float[Tensor, "b c t h w"], return_dict: bool = True
    ) -> DecoderOutput | tuple[Tensor]:
        """Return the frames of latents.

        Raises:
            ValueError: another shape.
        """
        channels = self.config["latent_channels"]
        check_tensor("z", z, (None, channels, None, None, None), "[b, c, t, h, w]")
        self._check_tiles("z", z)
        pixels = self._sliced(self._decode_frames, z)
        return DecoderOutput(sample=pixels) if return_dict else (pixels,)

    def _check_tiles(self, name: str, x: Tensor) -> None:
        if 0 in x.shape:
            raise bad(name, tuple(x.shape), "no empty axis")
        if self.tile_frames is not None:
            check_size("tile_frames", self.tile_frames, STRIDES[0] + 1)
            latent_frames(self.tile_frames, STRIDES[0], lone_first=True, name="tile_frames")
        if check_size("tile_size", self.tile_size, 4) % 4:
            raise bad("tile_size", self.tile_size, "a multiple of 4")

    def _sliced(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        slices = x.split(1) if self.use_slicing else [x]
        return torch.cat([function(one) for one in slices])

    def _encode_frames(self, x: Tensor) -> Tensor:
        return self._in_time(self._encode_tile, x, self.tile_frames)

    def _decode_frames(self, z: Tensor) -> Tensor:
        size = self.tile_frames
        return self._in_time(self._decode_tile, z, size and (size - 1) // STRIDES[0] + 1)

    def _in_time(self, function: Callable[[Tensor], Tensor], x: Tensor, size: int | None) -> Tensor:
        if size is None or x.shape[2] <= size:
            return function(x)
        parts = [function(x[:, :, a:b]) for a, b in tiles(x.shape[2], size, 1)]
        return torch.cat([parts[0], *(part[:, :, 1:] for part in parts[1:])], dim=2)

    def _encode_tile(self, x: Tensor) -> Tensor:
        size = self.tile_size * STRIDES[1]
        if not self.use_tiling or max(x.shape[-2:]) <= size:
            return self.quant_conv(self.encoder(x))
        return self.quant_conv(tiled(self.encoder, x, size, 1 / STRIDES[1]))

    def _decode_tile(self, z: Tensor) -> Tensor:
        z = self.post_quant_conv(z)
        if not self.use_tiling or max(z.shape[-2:]) <= self.tile_size:
            return self.decoder(z)
        return tiled(self.decoder, z, self.tile_size, STRIDES[1])
