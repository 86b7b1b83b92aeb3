"""A convolution over space and time that sees no later frame."""

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import conv_flop_count

from contar import _onednn
from contar._typing import Float, Tensor


class CausalConv3d(nn.Conv3d):
    """A 3D convolution that sees no later frame: the first frame is repeated before the clip."""

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

    def forward(self, input: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c2 t2 h2 w2"]:
        """Convolve; a stride of 2 halves 4k + 1 frames to 2k + 1."""
        before = self.kernel_size[0] - 1
        if before:
            first = input[:, :, :1].expand(-1, -1, before, -1, -1)
            input = torch.cat([first, input], dim=2)  # whose gradient is no sum by atomics
        if torch.is_grad_enabled() or not _onednn.at_hand(input, self.weight):
            return super().forward(input)
        # For one clip of few values torch takes a loop of its own, a quarter as fast. Training has
        # several clips, for which it takes oneDNN by itself.
        sizes: Any = (self.padding, self.stride, self.dilation, self.groups)
        return torch.mkldnn_convolution(input, self.weight, self.bias, *sizes)


def _flops(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return conv_flop_count(x, weight, out_shape)


_onednn.count_flops(torch.ops.aten.mkldnn_convolution, _flops)
