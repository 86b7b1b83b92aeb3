"""The scale-and-shift adapter: a later frame's condition as a change of the first frame's."""

from torch import nn

from contar._errors import check_broadcast, check_size, check_tensor
from contar._layers import weight_of
from contar._typing import Float, Tensor


class ScaleShiftAdapter(nn.Module):
    """anchor * (1 + scale) + shift, with scale and shift from a later frame's features.

    Source: NOVA (arXiv 2412.14169, section 3.3 and appendix A). The anchor is the temporal tower's
    output for frame 0; the paper has a layer norm on it, the released checkpoints have none.

    Args:
        rank: of the map from features to scale and shift; None is full rank.

    Raises:
        ValueError: a size below 1.
    """

    def __init__(self, width: int, *, rank: int | None = None) -> None:
        super().__init__()
        check_size("width", width)
        self.act = nn.SiLU()
        self.down = None
        if rank is not None:
            self.down = nn.Linear(width, check_size("rank", rank), bias=False)
        self.up = nn.Linear(rank or width, 2 * width)

    def forward(
        self, anchor: Float[Tensor, "*m n d"], features: Float[Tensor, "*m2 n d"]
    ) -> Float[Tensor, "*m2 n d"]:
        """Return the condition of later frames; the anchor broadcasts to the features.

        Raises:
            ValueError: another width, or shapes that do not broadcast.
        """
        width = self.up.out_features // 2
        weight = weight_of(self.up)
        check_tensor("features", features, (..., None, width), "[..., n, width]", like=weight)
        check_tensor("anchor", anchor, (..., None, width), "[..., n, width]", like=weight)
        check_broadcast("anchor", anchor.shape, features.shape)
        hidden = self.act(features)
        hidden = hidden if self.down is None else self.down(hidden)
        scale, shift = self.up(hidden).chunk(2, dim=-1)
        return anchor * (1 + scale) + shift
