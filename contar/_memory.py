"""How much memory a computation needs, found without doing it."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from contar._typing import Tensor


class _Watch(TorchDispatchMode):
    """Add up the storages that are alive, and keep the largest sum."""

    def __init__(self) -> None:
        super().__init__()
        self.alive, self.peak = 0, 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        inputs = {x.untyped_storage()._cdata for x in tree_leaves(args) if isinstance(x, Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in inputs and storage._cdata not in self._known:
                    self._note(storage)
        if func is torch.ops.aten.convolution.default:
            copied = args[0].numel() * args[0].element_size()
            self.peak = max(self.peak, self.alive + copied)
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size


def peak_bytes(function: Callable[[], object]) -> int:
    """Return the most bytes that tensors made by `function` take at once, beside its inputs.

    Run on `meta` tensors it costs neither memory nor time. Of what kernels take for themselves, the
    copy of its input that a convolution makes on the CPU (in the layout that it works in) is in it.
    """
    with torch.no_grad(), _Watch() as watch:
        function()
    return watch.peak
