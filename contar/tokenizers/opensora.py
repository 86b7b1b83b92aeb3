"""The Open-Sora-Plan causal 3D VAE, the tokenizer of the released 480p NOVA.

Source: Open-Sora-Plan v1.2's CausalVAE as the NOVA release carries it
(autoencoder_kl_opensora.py in github.com/baaivision/NOVA). Time stride 4, space stride 8.
"""

from collections.abc import Callable, Sequence

import torch
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn import functional

from contar._errors import DEEPEST, bad, check_choice, check_instance, check_size
from contar._layers import CausalConv3d
from contar._typing import Tensor
from contar.tokenizers._tiles import tiled, tiles
from contar.tokenizers.autoencoder import Autoencoder
from contar.tokenizers.opensora_layers import Downsample, MidBlock, ResBlock, Upsample, conv
from contar.tokenizers.protocol import STRIDES, latent_frames

_KINDS = ("2d", "2d", "3d", "3d")  # of the encoder's stages
_TYPES = ("DownEncoderBlock2D",) * 2 + ("DownEncoderBlock3D",) * 2


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
    def __init__(self, channels: int, out: int, widths: Sequence[int], depth: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for i, (kind, width) in enumerate(zip(_KINDS, widths, strict=True)):
            stage = _Stage(widths[max(i - 1, 0)], width, depth, kind)
            if i < 3:
                stage.downsamplers = nn.ModuleList([Downsample(width, _KINDS[i + 1])])
            self.down_blocks.append(stage)
        self.mid_block = MidBlock(widths[-1], "3d")
        self.conv_norm_out = nn.GroupNorm(32, widths[-1], eps=1e-6)
        self.conv_out = conv("3d", widths[-1], 2 * out)

    def forward(self, x: Tensor) -> Tensor:
        batch = len(x)
        x = self.conv_in(x.transpose(1, 2).flatten(0, 1))  # frames apart, up to the 3D stages
        for i, stage in enumerate(self.down_blocks):
            x = stage(x)
            if i == 1:
                x = x.unflatten(0, (batch, -1)).transpose(1, 2)
            if i < 3:
                x = stage.downsamplers[0](x)  # type: ignore[index]
        x = self.mid_block(x)
        return self.conv_out(functional.silu(self.conv_norm_out(x)))


class _Decoder(nn.Module):
    def __init__(self, channels: int, out: int, widths: Sequence[int], depth: int) -> None:
        super().__init__()
        widths = widths[::-1]
        self.conv_in = conv("3d", channels, widths[0])
        self.mid_block = MidBlock(widths[0], "3d")
        self.up_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            stage = _Stage(widths[max(i - 1, 0)], width, depth + 1, "3d")
            if i < 3:
                stage.upsamplers = nn.ModuleList([Upsample(width, time=i < 2)])
            self.up_blocks.append(stage)
        self.conv_norm_out = nn.GroupNorm(32, widths[-1], eps=1e-6)
        self.conv_out = conv("3d", widths[-1], out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for i, stage in enumerate(self.up_blocks):
            x = stage(x)
            if i < 3:
                x = stage.upsamplers[0](x)  # type: ignore[index]
        return self.conv_out(functional.silu(self.conv_norm_out(x)))


class OpenSoraVAE(Autoencoder):
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
        down_block_types: Sequence[str] = _TYPES,
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
        if tuple(down_block_types) != _TYPES:
            raise bad("down_block_types", list(down_block_types), "two 2D stages, then two 3D")
        if [*up_block_types] != ["UpDecoderBlock3D"] * 4:
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
        latent, sizes = latent_channels, (block_out_channels, layers_per_block)
        self.encoder = _Encoder(in_channels, latent, *sizes)
        self.decoder = _Decoder(latent, out_channels, *sizes)
        self.quant_conv = self.post_quant_conv = nn.Identity()
        if use_quant_conv:
            self.quant_conv = CausalConv3d(2 * latent, 2 * latent, 1)
        if use_post_quant_conv:
            self.post_quant_conv = CausalConv3d(latent, latent, 1)
        self.use_tiling = self.use_slicing = False
        self.tile_frames: int | None = 17
        self.tile_size = 32

    def _moments(self, x: Tensor) -> Tensor:
        def part(tile: Tensor) -> Tensor:
            return self.quant_conv(self._run(self.encoder, tile, STRIDES[1], 1 / STRIDES[1]))

        self._check_tiles()
        return self._in_time(part, x, self.tile_frames)

    def _pixels(self, z: Tensor) -> Tensor:
        def part(tile: Tensor) -> Tensor:
            return self._run(self.decoder, self.post_quant_conv(tile), 1, STRIDES[1])

        self._check_tiles()
        size = self.tile_frames
        return self._in_time(part, z, size and (size - 1) // STRIDES[0] + 1)

    def _check_tiles(self) -> None:
        if self.tile_frames is not None:
            check_size("tile_frames", self.tile_frames, STRIDES[0] + 1)
            latent_frames(self.tile_frames, STRIDES[0], lone_first=True, name="tile_frames")
        if check_size("tile_size", self.tile_size, 4) % 4:
            raise bad("tile_size", self.tile_size, "a multiple of 4")

    def _in_time(self, part: Callable[[Tensor], Tensor], x: Tensor, size: int | None) -> Tensor:
        """Return what `part` makes of clips in tiles of frames, of each alone if it slices."""
        if self.use_slicing and len(x) > 1:
            return torch.cat([self._in_time(part, clip, size) for clip in x.split(1)])
        if size is None or x.shape[2] <= size:
            return part(x)
        parts = [part(x[:, :, a:b]) for a, b in tiles(x.shape[2], size, 1)]
        return torch.cat([parts[0], *(later[:, :, 1:] for later in parts[1:])], dim=2)

    def _run(self, network: nn.Module, x: Tensor, stride: int, factor: float) -> Tensor:
        """Return what a network makes of frames, in tiles of their sides if it tiles."""
        size = self.tile_size * stride
        whole = not self.use_tiling or max(x.shape[-2:]) <= size
        return network(x) if whole else tiled(network, x, size, factor)
