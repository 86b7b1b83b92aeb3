"""Text: from a text encoder's token states to tokens of the model."""

from collections.abc import Sequence

import torch
from torch import nn

from contar._errors import bad, check_count
from contar._typing import Float, Tensor


class TextProjection(nn.Module):
    """A linear layer and a layer norm over token states padded to a fixed length.

    Padding positions hold stored rows, as in the released NOVA checkpoints; the rows alone are the
    empty prompt of classifier-free guidance.

    Args:
        text_width: width of the text encoder's states.
        width: of the model.
        length: to which texts are padded.
        rows: stored padding rows, at least `length` (512 in the released checkpoints).

    Raises:
        ValueError: a size below 1, or fewer rows than `length`.
    """

    def __init__(self, text_width: int, width: int, *, length: int, rows: int = 512) -> None:
        super().__init__()
        if check_count("length", length) > check_count("rows", rows):
            raise bad("length", length, f"at most the {rows} padding rows")
        self.length = length
        self.proj = nn.Linear(text_width, width)
        self.norm = nn.LayerNorm(width)
        self.padding: Tensor
        self.register_buffer("padding", torch.randn(rows, text_width) * 0.02)

    def pad(
        self, states: Float[Tensor, "b l e"] | Sequence[Float[Tensor, "_ e"]]
    ) -> Float[Tensor, "b length e"]:
        """Fill each text up to `length` with the stored rows; the input is left as it was.

        Raises:
            ValueError: no texts, a text longer than `length`, or another width.
        """
        if not len(states):
            raise bad("states", "no texts", "at least one")
        padded = self.empty(len(states))
        for row, text in zip(padded, states, strict=True):
            if text.ndim != 2 or len(text) > self.length or text.shape[1] != row.shape[1]:
                allowed = f"[at most {self.length} tokens, width {row.shape[1]}]"
                raise bad("states", tuple(text.shape), allowed)
            row[: len(text)] = text
        return padded

    def empty(self, batch: int) -> Float[Tensor, "b length e"]:
        """Return the states of `batch` empty texts."""
        return self.padding[: self.length].repeat(batch, 1, 1)

    def forward(self, states: Float[Tensor, "b l e"]) -> Float[Tensor, "b l d"]:
        """Project states [b, l, text_width] to tokens [b, l, width]."""
        return self.norm(self.proj(states))
