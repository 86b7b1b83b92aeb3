"""Faster layers for models on a CPU: the same weights, the same numbers up to rounding.

torch multiplies float32 matrices by MKL, copies a bias for each product of bfloat16, and runs the
convolutions of a single clip in a loop of its own. oneDNN, which torch carries, is up to 1.4 and 4
times as fast on an AMD EPYC. `speed_up` gives a model's plain layers classes that call it, `plain`
takes them back; nothing else of a model changes. Private names of torch are reached here only:
where one is missing, `speed_up` leaves a model as it is.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional

from contar._layers import CausalConv3d
from contar._typing import Tensor

__all__ = ["laid_out", "plain", "speed_up"]

Model = TypeVar("Model", bound=nn.Module)
_LARGE, _MUCH = 2**18, 2**24  # values of a weight, products of a call, from which float32 gains
_WIDE, _OFTEN = 512, 8  # width and calls from which laying out saves more than it takes

try:
    from torch.utils.flop_counter import (
        conv_flop_count,
        flop_registry,
        register_flop_formula,
        sdpa_backward_flop_count,
        sdpa_flop_count,
    )

    # Takes x, weight, bias, name of an activation, its numbers, its algorithm.
    _product: Any = torch.ops.mkldnn._linear_pointwise
    _lay_out: Any = torch.ops.mkldnn._reorder_linear_weight
    _convolve: Any = torch.ops.aten.mkldnn_convolution
    _has_bfloat16: Any = torch.ops.mkldnn._is_mkldnn_bf16_supported
    _attend: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    _attend_back: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    _in_transform: Any = torch._C._are_functorch_transforms_active
    _KNOWN = torch.backends.mkldnn.is_available() and isinstance(forward_ad._current_level, int)
except (AttributeError, ImportError):  # of another torch
    _KNOWN = False


def speed_up(model: Model) -> Model:
    """Replace a model's layers on the CPU by faster ones, in place, and return it.

    Its parameters, their names and their order stay, hooks too. A layer runs as it always did
    wherever oneDNN does not suit: moved to a GPU, small, in other dtypes, compiled, under autocast
    or in a transform of `torch.func`. Layers of kinds of their own stay as they are.

    Example:
        >>> layer = speed_up(nn.Linear(2, 3))
        >>> isinstance(layer, nn.Linear), type(plain(layer)) is nn.Linear
        (True, True)
    """
    _keep_freed_memory()
    for module in model.modules() if _KNOWN else ():
        fast = _FAST.get(type(module))
        if fast is not None and module.weight.device.type == "cpu":  # type: ignore[union-attr]
            module.__class__ = fast
    return model


def _keep_freed_memory() -> None:
    """Have the C library keep up to 64 MiB that is freed, instead of fetching it anew each time.

    glibc gives large blocks back to the system, until it has freed one of that size itself, of up
    to 32 MiB (mallopt(3), M_MMAP_THRESHOLD). Pages that come back have to be made, which takes a
    tenth to a sixth of a head's time. The block here is freed at once, and never touched.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8, device="cpu")


def plain(model: Model) -> Model:
    """Undo `speed_up`, in place, and return the model."""
    for module in model.modules():
        kind = _replaced(type(module))
        if kind is not type(module):
            module.__class__ = kind
    return model


@contextmanager
def laid_out(layers: Iterable[nn.Module], rows: int, calls: int) -> Iterator[None]:
    """Within it, layers are called many times alike.

    oneDNN multiplies in blocks of its own, into which each call has to lay the weight. Here that is
    done once, where it pays, for the calls of this thread; layers that are not faster ones are as
    they were. Nothing may change the weights meanwhile.

    Args:
        layers: linear ones.
        rows: of a call.
        calls: that will come.
    """
    weights: dict[nn.Module, Tensor] = {}
    if calls >= _OFTEN and not torch.is_grad_enabled():
        for layer in layers:
            if isinstance(layer, FastLinear) and min(layer.weight.shape) >= _WIDE:
                weight = layer.weight.detach()
                if _at_hand(weight, weight):
                    weights[layer] = _lay_out(weight, rows)
    token = _laid_out.set(weights)
    try:
        yield
    finally:
        _laid_out.reset(token)


_laid_out: ContextVar[dict[nn.Module, Tensor] | None] = ContextVar("_laid_out", default=None)


class _Faster(type):
    """Class of a faster layer, equal to the one that it replaces.

    So what looks layers up by their very type, as torch's quantisation does, finds it.
    """

    def __eq__(cls, other: object) -> bool:
        return _replaced(cls) is _replaced(other)

    def __hash__(cls) -> int:
        return type.__hash__(_replaced(cls))


def _replaced(kind: Any) -> Any:
    return vars(kind).get("replaces", kind) if isinstance(kind, _Faster) else kind


class FastLinear(nn.Linear, metaclass=_Faster):
    """A linear layer by oneDNN where that suits."""

    replaces = nn.Linear

    def forward(self, input: Tensor) -> Tensor:
        """Return input @ weight.T + bias."""
        if torch.compiler.is_compiling():  # whose graphs should know no number of tokens
            return super().forward(input)
        kept = (_laid_out.get() or {}).get(self)
        if kept is not None and _fits(input, kept) and not torch.is_grad_enabled():
            return _product(input, kept, self.bias, "none", [], "")  # all else was looked at
        outputs, weight = self.out_features, self.weight
        few = self.in_features * outputs < _LARGE and input.numel() * outputs < _MUCH
        if (few and input.dtype == torch.float32) or not _at_hand(input, weight):
            return functional.linear(input, weight, self.bias)
        if torch.is_grad_enabled():
            return _Product.apply(input, weight, self.bias)  # type: ignore[return-value]
        return _product(input, weight, self.bias, "none", [], "")


class FastCausalConv3d(CausalConv3d, metaclass=_Faster):
    """A causal convolution by oneDNN where that suits."""

    replaces = CausalConv3d

    def forward(self, input: Tensor, before: Tensor | None = None) -> Tensor:
        """Convolve."""
        # With gradients there are several clips, for which torch takes oneDNN by itself.
        if torch.is_grad_enabled() or not _at_hand(input, self.weight):
            return super().forward(input, before)
        sizes = (self.padding, self.stride, self.dilation, self.groups)
        return _convolve(self.padded(input, before), self.weight, self.bias, *sizes)


_FAST: dict[type, type] = {nn.Linear: FastLinear, CausalConv3d: FastCausalConv3d}


def _at_hand(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN takes these as any other would: plain tensors on a CPU, and plain calls."""
    if not _KNOWN or torch.compiler.is_compiling() or not x.is_cpu or not weight.is_cpu:
        return False
    if type(x) is not torch.Tensor or type(weight) not in (torch.Tensor, nn.Parameter):
        return False
    if x.dtype != weight.dtype or x.dtype not in (torch.float32, torch.bfloat16) or not x.numel():
        return False
    if not torch.backends.mkldnn.enabled or torch.is_autocast_enabled("cpu"):
        return False
    if _in_transform() or forward_ad._current_level >= 0:
        return False
    return x.dtype == torch.float32 or _has_bfloat16()


def _fits(x: Tensor, weight: Tensor) -> bool:
    """Whether x is a plain tensor on the CPU, of the weight's dtype, with values."""
    return type(x) is torch.Tensor and x.is_cpu and x.dtype == weight.dtype and x.numel() > 0


class _Product(torch.autograd.Function):
    """The product where gradients are on.

    A weight's gradient is torch's own product: for oneDNN both factors would have to be laid out
    anew. It is made whenever the weight may have one: which gradients are asked for, a Function is
    not told.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _product(x, weight, bias, "none", [], "")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _ = inputs
        of_x, of_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if of_weight else None, weight if of_x else None)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows, back = grad.reshape(-1, grad.shape[-1]), None
        if of_x:
            suits = _at_hand(grad, weight)
            back = _Product.apply(grad, weight.t(), None) if suits else grad @ weight
        return (
            back,  # type: ignore[return-value]
            rows.t() @ x.reshape(-1, x.shape[-1]) if of_weight else None,
            rows.sum(0) if of_bias else None,
        )


def _product_flops(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    return 2 * x.numel() * weight[0]


def _convolution_flops(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return conv_flop_count(x, weight, out_shape)  # type: ignore[possibly-unbound]


def _attention_flops(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(q, k, v)  # type: ignore[possibly-unbound]


def _attention_back_flops(grad: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return sdpa_backward_flop_count(grad, q, k, v)  # type: ignore[possibly-unbound]


if _KNOWN:  # for torch's `FlopCounterMode`, unless torch itself counts them by now
    _formulas = {_product: _product_flops, _convolve: _convolution_flops}  # type: ignore[possibly-unbound]
    _formulas |= {_attend: _attention_flops, _attend_back: _attention_back_flops}  # type: ignore[possibly-unbound]
    for _operation, _flops in _formulas.items():
        if _operation not in flop_registry:  # type: ignore[possibly-unbound]
            register_flop_formula(_operation)(_flops)  # type: ignore[possibly-unbound]
