"""What is made while torch's default dtype and device are others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

OTHERS = [(torch.bfloat16, "cpu"), (torch.float64, "cpu"), (torch.float32, "meta")]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=seeded(), dtype=torch.float32, device="cpu")


@contextmanager
def defaults(dtype: torch.dtype, device: str) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.set_default_device(device)
    try:
        yield
        assert torch.get_default_dtype() == dtype
        assert torch.empty(0).device.type == device
    finally:
        torch.set_default_dtype(before)
        torch.set_default_device(None)


def leaves(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in leaves(part)]
    if isinstance(value, Tensor | str | int | float) or value is None:
        return [value]
    return leaves(list(vars(value).values()))


def assert_independent(make: Callable[[], Any]) -> None:
    expected = leaves(make())
    for dtype, device in OTHERS:
        with defaults(dtype, device):
            made = leaves(make())
        for one, two in zip(made, expected, strict=True):
            if isinstance(two, Tensor):
                assert (one.dtype, one.device) == (two.dtype, two.device)
                assert torch.equal(one, two)
            else:
                assert one == two
