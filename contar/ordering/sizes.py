"""How many tokens each set predicts."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal, get_args

from contar._errors import bad, check_choice, check_count, check_size

Curve = Literal["cosine", "linear", "uniform"]
"""How the sizes of sets grow."""
Rounding = Literal["nearest", "floor"]
"""How sizes become whole numbers: NOVA's way or MAR's."""

# Of n tokens those still hidden after k of K sets. Whole numbers come out whole, and the cosine is
# in the order of operations of NOVA and MAR, since both round to the last digit.
_HIDDEN: dict[str, Callable[[int, int, int], float]] = {
    "cosine": lambda n, k, sets: math.cos(0.5 * math.pi * k / sets) * n,
    "linear": lambda n, k, sets: n * (sets**2 - k**2) / sets**2,  # the sizes grow linearly
    "uniform": lambda n, k, sets: n * (sets - k) / sets,
}


def set_sizes(
    tokens: int, sets: int, *, curve: Curve = "cosine", rounding: Rounding = "nearest"
) -> tuple[int, ...]:
    """Return the size of each set; they are positive and add up to `tokens`.

    Args:
        sets: asked for, at most `tokens`.
        curve: how the hidden share falls from 1 to 0 over the sets. "cosine": cos(pi r / 2), a few
            tokens first and many at the end (MaskGIT, arXiv 2202.04200, section 3.3); "linear":
            1 - r², sizes that grow linearly; "uniform": 1 - r, sizes as even as they come.
        rounding: of the hidden tokens. "nearest" (half to even) drops the sets that come out
            empty, so there may be fewer than `sets` (NOVA); "floor" predicts at least one token in
            each set and so keeps them all (MAR).

    Raises:
        ValueError: a number below 1, more sets than tokens, an unknown curve or rounding.

    Example:
        >>> set_sizes(24, 4)
        (2, 5, 8, 9)
    """
    check_size("tokens", tokens)
    if check_count("sets", sets) > tokens:
        raise bad("sets", sets, f"at most the {tokens} tokens there are")
    check_choice("curve", curve, tuple(_HIDDEN))
    check_choice("rounding", rounding, get_args(Rounding))
    hidden = [tokens]
    for k in range(1, sets + 1):
        exact = _HIDDEN[curve](tokens, k, sets)
        if rounding == "nearest":
            hidden.append(round(exact))
        else:  # one at least now, and one at least for each set to come
            hidden.append(max(sets - k, min(hidden[-1] - 1, math.floor(exact))))
    hidden[-1] = 0
    sizes = (before - after for before, after in pairwise(hidden))
    return tuple(size for size in sizes if size)
