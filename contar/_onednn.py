"""Whether oneDNN is at hand for tensors, where its operations are called by name.

torch chooses a CPU's library by rules of thumb, and for float32 often not the fastest one. The
operations are those that torch's own compiler calls.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import flop_registry, register_flop_formula

from contar._typing import Tensor

BUILT = torch.backends.mkldnn.is_available()


def at_hand(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN takes these: plain tensors on a CPU, float32 or bfloat16.

    Nowhere inside `torch.compile`, `torch.func`, forward-mode differentiation, autocast or
    `torch.backends.mkldnn.flags(enabled=False)`.
    """
    if torch.compiler.is_compiling() or forward_ad._current_level >= 0:
        return False
    if type(x) is not torch.Tensor or type(weight) not in (torch.Tensor, nn.Parameter):
        return False
    if x.device.type != "cpu" or weight.device.type != "cpu" or x.dtype != weight.dtype:
        return False
    if not x.numel() or x.dtype not in (torch.float32, torch.bfloat16):
        return False
    if not (BUILT and torch.backends.mkldnn.enabled) or torch.is_autocast_enabled("cpu"):
        return False
    if torch._C._are_functorch_transforms_active():
        return False
    return x.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def count_flops(operation: Any, formula: Callable[..., int]) -> None:
    """Let torch's `FlopCounterMode` count an operation, unless torch itself does so by now."""
    if operation not in flop_registry:
        register_flop_formula(operation)(formula)
