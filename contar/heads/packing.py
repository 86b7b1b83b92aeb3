"""An MLP's weights in the layout in which a CPU multiplies few rows fastest."""

from collections.abc import Callable
from typing import Any

import torch
from timm.layers.mlp import Mlp
from torch import nn
from torch.utils.flop_counter import register_flop_formula

from contar._typing import Tensor

_WIDTH, _CALLS = 512, 8  # from which the layout saves more than making it takes
_reorder = torch.ops.mkldnn._reorder_linear_weight
_linear = torch.ops.mkldnn._linear_pointwise


def pack(mlp: nn.Module, rows: int, calls: int) -> Callable[[Tensor], Tensor]:
    """Return a function equal to an MLP of two linear layers and a SiLU, with its present weights.

    oneDNN multiplies in blocks of its own, into which each call has to lay a plain weight; here
    that is done once, with the operations by which torch's own compiler does it. Where it would
    gain nothing the MLP itself is returned: on a GPU, under autograd, for few calls or a small
    width, or where there is more to it than its layers (an adapter, a hook).

    Args:
        mlp: timm's, as a head's blocks have it.
        rows: of each call.
        calls: that will come.
    """
    if not _gains(mlp, calls):
        return mlp
    of: Any = mlp
    layers = [
        (_reorder(layer.weight.detach(), rows), layer.bias, then)
        for layer, then in ((of.fc1, "swish"), (of.fc2, "none"))
    ]

    def packed(x: Tensor) -> Tensor:
        for weight, bias, then in layers:
            x = _linear(x, weight, bias, then, [], "")
        return x

    return packed


def _gains(mlp: Any, calls: int) -> bool:
    if type(mlp) is not Mlp or type(mlp.act) is not nn.SiLU or not _is_bare(mlp):
        return False
    if not all(type(layer) is nn.Linear and _is_bare(layer) for layer in (mlp.fc1, mlp.fc2)):
        return False
    weight = mlp.fc1.weight
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    return (
        weight.dtype in (torch.float32, torch.bfloat16)
        and min(weight.shape) >= _WIDTH
        and calls >= _CALLS
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


def _is_bare(module: nn.Module) -> bool:
    return not (module._forward_hooks or module._forward_pre_hooks)


@register_flop_formula(_linear)
def _flops(x: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
    """Twice the multiplications, as of any linear layer."""
    return 2 * x.numel() * weight[0]
