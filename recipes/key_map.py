"""Parameter names of foreign checkpoints: what the key maps of the recipes share."""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from contar._errors import bad

Parts = Sequence[tuple[str, str]]


def renamed(name: str, parts: Parts, offsets: Mapping[str, int] | None = None) -> str:
    """Return the foreign name of one of our parameters.

    Args:
        name: ours.
        parts: beginnings of names, (ours, foreign), the first that fits counts; `{i}` is a block's
            number.
        offsets: what is added to the numbers of a part of ours.

    Raises:
        ValueError: a parameter that no part begins.
    """
    for ours, theirs in parts:
        pattern = re.escape(ours).replace(r"\{i\}", r"(\d+)")
        if match := re.match(pattern, str(name)):
            offset = (offsets or {}).get(ours, 0)
            number = str(int(match[1]) + offset) if match.groups() else ""
            return theirs.replace("{i}", number) + name[match.end() :]
    raise bad("name", name, "a parameter that official checkpoints have")


def check_weights(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise a ValueError unless `state` has exactly the names and shapes of `wanted`.

    The error lists all that is missing, unexpected or misshapen.
    """
    if not isinstance(state, Mapping):
        raise bad("state", type(state).__name__, "a mapping from names to tensors")
    problems = [f"missing {key}" for key in wanted if key not in state]
    problems += [f"unexpected {key}" for key in state if key not in wanted]
    problems += [
        f"{key} is {_shape(state[key])}, must be {_shape(value)}"
        for key, value in wanted.items()
        if key in state and _shape(state[key]) != _shape(value)
    ]
    if problems:
        raise bad("state", "; ".join(problems), "exactly the weights of this model")


def _shape(value: object) -> tuple[int, ...] | str:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
