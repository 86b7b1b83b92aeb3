"""Models built for weights that are there: sizes are held against them first."""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from contar._errors import bad

Model = TypeVar("Model", bound=nn.Module)
_SLACK = 4  # parameters may be registered more than once, or be parted and joined in the file
_MOST, _ROOM = 20_000, 2**42  # weights and their numbers, where there is no file yet
_COUNTABLE = 2**20  # sides of a weight whose numbers torch can surely count


class TooLargeError(ValueError):
    """A config asks for more weights than there are."""


def build_for(
    state: Mapping[str, Any] | None,
    make: Callable[[], Model],
    *,
    name: str,
    sizes: Mapping[str, Any],
) -> Model:
    """Return what `make` builds on `meta`, which ends once it is far larger than the weights.

    Args:
        state: the weights; None where there are none to compare with.
        sizes: that `make` builds from; those that are larger than all of the weights' are named.

    Raises:
        ValueError: sizes of a model that is larger than the weights by far.
    """
    tensors = [value for value in (state or {}).values() if isinstance(value, Tensor)]
    count, room = _MOST, _ROOM
    if state is not None:
        count, room = len(tensors), max(_SLACK * sum(map(_numbers, tensors)), 2**26)
    largest = max((side for tensor in tensors for side in tensor.shape), default=count)
    absurd = ", ".join(_beyond(sizes, max(count, largest))) or "sizes"
    got = f"{absurd} of a model far larger than {count} weights"
    too_large = TooLargeError(*bad(name, got, "the sizes of these weights").args)
    with _Count(max(_SLACK * count, 1000), room, too_large), torch.device("meta"):
        try:
            return make()
        except (ArithmeticError, MemoryError, RuntimeError, TypeError) as error:
            if next(_beyond(sizes, _COUNTABLE), None) is None:
                raise
            raise too_large from error


class _Count:
    """Raises `error` at this thread's weight beyond `most`, or beyond `room` numbers in all."""

    def __init__(self, most: int, room: int, error: TooLargeError) -> None:
        self.most, self.room, self.error = most, room, error
        self.weights, self.numbers, self.thread = 0, 0, threading.get_ident()

    def __enter__(self) -> None:
        self.hooks = (
            register_module_parameter_registration_hook(self),
            register_module_buffer_registration_hook(self),
        )

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def __call__(self, module: nn.Module, key: str, weight: Tensor | None) -> None:
        if weight is None or threading.get_ident() != self.thread:
            return
        self.weights += 1
        self.numbers += weight.numel()
        if self.weights > self.most or self.numbers > self.room:
            raise self.error


def _numbers(tensor: Tensor) -> int:
    """Return how many numbers a tensor really holds: an expanded one repeats a few."""
    return min(tensor.numel(), tensor.untyped_storage().nbytes() // tensor.element_size())


def _beyond(sizes: Any, largest: int, name: str = "") -> Iterator[str]:
    """Yield "name=value" of each number in nested sizes that is above `largest`."""
    if isinstance(sizes, Mapping):
        for key, value in sizes.items():
            yield from _beyond(value, largest, f"{name}.{key}" if name else str(key))
    elif hasattr(sizes, "_asdict"):  # a named tuple
        yield from _beyond(sizes._asdict(), largest, name)
    elif isinstance(sizes, list | tuple):
        for index, value in enumerate(sizes):
            yield from _beyond(value, largest, f"{name}[{index}]")
    elif isinstance(sizes, int | float) and sizes > largest:
        yield f"{name}={sizes}"
