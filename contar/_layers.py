"""Layers that several parts are made of."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from contar._typing import Float, Tensor


class Mlp(nn.Module):
    """Two linear layers with an activation between them.

    Args:
        inputs: width of what it reads.
        hidden: width between the layers, that of the inputs if None.
        outputs: width of what it makes, that of the inputs if None.
        act_layer: makes the activation.
        bias: whether the layers have one.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int | None = None,
        outputs: int | None = None,
        *,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden or inputs, bias)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden or inputs, outputs or inputs, bias)

    def forward(self, x: Tensor, dropout: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Transform the last axis, with `dropout` behind the activation and at the end."""
        hidden = self.act(self.fc1(x))
        if dropout is None:
            return self.fc2(hidden)
        return dropout(self.fc2(dropout(hidden)))


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
        self,
        input: Float[Tensor, "b c t h w"],
        before: Float[Tensor, "b c k h w"] | None = None,
    ) -> Float[Tensor, "b c2 t2 h2 w2"]:
        """Convolve; a stride of 2 halves 4k + 1 frames to 2k + 1.

        Args:
            input: [b, c, t, h, w], a clip, or a piece of one.
            before: [b, c, kernel - 1, h, w], the frames before the piece; None begins a clip.
        """
        return super().forward(self.padded(input, before))

    def padded(
        self,
        input: Float[Tensor, "b c t h w"],
        before: Float[Tensor, "b c k h w"] | None = None,
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
