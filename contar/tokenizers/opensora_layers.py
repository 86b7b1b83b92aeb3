"""Layers of the Open-Sora-Plan VAE, named as in its checkpoints."""

import torch
from torch import nn
from torch.nn import functional

from contar._layers import CausalConv3d
from contar._typing import Float, Tensor
from contar.attention import attend


def conv(kind: str, channels: int, out: int, kernel: int = 3) -> nn.Module:
    """Return a convolution that keeps the grid: "2d" by frames, or "3d" causal in time."""
    if kind == "2d":
        return nn.Conv2d(channels, out, kernel, padding=kernel // 2)
    return CausalConv3d(channels, out, kernel, padding=(kernel // 2, kernel // 2))


class ResBlock(nn.Module):
    """Two convolutions behind group norms, and a shortcut."""

    def __init__(self, channels: int, out: int, kind: str) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(32, channels, eps=1e-6)
        self.conv1 = conv(kind, channels, out)
        self.norm2 = nn.GroupNorm(32, out, eps=1e-6)
        self.conv2 = conv(kind, out, out)
        self.conv_shortcut = conv(kind, channels, out, 1) if channels != out else None

    def forward(self, x: Tensor) -> Tensor:
        """Transform [b, c, (t,) h, w]."""
        h = self.conv1(functional.silu(self.norm1(x)))
        h = self.conv2(functional.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class FrameAttention(nn.Module):
    """Self-attention over the pixels of each frame, one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(32, channels, eps=1e-6)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        """Add attention to [b, c, (t,) h, w]; the norm's statistics are of the whole clip."""
        h = self.group_norm(x).movedim(1, -1)
        pixels = h.reshape(-1, 1, h.shape[-3] * h.shape[-2], h.shape[-1])
        out = attend(self.to_q(pixels), self.to_k(pixels), self.to_v(pixels))
        return x + self.to_out[0](out).view(h.shape).movedim(-1, 1)


class MidBlock(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResBlock(channels, channels, kind) for _ in range(2))
        self.attentions = nn.ModuleList([FrameAttention(channels)])

    def forward(self, x: Tensor) -> Tensor:
        """Transform [b, c, (t,) h, w]."""
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Downsample(nn.Module):
    """Half the grid, and in 3D about half the frames."""

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.conv = (
            nn.Conv2d(channels, channels, 3, 2) if kind == "2d"
            else CausalConv3d(channels, channels, 3, stride=2)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Pad a row below and a column right, then convolve with stride 2."""
        return self.conv(functional.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the grid; with `time`, all frames but the first twice as well."""

    def __init__(self, channels: int, *, time: bool) -> None:
        super().__init__()
        self.time = time
        kernel = (3, 3, 3) if time else (1, 3, 3)
        self.conv = CausalConv3d(channels, channels, kernel, padding=(1, 1))

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t2 h2 w2"]:
        """Enlarge, by interpolation in time and space or by repeating pixels, and convolve."""
        if not self.time:
            return self.conv(x.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1))
        first = functional.interpolate(x[:, :, :1], scale_factor=(1, 2, 2), mode="trilinear")
        if x.shape[2] == 1:
            return self.conv(first)
        rest = functional.interpolate(x[:, :, 1:], scale_factor=(2, 2, 2), mode="trilinear")
        return self.conv(torch.cat([first, rest], dim=2))
