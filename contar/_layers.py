"""Layers that several parts are made of."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from contar._typing import Float, Tensor


class Mlp(nn.Module):
    """Two linear layers with an activation between them.

    Gated, the first makes a gate and a value side by side, and the activated gate multiplies the
    value: with SiLU that is SwiGLU (Shazeer 2020, arXiv 2002.05202).

    Args:
        inputs: width of what it reads.
        hidden: width between the layers, that of the inputs if None.
        outputs: width of what it makes, that of the inputs if None.
        gated: whether what is between the layers is gated.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int | None = None,
        outputs: int | None = None,
        *,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        gated: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        hidden = hidden or inputs
        self.gated = gated
        self.fc1 = nn.Linear(inputs, hidden * (1 + gated), bias)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden, outputs or inputs, bias)

    def forward(self, x: Tensor, dropout: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Transform the last axis, with `dropout` behind the activation and at the end."""
        hidden = self.fc1(x)
        if self.gated:
            gate, value = hidden.chunk(2, dim=-1)
            hidden = self.act(gate) * value
        else:
            hidden = self.act(hidden)
        if dropout is None:
            return self.fc2(hidden)
        return dropout(self.fc2(dropout(hidden)))


class LayerNorm(nn.LayerNorm):
    """torch's layer norm, written out: for gradients through a forward-mode derivative.

    The gradients of torch's own are wrong there, of torch 2.14 too (its issue 196700).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise the last axis."""
        return layer_norm(input, self.weight, self.bias, self.eps)


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Return the layer norm of the last axis of x, written out, see `LayerNorm`."""
    wide = in_single(x)
    wide = wide - wide.mean(-1, keepdim=True)
    normed = (wide * (wide.square().mean(-1, keepdim=True) + eps).rsqrt()).to(x.dtype)
    normed = normed if weight is None else normed * weight
    return normed if bias is None else normed + bias


def in_single(x: Tensor) -> Tensor:
    """Return x in float32, or as it is in float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class CausalConv3d(nn.Conv3d):
    """A 3D convolution that sees no later frame: the first frame is repeated before the clip.

    A clip may come in pieces, each with the frames before it.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int | tuple[int, int, int],
        *,
        stride: int | tuple[int, int, int] = 1,
        padding: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__(channels, out, kernel, stride, (0, *padding))

    def forward(
        self, input: Float[Tensor, "b c t h w"], before: Float[Tensor, "b c k h w"] | None = None
    ) -> Float[Tensor, "b c2 t2 h2 w2"]:
        """Convolve; a stride of 2 halves 4k + 1 frames to 2k + 1.

        Args:
            input: [b, c, t, h, w], a clip, or a piece of one.
            before: [b, c, kernel - 1, h, w], the frames before the piece; None begins a clip.
        """
        return super().forward(self.padded(input, before))

    def padded(
        self, input: Float[Tensor, "b c t h w"], before: Float[Tensor, "b c k h w"] | None = None
    ) -> Float[Tensor, "b c t2 h w"]:
        """Return the piece behind those before, or behind copies of a clip's first frame."""
        count = self.kernel_size[0] - 1
        if not count:
            return input
        if before is None:
            before = input[:, :, :1].expand(-1, -1, count, -1, -1)
        return torch.cat([before, input], dim=2)  # whose gradient is no sum by atomics


def weight_of(layer: Any) -> Tensor:
    """Return a tensor of the dtype and on the device that a layer reads: its weight.

    That of torch's quantised layers is a method; they read float32 on the CPU.
    """
    weight = layer.weight
    return (
        weight if isinstance(weight, Tensor) else torch.empty(0, dtype=torch.float32, device="cpu")
    )
