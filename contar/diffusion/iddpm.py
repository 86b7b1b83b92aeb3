"""IDDPM's sampler as a table: a cosine schedule, respaced, with learned variance."""

import math
from functools import cache
from itertools import accumulate, pairwise
from operator import mul

from contar._errors import bad, check_size
from contar.diffusion.sampler import SamplerTable

TRAINED = 1000


def iddpm_table(steps: int) -> SamplerTable:
    """Return the sampler of improved DDPM for a number of its 1000 training steps.

    It is what diffusers' DDPMScheduler does with "squaredcos_cap_v2", "learned_range" and
    "linspace", to the last digit of MAR's own: in float64, where diffusers' float32 is off by up to
    3e-4 in a coefficient, and with the reference's rounding of timesteps, which for about every
    second odd number of steps (21, 23, 31, ...) differs from diffusers'.

    Source: Nichol & Dhariwal 2021 (arXiv 2102.09672), eq. 17 for the schedule, section 4 for the
    respacing and eq. 15 for the variance; Ho et al. 2020 (arXiv 2006.11239), eq. 7 and 11.

    Raises:
        ValueError: a number below 1 or above 1000.
    """
    if check_size("steps", steps) > TRAINED:
        raise bad("steps", steps, f"at most the {TRAINED} steps it was trained with")
    stride = (TRAINED - 1) / max(steps - 1, 1)
    places = accumulate([0.0, *[stride] * (steps - 1)])  # halves fall as sums of strides round them
    timesteps = [round(place) for place in places]
    signal = [1.0, *(_signal()[timestep] for timestep in timesteps)]
    rows = [_row(now, before) for before, now in pairwise(signal)]
    state, prediction, low, high = zip(*reversed(rows), strict=True)
    return SamplerTable(
        timestep=tuple(float(t) for t in timesteps[::-1]),
        input_scale=(1.0,) * steps,
        state=tuple((c,) for c in state),
        prediction=tuple((c,) for c in prediction),
        noise=low,
        noise_high=high,
    )


@cache
def _signal() -> tuple[float, ...]:
    """Return the share of the variance that is the token's, after each training step."""
    shares = (step / TRAINED for step in range(TRAINED + 1))
    curve = [math.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2 for share in shares]
    kept = (1 - min(1 - after / before, 0.999) for before, after in pairwise(curve))
    return tuple(accumulate(kept, mul))


def _row(signal: float, before: float) -> tuple[float, float, float, float]:
    """Return a step's factors of state and prediction, and the bounds of its noise."""
    beta = 1 - signal / before
    of_clean = beta * math.sqrt(before) / (1 - signal)
    of_state = (1 - before) * math.sqrt(1 - beta) / (1 - signal)
    low = math.sqrt(beta * (1 - before) / (1 - signal))  # 0 at the last step, which draws no noise
    return (
        of_clean / math.sqrt(signal) + of_state,
        -of_clean * math.sqrt(1 / signal - 1),
        low,
        math.sqrt(beta) if low else 0.0,
    )
