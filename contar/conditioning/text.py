"""Text: from a text encoder's token states to tokens of the model."""

from collections.abc import Sequence

import torch
from torch import nn

from contar._errors import bad, check_size, check_tensor, check_total
from contar._layers import weight_of
from contar._typing import Float, Tensor


class TextProjection(nn.Module):
    """A linear layer and a layer norm over token states padded to a fixed length.

    Padding positions hold stored rows, as in the released NOVA checkpoints; the rows alone are the
    empty prompt of classifier-free guidance.

    Args:
        text_width: width of the text encoder's states.
        rows: stored padding rows, at least `length` (512 in the released checkpoints).

    Raises:
        ValueError: a size below 1, or fewer rows than `length`.
    """

    def __init__(self, text_width: int, width: int, *, length: int, rows: int = 512) -> None:
        super().__init__()
        if check_size("length", length) > check_size("rows", rows):
            raise bad("length", length, f"at most the {rows} padding rows")
        check_size("text_width", text_width)
        check_size("width", width)
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
        self.check("states", states)
        padded = self.empty(len(states))
        for row, text in zip(padded, states, strict=True):
            row[: len(text)] = text
        return padded

    def check(self, name: str, states: object) -> int:
        """Return how many texts `states` holds; raise the ValueError of `pad` if it cannot be."""
        texts = states if isinstance(states, Sequence | Tensor) else ()
        if isinstance(states, Tensor):
            check_tensor(name, states, (None, None, None), "[b, l, width]")
        if not len(texts):
            raise bad(name, f"no texts ({type(states).__name__})", "at least one")
        for text in texts:
            check_tensor(name, text, (None, self.padding.shape[1]), "[l, width]")
            if len(text) > self.length:
                raise bad(name, f"a text of {len(text)} tokens", f"at most {self.length}")
        return len(texts)

    def empty(self, batch: int) -> Float[Tensor, "b length e"]:
        """Return the states of `batch` empty texts; a ValueError for a number below 1."""
        check_total("batch", check_size("batch", batch), self.length, self.padding.shape[1])
        return self.padding[: self.length].repeat(batch, 1, 1)

    def forward(self, states: Float[Tensor, "b l e"]) -> Float[Tensor, "b l d"]:
        """Project states [b, l, text_width] to tokens [b, l, width].

        Raises:
            ValueError: another shape.
        """
        allowed = (None, None, self.proj.in_features)
        check_tensor("states", states, allowed, "[b, l, width]", like=weight_of(self.proj))
        return self.norm(self.proj(states))
