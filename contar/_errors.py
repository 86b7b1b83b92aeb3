"""Errors that name the argument, what came and what is allowed."""

import math
import operator
from collections.abc import Sequence


def bad(name: str, got: object, allowed: str) -> ValueError:
    """Return (do not raise) the error for argument `name`."""
    return ValueError(f"{name}: got {got!r}, allowed: {allowed}")


def check_count(name: str, value: object, minimum: int = 1) -> int:
    """Return `value` as an int of at least `minimum`.

    Raises:
        ValueError: `value` is no integer (booleans are none), or too small.
    """
    try:
        count = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = None
    if count is None or isinstance(value, bool) or count < minimum:
        raise bad(name, value, f"an integer of at least {minimum}")
    return count


def check_number(name: str, value: object, low: float = -math.inf, high: float = math.inf) -> float:
    """Return `value` as a finite float in [low, high].

    Raises:
        ValueError: `value` is no number, is NaN or infinite, or lies outside.
    """
    finite = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not finite or not low <= value <= high:  # type: ignore[operator]
        raise bad(name, value, f"a finite number in [{low}, {high}]")
    return float(value)  # type: ignore[arg-type]


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise a ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise bad(name, value, "one of " + ", ".join(repr(c) for c in choices))


def check_shape(name: str, shape: Sequence[int], allowed: Sequence[int | None], axes: str) -> None:
    """Raise a ValueError unless `shape` fits `allowed`, where None is any size.

    Args:
        name: the argument.
        shape: its shape.
        allowed: one size per axis, None for any.
        axes: the axes in words for the message, for example "[b, n, d]".
    """
    fits = len(shape) == len(allowed)
    if not fits or any(a not in (None, s) for s, a in zip(shape, allowed, strict=True)):
        sizes = ", ".join("any" if a is None else str(a) for a in allowed)
        raise bad(name, tuple(shape), f"shape {axes} = [{sizes}]")
