"""A convolution over space and time that sees no later frame."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import conv_flop_count

from contar import _onednn
from contar._typing import Float, Tensor


class CausalConv3d(nn.Conv3d):
    """A 3D convolution that sees no later frame: the first frame is repeated before the clip.

    A clip may come in pieces, each with the frames `before` it.
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
            input: [b, c, t, h, w].
            before: [b, c, kernel - 1, h, w], the frames before these; None begins a clip.
        """
        if self.kernel_size[0] > 1:
            before = self.start(input) if before is None else before
            input = torch.cat([before, input], dim=2)  # whose gradient is no sum by atomics
        if torch.is_grad_enabled() or not _onednn.at_hand(input, self.weight):
            return super().forward(input)
        # For one clip of few values torch takes a loop of its own, a quarter as fast. Training has
        # several clips, for which it takes oneDNN by itself.
        sizes: Any = (self.padding, self.stride, self.dilation, self.groups)
        return torch.mkldnn_convolution(input, self.weight, self.bias, *sizes)

    def start(self, input: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c k h w"]:
        """Return what stands before a clip: its first frame, kernel - 1 times."""
        return input[:, :, :1].expand(-1, -1, self.kernel_size[0] - 1, -1, -1)


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
        before = conv.start(x) if self.begins else next(self._frames)
        self.latest.append(torch.cat([before, x[:, :, -count:]], dim=2)[:, :, -count:])
        return conv(x, before)


def _flops(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return conv_flop_count(x, weight, out_shape)


_onednn.count_flops(torch.ops.aten.mkldnn_convolution, _flops)
