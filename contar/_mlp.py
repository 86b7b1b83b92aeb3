"""MLPs of two layers on a CPU by oneDNN, their activation within a product."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from contar._linear import apply_linear, is_bare, linear, product, suits
from contar._typing import Tensor

_WIDE, _OFTEN = 512, 8  # width and calls from which `packed` saves more than it takes


class Mlp(nn.Module):
    """Two linear layers with an activation between them.

    Args:
        inputs: width of what it reads.
        hidden: width between the layers, that of the inputs if None.
        outputs: width of what it makes, that of the inputs if None.
        act_layer: kind of the activation.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int | None = None,
        outputs: int | None = None,
        *,
        act_layer: type[nn.Module] = nn.GELU,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden or inputs)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden or inputs, outputs or inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Transform the last axis."""
        return self.fc2(self.act(self.fc1(x)))


def apply_mlp(mlp: Any, x: Tensor, dropout: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Return what an `Mlp` makes of x, with `dropout` behind its activation and at its end."""
    if dropout is not None:
        hidden = dropout(mlp.act(apply_linear(mlp.fc1, x)))
        return dropout(apply_linear(mlp.fc2, hidden))
    if not (suits(x, mlp.fc1.weight) and _is_plain(mlp)):
        return mlp(x)
    if torch.is_grad_enabled():
        return apply_linear(mlp.fc2, mlp.act(apply_linear(mlp.fc1, x)))
    return linear(_first(mlp, x, mlp.fc1.weight), mlp.fc2.weight, mlp.fc2.bias)


def packed(mlp: Any, x: Tensor, calls: int) -> Callable[[Tensor], Tensor]:
    """Return an `Mlp`, with its present weights, as a function for many calls alike.

    oneDNN multiplies in blocks of its own, into which each call has to lay a weight. Here that is
    done once.

    Args:
        mlp: whose layers have the same width.
        x: of a call's shape, dtype and device.
        calls: that will come.
    """
    fused = not torch.is_grad_enabled() and suits(x, mlp.fc1.weight) and _is_plain(mlp)
    if not fused or calls < _OFTEN or x.shape[-1] < _WIDE:
        return partial(apply_mlp, mlp)
    rows = x.numel() // x.shape[-1]
    first, second = (
        torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows)
        for layer in (mlp.fc1, mlp.fc2)
    )
    return lambda x: product(_first(mlp, x, first), second, mlp.fc2.bias, "none", [], "")


def _first(mlp: Any, x: Tensor, weight: Tensor) -> Tensor:
    """Return the first layer's activated values."""
    name, algorithm = ("swish", "") if type(mlp.act) is nn.SiLU else ("gelu", mlp.act.approximate)
    return product(x, weight, mlp.fc1.bias, name, [], algorithm)


def _is_plain(mlp: Any) -> bool:
    """Whether an MLP is two linear layers and an activation that the product takes along."""
    return (
        is_bare(mlp, Mlp)
        and (is_bare(mlp.act, nn.SiLU) or is_bare(mlp.act, nn.GELU))
        and is_bare(mlp.fc1, nn.Linear)
        and is_bare(mlp.fc2, nn.Linear)
    )
