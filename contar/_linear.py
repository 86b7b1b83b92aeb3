"""Linear layers on a CPU by oneDNN, where that is faster than what torch takes for them.

Without gradients torch multiplies float32 matrices by MKL, and in bfloat16 copies the bias for each
product. oneDNN's product of float32 is up to 1.3 times as fast on an AMD EPYC, and takes bias and
activation along. Whatever does not suit (a GPU, gradients, a small layer, one that is wrapped or
hooked) runs as it always did.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import register_flop_formula

from contar import _onednn
from contar._typing import Tensor

_LARGE, _MUCH = 2**18, 2**24  # values of a weight, products of a call, from which float32 gains
# (x, weight, bias, activation, its numbers, its algorithm)
product: Any = torch.ops.mkldnn._linear_pointwise if _onednn.BUILT else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x @ weight.T + bias."""
    if suits(x, weight):
        return product(x, weight, bias, "none", [], "")
    return functional.linear(x, weight, bias)


def apply_linear(layer: nn.Module, x: Tensor) -> Tensor:
    """Return what a linear layer makes of x; one that is more than that is called as it is."""
    return linear(x, layer.weight, layer.bias) if is_bare(layer, nn.Linear) else layer(x)  # type: ignore[arg-type]


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether `product` multiplies these as any other would, and faster."""
    few = weight.numel() < _LARGE and x.numel() * len(weight) < _MUCH
    return not (few and x.dtype == torch.float32) and _onednn.at_hand(x, weight)


def is_bare(module: nn.Module, kind: type) -> bool:
    """Whether a module is of this kind itself, and nothing hooks into its calls."""
    return type(module) is kind and not (module._forward_hooks or module._forward_pre_hooks)


def _flops(x: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
    """Twice the multiplications, as of any linear layer."""
    return 2 * x.numel() * weight[0]


if _onednn.BUILT:
    register_flop_formula(product)(_flops)
