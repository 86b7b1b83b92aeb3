"""The losses that an objective names, over the parts and processes of a step."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from contar._errors import bad

_COLUMNS = ("step", "norm", "rate", "seconds")  # of the log, beside the losses


class NamedLosses:
    """Sums of named losses over the parts of a step, which need not all have each."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, losses: Any) -> None:
        """Add one part's.

        Raises:
            ValueError: no named scalars with "loss" among them, or a name of another column.
        """
        if not isinstance(losses, Mapping) or "loss" not in losses:
            got = list(losses) if isinstance(losses, Mapping) else type(losses).__name__
            raise bad("losses", got, 'a mapping from names to losses, "loss" among them')
        for name, value in losses.items():
            if not isinstance(name, str) or name in _COLUMNS or {"\n", "\r"} & set(name):
                raise bad("losses", name, "names of one line, other than " + ", ".join(_COLUMNS))
            if not isinstance(value, Tensor) or value.numel() != 1:
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise bad(f"losses[{name!r}]", shape, "a tensor of one number")
            value = value.detach().reshape(())
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    @property
    def loss(self) -> Tensor:
        """Return the mean over the parts of what is minimised."""
        return self._sums["loss"] / self._counts["loss"]

    def means(self, accelerator: Any) -> dict[str, float]:
        """Return the mean of each over all parts and processes that have it."""
        if accelerator.num_processes == 1:
            return {name: float(x) / self._counts[name] for name, x in self._sums.items()}
        from accelerate.utils import gather_object

        names = dict.fromkeys(name for mine in gather_object([list(self._sums)]) for name in mine)
        both = torch.tensor(
            [
                [float(self._sums.get(name, 0.0)) for name in names],
                [self._counts.get(name, 0) for name in names],
            ],
            device=accelerator.device,
        )
        sums, counts = accelerator.reduce(both, "sum")
        return dict(zip(names, (sums / counts).tolist(), strict=True))
