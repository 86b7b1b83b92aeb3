"""Linear layers on a CPU by oneDNN, where that is faster than what torch takes by itself.

Without gradients torch multiplies float32 matrices by MKL, and in bfloat16 copies the bias for each
product. oneDNN's product of float32 is up to 1.3 times as fast on an AMD EPYC, and takes bias and
activation along. It is called by the operations that torch's own compiler calls. Whatever does not
suit (a GPU, gradients, a small layer, one that is wrapped or hooked) runs as it always did, and so
does everything inside `torch.backends.mkldnn.flags(enabled=False)`.
"""

from collections.abc import Callable
from typing import Any

import torch
from timm.layers.mlp import Mlp
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional
from torch.utils.flop_counter import register_flop_formula

from contar._typing import Tensor

_LARGE, _MUCH = 2**18, 2**24  # values of a weight, products of a call, from which float32 gains
_WIDE, _OFTEN = 512, 8  # width and calls from which `packed` saves more than it takes
_product = torch.ops.mkldnn._linear_pointwise
_reorder = torch.ops.mkldnn._reorder_linear_weight


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x @ weight.T + bias."""
    if _suits(x, weight):
        return _product(x, weight, bias, "none", [], "")
    return functional.linear(x, weight, bias)


def apply_linear(layer: nn.Module, x: Tensor) -> Tensor:
    """Return what a linear layer makes of x; one that is more than that is called as it is."""
    return linear(x, layer.weight, layer.bias) if _is_bare(layer, nn.Linear) else layer(x)  # type: ignore[arg-type]


def apply_mlp(mlp: Any, x: Tensor) -> Tensor:
    """Return what timm's `Mlp` makes of x."""
    if not (_is_plain(mlp) and _suits(x, mlp.fc1.weight)):
        return mlp(x)
    return linear(_first(mlp, x, mlp.fc1.weight), mlp.fc2.weight, mlp.fc2.bias)


def packed(mlp: Any, x: Tensor, calls: int) -> Callable[[Tensor], Tensor]:
    """Return timm's `Mlp`, with its present weights, as a function for many calls alike.

    oneDNN multiplies in blocks of its own, into which each call has to lay a weight. Here that is
    done once.

    Args:
        mlp: whose layers have the same width.
        x: of a call's shape, dtype and device.
        calls: that will come.
    """
    few = calls < _OFTEN or x.shape[-1] < _WIDE
    if few or not (_is_plain(mlp) and _suits(x, mlp.fc1.weight)):
        return lambda x: apply_mlp(mlp, x)
    rows = x.numel() // x.shape[-1]
    first, second = (_reorder(layer.weight.detach(), rows) for layer in (mlp.fc1, mlp.fc2))
    return lambda x: _product(_first(mlp, x, first), second, mlp.fc2.bias, "none", [], "")


def _first(mlp: Any, x: Tensor, weight: Tensor) -> Tensor:
    """Return the first layer's activated values."""
    name, algorithm = ("swish", "") if type(mlp.act) is nn.SiLU else ("gelu", mlp.act.approximate)
    return _product(x, weight, mlp.fc1.bias, name, [], algorithm)


def _suits(x: Tensor, weight: Tensor) -> bool:
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or forward_ad._current_level >= 0:
        return False
    if x.device.type != "cpu" or weight.device.type != "cpu" or x.dtype != weight.dtype:
        return False
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    if torch.is_autocast_enabled("cpu") or not x.numel():
        return False
    if x.dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    large = weight.numel() >= _LARGE or x.numel() * len(weight) >= _MUCH
    return x.dtype == torch.float32 and large


def _is_plain(mlp: Any) -> bool:
    """Whether an MLP is two linear layers and an activation that the product takes along."""
    return (
        _is_bare(mlp, Mlp)
        and (_is_bare(mlp.act, nn.SiLU) or _is_bare(mlp.act, nn.GELU))
        and _is_bare(mlp.fc1, nn.Linear)
        and _is_bare(mlp.fc2, nn.Linear)
        and type(mlp.norm) is nn.Identity
    )


def _is_bare(module: nn.Module, kind: type) -> bool:
    return type(module) is kind and not (module._forward_hooks or module._forward_pre_hooks)


@register_flop_formula(_product)
def _flops(x: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
    """Twice the multiplications, as of any linear layer."""
    return 2 * x.numel() * weight[0]
