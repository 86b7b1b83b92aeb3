"""A convolution over space and time that sees no later frame."""

from torch import nn
from torch.nn import functional

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
            input = functional.pad(input, (0, 0, 0, 0, before, 0), mode="replicate")
        return super().forward(input)
