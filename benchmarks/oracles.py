"""What a fast result has to agree with: the same in plain operations."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


@contextlib.contextmanager
def plain(dtype: str = "float32") -> Iterator[dict[str, Any]]:
    """Give the options under which attention is its formula, and run float32 without oneDNN.

    In bfloat16 a processor's other products take minutes.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of Intel's GPUs, which nobody asked about
        with torch.backends.mkldnn.flags(enabled=dtype != "float32"):
            yield {"backend": "plain"}


def close(dtype: str) -> Any:
    """Return how far apart two results of a network may be."""
    allowed = 1e-4 if dtype == "float32" else 0.1
    return {"rtol": allowed, "atol": allowed}


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return each weight's gradient as a part of its largest value."""
    grads = {name: weight.grad for name, weight in model.named_parameters()}
    return {name: g / g.abs().max().clamp(1e-12) for name, g in grads.items() if g is not None}
