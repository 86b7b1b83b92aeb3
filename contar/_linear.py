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
from torch.nn.modules.module import _has_any_global_hook

from contar import _onednn
from contar._typing import Tensor

_LARGE, _MUCH = 2**18, 2**24  # values of a weight, products of a call, from which float32 gains
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
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
    if torch.compiler.is_compiling():  # whose graphs should know no number of tokens
        return False
    few = weight.numel() < _LARGE and x.numel() * len(weight) < _MUCH
    return not (few and x.dtype == torch.float32) and _onednn.at_hand(x, weight)


def is_bare(module: nn.Module, kind: type) -> bool:
    """Whether a module is of this kind itself, and a call of it runs its `forward` alone."""
    own = vars(module)
    return type(module) is kind and not (
        any(own[hooks] for hooks in _HOOKS)
        or own.get("_compiled_call_impl")
        or "forward" in own
        or _has_any_global_hook()
    )


class _Product(torch.autograd.Function):
    """The product where gradients are on.

    A weight's gradient is torch's own product: for oneDNN both factors would have to be laid out
    anew. It is made whenever the weight may have one: which gradients are asked for, a Function is
    not told.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return x @ weight.T + bias."""
        return product(x, weight, bias, "none", [], "")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the factors that a gradient needs."""
        x, weight, _ = inputs
        of_x, of_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if of_weight else None, weight if of_x else None)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Return the gradients of what wants one."""
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            linear(grad, weight.t()) if of_x else None,
            rows.t() @ x.reshape(-1, x.shape[-1]) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


def _flops(x: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * x.numel() * weight[0]


if _onednn.BUILT:
    _onednn.count_flops(product, _flops)
