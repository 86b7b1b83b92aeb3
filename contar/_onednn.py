"""Whether oneDNN is at hand for tensors, where its operations are called by name.

torch chooses a CPU's library by rules of thumb, and for float32 often not the fastest one. The
operations are those that torch's own compiler calls.
"""

import torch
from torch.autograd import forward_ad

from contar._typing import Tensor

BUILT = torch.backends.mkldnn.is_available()


def at_hand(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN takes these: on a CPU, without derivatives, float32 or bfloat16.

    Nowhere inside `torch.backends.mkldnn.flags(enabled=False)`.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or forward_ad._current_level >= 0:
        return False
    if not x.numel() or x.dtype not in (torch.float32, torch.bfloat16):
        return False
    if x.device.type != "cpu" or weight.device.type != "cpu" or x.dtype != weight.dtype:
        return False
    if not (BUILT and torch.backends.mkldnn.enabled) or torch.is_autocast_enabled("cpu"):
        return False
    return x.dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
