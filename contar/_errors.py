"""Errors that name the argument, what came and what is allowed."""

import math
import numbers
import operator
import sys
from collections.abc import Sequence
from dataclasses import fields
from types import EllipsisType
from typing import Any, Literal

import torch
from torch import Tensor

LARGEST, DEEPEST = 2**24, 2**13  # of an axis, of layers or steps in a loop
MOST = 2**36  # values of a tensor
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_KINDS = {"float": FLOATS, "int": (torch.int64, torch.int32), "bool": (torch.bool,)}


def bad(name: str, got: object, allowed: str) -> ValueError:
    """Return (do not raise) the error for argument `name`."""
    return ValueError(f"{name}: got {got!r}, allowed: {allowed}")


def check_count(name: str, value: object, minimum: int = 1) -> int:
    """Return `value` as an int of at least `minimum`.

    Raises:
        ValueError: `value` is no integer (booleans are none), or too small.
    """
    if type(value) is int and value >= minimum:
        return value  # in a compiled graph still any int; `index` would fix the one that it saw
    try:  # of numpy's truth values old versions make numbers, with a warning
        truth = isinstance(value, bool) or type(value).__name__ == "bool_"
        count = None if truth else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = None
    if count is None or count < minimum:
        raise bad(name, value, f"an integer of at least {minimum}")
    return count


def check_size(name: str, value: object, minimum: int = 1, maximum: int = LARGEST) -> int:
    """Return `value` as an int that a tensor's axis, or a loop, may have.

    Raises:
        ValueError: as `check_count`, or more than `maximum`: a slip, which would fill the memory.
    """
    if type(value) is int and minimum <= value <= maximum:
        return value
    if isinstance(value, Tensor) and value.dtype == torch.bool:
        raise bad(name, value, f"an integer of at least {minimum}")
    size = check_count(name, value, minimum)
    if size > maximum:
        raise bad(name, value, f"an integer from {minimum} to {maximum}")
    return size


def check_sizes(name: str, sizes: object, things: str) -> None:
    """Raise a ValueError unless `sizes` are those of at least one of `things`."""
    if not _listed(sizes) or not sizes:
        raise bad(name, sizes, f"sizes of at least one {things}")
    for size in sizes:  # type: ignore[attr-defined]
        if type(size) is not int or not 1 <= size <= LARGEST:
            check_size(name, size)


def _listed(values: object) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str | bytes)


def check_total(name: str, *sizes: int) -> None:
    """Raise a ValueError if a tensor of these sizes has more values than any memory holds."""
    if math.prod(sizes) > MOST:
        raise bad(name, sizes, f"sizes whose product is at most {MOST}")


def check_number(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """Return `value` as a finite float in [low, high]; it may be a number of numpy or a fraction.

    Raises:
        ValueError: `value` is no number, is NaN or infinite, or lies outside.
    """
    number = value if isinstance(value, int | float) else plain(value)
    real = isinstance(number, int | float) and not isinstance(number, bool)
    # The comparison is False for NaN; the largest float bounds integers that no float can hold.
    if not real or not abs(number) <= sys.float_info.max or not low <= number <= high:
        raise bad(name, value, f"a finite number in [{low}, {high}]")
    return float(number)


def check_timestep(name: str, value: object, last: int) -> None:
    """Raise a ValueError unless `value` is 0 or a timestep from 1 to `last`: a share is a slip."""
    number = check_number(name, value, 0)
    if number and not 1 <= number <= last:
        raise bad(name, value, f"0, or a timestep from 1 to {last}")


def plain(value: Any) -> Any:
    """Return a number of numpy, or a fraction, as Python's own; within tuples and lists, too."""
    if type(value) in (int, float, bool) or not isinstance(value, numbers.Real | tuple | list):
        return value
    if isinstance(value, tuple | list):
        values = map(plain, value)
        return type(value)(*values) if hasattr(value, "_fields") else type(value)(values)
    if isinstance(value, numbers.Integral):
        return int(value)
    try:
        return float(value)
    except OverflowError:  # of a fraction that no float can hold
        return math.inf  # or less; neither is finite


def keep_plain(record: Any) -> None:
    """Make the numbers in the fields of a frozen dataclass plain, for JSON and for torch."""
    for field in fields(record):
        object.__setattr__(record, field.name, plain(getattr(record, field.name)))


def check_numbers(name: str, values: object, count: int | None = None) -> None:
    """Raise a ValueError unless `values` are finite numbers, at least one, or `count`; or None.

    None is allowed where a `count` is.
    """
    if values is None and count is not None:
        return
    if not _listed(values) or not values or len(values) != (count or len(values)):  # type: ignore[arg-type]
        raise bad(name, values, f"{count or 'one or more'} finite numbers")
    for value in values:  # type: ignore[union-attr]
        if type(value) is not float or not math.isfinite(value):
            check_number(name, value)


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise a ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise bad(name, value, "one of " + ", ".join(repr(c) for c in choices))


def check_instance(name: str, value: object, kind: type) -> None:
    """Raise a ValueError unless `value` is a `kind`."""
    if not isinstance(value, kind):
        raise bad(name, type(value).__name__, f"a {kind.__name__}")


def check_text(name: str, value: object) -> str:
    """Return `value`, a text that UTF-8 can write.

    Raises:
        ValueError: `value` is no str, or has half a character: a surrogate without its other half,
            as a command line makes of bytes that are no UTF-8.
    """
    if not isinstance(value, str):
        raise bad(name, type(value).__name__, "texts, each a str")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise bad(name, value, "a text without lone surrogates, that UTF-8 can write") from None
    return value


def check_callable(name: str, value: object) -> None:
    """Raise a ValueError unless `value` can be called."""
    if not callable(value):
        raise bad(name, type(value).__name__, "a callable")


def check_grid(name: str, value: object, axes: str = "(height, width)") -> tuple[int, ...]:
    """Return `value` as a tuple of positive sizes, one for each of `axes`.

    Raises:
        ValueError: it is no sequence of that length, or a size is below 1.
    """
    if not _listed(value) or len(value) != axes.count(",") + 1:  # type: ignore[arg-type]
        raise bad(name, value, axes)
    check_sizes(name, value, "axis")
    return tuple(map(operator.index, value))  # type: ignore[arg-type]


def check_device(name: str, value: object) -> None:
    """Raise a ValueError unless `value` is a device that torch has here."""
    try:
        device = torch.device(value)  # type: ignore[arg-type]
    except (RuntimeError, TypeError, ValueError, OverflowError):
        raise bad(name, value, "a torch device, as 'cpu' or 'cuda'") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise bad(name, value, f"cpu, or one of the {torch.cuda.device_count()} cuda devices here")
    if device.type not in ("cpu", "cuda", "meta"):
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, ImportError):
            raise bad(name, value, "a device that torch has here") from None


def check_tensor(
    name: str,
    value: object,
    allowed: Sequence[int | EllipsisType | None],
    axes: str,
    *,
    kind: Literal["float", "int", "bool"] = "float",
    like: Tensor | None = None,
    below: int | None = None,
) -> None:
    """Raise a ValueError unless `value` is a tensor of that kind and shape.

    Args:
        allowed: as in `check_shape`.
        axes: as in `check_shape`.
        kind: of its values; "int" is for what torch indexes with.
        like: a tensor that it meets, on the same device and, except under autocast, of its dtype.
        below: of ids, how many things they may name, as in `check_ids`.
    """
    if not isinstance(value, Tensor):
        article = "an" if kind == "int" else "a"
        raise bad(name, type(value).__name__, f"{article} {kind} tensor {axes}")
    if not _fits(value.shape, allowed):
        raise _misshapen(name, value.shape, allowed, axes)
    if value.dtype not in _KINDS[kind]:
        raise bad(name, value.dtype, "one of " + ", ".join(map(str, _KINDS[kind])))
    if below is not None:
        _refuse_outside(name, value, below)
    if like is None:
        return
    if value.device != like.device:
        raise bad(name, f"a tensor on {value.device}", f"one on {like.device}")
    if value.dtype == like.dtype or like.dtype not in FLOATS:  # quantised weights
        return
    if not torch.is_autocast_enabled(value.device.type):
        raise bad(name, value.dtype, f"{like.dtype}, as the weights")


def check_finite(name: str, values: Tensor, allowed: str = "finite values") -> None:
    """Raise a ValueError if a value is NaN or infinite; values on `meta` are none."""
    if values.device.type == "meta" or torch.compiler.is_compiling():
        return
    if not bool(values.isfinite().all()):
        got = "NaN" if bool(values.isnan().any()) else "infinite values"
        raise bad(name, got, allowed)


def check_broadcast(name: str, shape: Sequence[int], target: Sequence[int]) -> None:
    """Raise a ValueError unless `shape` broadcasts to `target`."""
    fits = len(shape) <= len(target)
    pairs = zip(reversed(shape), reversed(target), strict=False)
    if not fits or any(size != 1 and size != full for size, full in pairs):
        raise bad(name, tuple(shape), f"a shape that broadcasts to {tuple(target)}")


def check_ids(name: str, ids: Tensor, count: int) -> None:
    """Raise a ValueError if an id lies outside [0, count).

    Only ids on the CPU are looked at, outside `torch.compile`: elsewhere a look would wait for the
    device or break the graph.
    """
    _refuse_outside(name, ids, count)


def _refuse_outside(name: str, ids: Tensor, count: int) -> None:
    if ids.device.type != "cpu" or torch.compiler.is_compiling() or not ids.numel():
        return
    low, high = (int(bound) for bound in ids.aminmax())
    if low < 0 or high >= count:
        raise bad(name, f"integers from {low} to {high}", f"integers from 0 to {count - 1}")


def check_shape(
    name: str, shape: Sequence[int], allowed: Sequence[int | EllipsisType | None], axes: str
) -> None:
    """Raise a ValueError unless `shape` fits `allowed`, where None is any size.

    Args:
        allowed: one size per axis, None for any; a first `...` stands for any leading axes.
        axes: the axes in words for the message, for example "[b, n, d]".
    """
    if not _fits(shape, allowed):
        raise _misshapen(name, shape, allowed, axes)


def _fits(shape: Sequence[int], allowed: Sequence[int | EllipsisType | None]) -> bool:
    if allowed and allowed[0] is ...:
        shape, allowed = shape[max(0, len(shape) - len(allowed) + 1) :], allowed[1:]
    return len(shape) == len(allowed) and all(
        a is None or a == s for s, a in zip(shape, allowed, strict=True)
    )


def _misshapen(
    name: str, shape: Sequence[int], allowed: Sequence[int | EllipsisType | None], axes: str
) -> ValueError:
    if allowed and allowed[0] is ...:
        allowed = (*[None] * (len(shape) - len(allowed) + 1), *allowed[1:])
    sizes = ", ".join("any" if a is None else str(a) for a in allowed)
    return bad(name, tuple(shape), f"shape {axes} = [{sizes}]")
