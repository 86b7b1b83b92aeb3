"""What causal convolutions saw of a clip before the piece that comes."""

from collections.abc import Sequence

from contar._layers import CausalConv3d
from contar._typing import Float, Tensor


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
