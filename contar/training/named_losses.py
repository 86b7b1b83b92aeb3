"""The losses that an objective names, over the parts and processes of a step."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from contar._errors import bad

_TOKENS = "tokens"  # how many values the losses are means over, beside them
_COLUMNS = ("step", "norm", "rate", "seconds")  # of the log, beside the losses


class NamedLosses:
    """Sums of named losses over the parts of a step, which need not all have each.

    They are in float64 if `exact`.
    """

    def __init__(self, *, exact: bool = False) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Any] = {}
        self._weighs: bool | None = None
        self._dtype = torch.float64 if exact else None

    def add(self, losses: Any) -> Tensor:
        """Add one part's; return what it adds to the gradient: its loss, times its tokens.

        Raises:
            ValueError: no named scalars with "loss" among them, a name of another column, or a
                number of tokens in some parts only.
        """
        values = _checked(losses)
        tokens = values.pop(_TOKENS, None)
        if self._weighs not in (None, tokens is not None):
            raise bad("losses", "a number of tokens in some parts only", "one in each, or in none")
        self._weighs = tokens is not None
        weight = 1 if tokens is None else tokens
        for name, value in values.items():
            value = (value if self._dtype is None else value.to(self._dtype)) * weight
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + weight
        return losses["loss"] * weight

    def unweigh(self, parameters: Iterable[nn.Parameter], accelerator: Any) -> None:
        """Divide gradients, summed over parts by their tokens, by the tokens of a mean part."""
        if not self._weighs:
            return
        parts = accelerator.gradient_accumulation_steps
        mean = self._counts["loss"].float().to(accelerator.device) / parts
        mean = accelerator.reduce(mean, "mean")
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.div_(mean)

    @property
    def loss(self) -> Tensor:
        """Return the mean over the parts of what is minimised."""
        return self._sums["loss"] / self._counts["loss"]

    def means(self, accelerator: Any) -> dict[str, float]:
        """Return the mean of each over all parts and processes that have it."""
        if accelerator.num_processes == 1:
            return {name: float(x) / float(self._counts[name]) for name, x in self._sums.items()}
        from accelerate.utils import gather_object

        names = dict.fromkeys(name for mine in gather_object([list(self._sums)]) for name in mine)
        mine = [[float(x.get(name, 0)) for name in names] for x in (self._sums, self._counts)]
        both = torch.tensor(mine, dtype=self._dtype or torch.float32, device=accelerator.device)
        sums, counts = accelerator.reduce(both, "sum")
        return dict(zip(names, (sums / counts).tolist(), strict=True))


def _checked(losses: Any) -> dict[str, Tensor]:
    """Return an objective's losses without gradients, once they are named scalars."""
    if not isinstance(losses, Mapping) or "loss" not in losses:
        got = list(losses) if isinstance(losses, Mapping) else type(losses).__name__
        raise bad("losses", got, 'a mapping from names to losses, "loss" among them')
    for name, value in losses.items():
        if not isinstance(name, str) or name in _COLUMNS or {"\n", "\r"} & set(name):
            raise bad("losses", name, "names of one line, other than " + ", ".join(_COLUMNS))
        if not isinstance(value, Tensor) or value.numel() != 1:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise bad(f"losses[{name!r}]", shape, "a tensor of one number")
    return {name: value.detach().reshape(()) for name, value in losses.items()}
