"""Sundial's sampler as a table: every step heads from the first noise to the predicted token."""

from contar._errors import DEEPEST, check_size
from contar.diffusion.sampler import SamplerTable


def straight_table(steps: int, *, trained: int = 1000) -> SamplerTable:
    """Return the table of a sampler that adds (token - first noise) / steps in each step.

    So the result is the mean of the predicted tokens. It is no solver of the flow's equation, whose
    step of Euler heads from where the state is, (token - state) / (1 - i / steps); both are one in
    the first step.

    Source: Sundial (Liu et al. 2025, arXiv 2502.00816), as released.

    Args:
        trained: the timestep of noise alone.

    Raises:
        ValueError: a number of steps below 1 or beyond any loop's.
    """
    check_size("steps", steps, 1, DEEPEST)
    state = [[0.0] * steps for _ in range(steps)]
    for i in range(steps):
        state[i][0] += 1
        state[i][i] -= 1 / steps  # the first noise is i states back
    return SamplerTable(
        timestep=tuple(trained * (1 - i / steps) for i in range(steps)),
        input_scale=(1.0,) * steps,
        state=tuple(map(tuple, state)),
        prediction=((1 / steps,),) * steps,
        noise=(0.0,) * steps,
    )
