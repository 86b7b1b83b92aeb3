"""What a fast result has to agree with: the same in plain operations."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn


@contextlib.contextmanager
def plain(dtype: str = "float32") -> Iterator[dict[str, Any]]:
    """Give the options under which attention is its formula, and run float32 without oneDNN.

    In bfloat16, where a processor's other products take minutes, attention alone is another.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of Intel's GPUs, which nobody asked about
        with torch.backends.mkldnn.flags(enabled=dtype != "float32"):
            yield {"backend": "plain"}


def largest(result: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the largest difference, over the largest wanted value."""
    difference = (result.float() - wanted.float()).abs().max()
    return (difference / wanted.float().abs().max()).item()


def close(dtype: str) -> Any:
    """Return how far apart two results of a network may be."""
    allowed = 1e-4 if dtype == "float32" else 0.1
    return {"rtol": allowed, "atol": allowed}


def check_gradients(model: nn.Module, step: Callable[..., torch.Tensor]) -> None:
    """Raise unless a step's loss and gradients are those of plain operations, by the latter's size.

    Args:
        model: that learns.
        step: sets its gradients, and returns the loss; takes the options of `plain`.
    """

    def results(**options: Any) -> dict[str, torch.Tensor]:
        loss = step(**options).detach()
        grads = {name: weight.grad for name, weight in model.named_parameters()}
        return {"loss": loss, **{name: g.clone() for name, g in grads.items() if g is not None}}

    ours = results()
    with plain() as options:
        wanted = results(**options)
    assert ours.keys() == wanted.keys()
    for name, value in wanted.items():
        scale = value.abs().max().clamp(1e-12)
        torch.testing.assert_close(ours[name] / scale, value / scale, rtol=0, atol=1e-3)
