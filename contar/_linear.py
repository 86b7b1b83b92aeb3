"""Linear layers on a CPU by oneDNN, where that is faster than what torch takes for them.

For float32 torch multiplies matrices by MKL, and in bfloat16 copies the bias for each product.
oneDNN's product of float32 is up to 1.4 times as fast on an AMD EPYC, and takes bias and activation
along. Whatever does not suit (a GPU, a small layer, one that is wrapped or hooked) runs as it
always did.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from contar import _onednn
from contar._typing import Tensor

_LARGE, _MUCH = 2**18, 2**24  # values of a weight, products of a call, from which float32 gains
# (x, weight, bias, activation, its numbers, its algorithm)
product: Any = torch.ops.mkldnn._linear_pointwise if _onednn.BUILT else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x @ weight.T + bias."""
    if not suits(x, weight):
        return functional.linear(x, weight, bias)
    if torch.is_grad_enabled():
        return _Product.apply(x, weight, bias)
    return product(x, weight, bias, "none", [], "")


def apply_linear(layer: nn.Module, x: Tensor) -> Tensor:
    """Return what a linear layer makes of x; one that is more than that is called as it is."""
    return linear(x, layer.weight, layer.bias) if is_bare(layer, nn.Linear) else layer(x)  # type: ignore[arg-type]


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN multiplies these as any other would, and faster."""
    few = weight.numel() < _LARGE and x.numel() * len(weight) < _MUCH
    return not (few and x.dtype == torch.float32) and _onednn.at_hand(x, weight)


def is_bare(module: nn.Module, kind: type) -> bool:
    """Whether a module is of this kind itself, and nothing hooks into its calls."""
    return type(module) is kind and not (module._forward_hooks or module._forward_pre_hooks)


class _Product(torch.autograd.Function):
    """The product where gradients are on.

    That of a weight is torch's own: for oneDNN both factors would have to be laid out anew.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return x @ weight.T + bias."""
        return product(x, weight, bias, "none", [], "")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the factors."""
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Return the gradients of what wants one."""
        x, weight = ctx.saved_tensors
        wanted, rows = ctx.needs_input_grad, grad.flatten(0, -2)
        return (
            linear(grad, weight.t()) if wanted[0] else None,
            rows.t() @ x.flatten(0, -2) if wanted[1] else None,
            rows.sum(0) if wanted[2] else None,
        )


def _flops(x: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * x.numel() * weight[0]


if _onednn.BUILT:
    _onednn.count_flops(product, _flops)
