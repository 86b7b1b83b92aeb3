"""From token losses to the losses of a training step."""

from dataclasses import dataclass

from contar._errors import check_count, check_ids, check_tensor
from contar._typing import Float, Int, Tensor


@dataclass(frozen=True)
class FrameLosses:
    """The losses of one step, each a scalar.

    Attributes:
        total: what to minimise.
        first: loss of the first frames (text to image), at its weight in the total.
        later: loss of the later frames (image to image), at its weight; None for images.
    """

    total: Float[Tensor, ""]
    first: Float[Tensor, ""]
    later: Float[Tensor, ""] | None = None


def frame_losses(
    tokens: Float[Tensor, "r m"], frame: Int[Tensor, " m"], frames: int
) -> FrameLosses:
    """Average the losses of hidden tokens, first and later frames apart.

    With w = 1 / (number of token losses + 1e-5) and T frames: first = T Σ w e over frame 0, later
    = T / (T - 1) Σ w e over the others, as NOVA's released code weighs them.

    Args:
        tokens: [r, m], losses of r draws for each of m hidden tokens.
        frame: [m], the frame of each token.
        frames: T, latent frames of the clips.

    Raises:
        ValueError: shapes that do not fit, or a frame (on the CPU) that is none of the T.
    """
    check_tensor("tokens", tokens, (None, None), "[r, m]")
    check_tensor("frame", frame, (tokens.shape[1],), "[m]", kind="int")
    check_ids("frame", frame, check_count("frames", frames))
    weighted = tokens / (tokens.numel() + 1e-5)
    if frames == 1:
        total = weighted.sum()
        return FrameLosses(total, total)
    is_first = frame == 0
    first = frames * (weighted * is_first).sum()
    later = frames / (frames - 1) * (weighted * ~is_first).sum()
    return FrameLosses(first + later, first, later)
