"""Laws of the times at which a flow is learned."""

import math
from typing import Any, Literal, get_args

import torch

from contar._errors import bad, check_choice, check_number
from contar._random import Generators, normal, uniform
from contar._typing import Float, Tensor

TimeLaw = Literal["uniform", "logit_normal", "cosine"]


def draw_times(
    *shape: int,
    law: TimeLaw,
    logit: tuple[float, float] = (0.0, 1.0),
    generator: Generators,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "..."]:
    """Draw times from 0 to 1.

    Source: Esser et al. 2024, arXiv 2403.03206, section 3.1.

    Args:
        shape: of the result; the first axis is the batch of the generators.
        law: "uniform"; "logit_normal", the sigmoid of a normal number; or "cosine", as a diffusion
            with a cosine schedule has them, 1 - 1 / (tan(pi u / 2) + 1) for a uniform u.

    Raises:
        ValueError: an unknown law, or a `logit` that is no mean and deviation.
    """
    check_law(law, logit)
    options: Any = {"generator": generator, "device": device}
    if law == "logit_normal":
        mean, deviation = logit
        return (normal(*shape, **options) * deviation + mean).sigmoid()
    return times_at(uniform(*shape, **options), law, logit)


def times_at(chance: Tensor, law: TimeLaw, logit: tuple[float, float]) -> Tensor:
    """Return the times below which a law has the shares `chance`, which are not looked at."""
    if law == "uniform":
        return chance
    if law == "cosine":
        return 1 - 1 / ((chance * (math.pi / 2)).tan() + 1)
    mean, deviation = logit
    number = torch.special.ndtri(chance).clamp(-40, 40)  # infinite at 0 and 1
    return (number * deviation + mean).sigmoid()


def check_law(law: object, logit: object, name: str = "law") -> None:
    """Raise a ValueError unless `draw_times` takes these."""
    check_choice(name, law, get_args(TimeLaw))
    if not isinstance(logit, tuple | list) or len(logit) != 2:
        raise bad("logit", logit, "(mean, deviation) of a normal number")
    check_number("logit", logit[0])
    check_number("logit", logit[1], 0)
