"""IDDPM's sampler as a table: a cosine schedule, respaced, with learned variance."""

import numpy as np

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
    share = np.arange(TRAINED + 1) / TRAINED
    curve = np.cos((share + 0.008) / 1.008 * np.pi / 2) ** 2
    kept = np.cumprod(1 - np.minimum(1 - curve[1:] / curve[:-1], 0.999))
    timesteps = _spread(steps)
    signal = kept[timesteps]
    before = np.append(1.0, signal[:-1])
    betas = 1 - signal / before
    of_clean = betas * np.sqrt(before) / (1 - signal)
    of_state = (1 - before) * np.sqrt(1 - betas) / (1 - signal)
    state = of_clean / np.sqrt(signal) + of_state
    prediction = -of_clean * np.sqrt(1 / signal - 1)
    low = np.sqrt(betas * (1 - before) / (1 - signal))  # 0 at the last step, which draws no noise
    high = np.where(low > 0, np.sqrt(betas), 0)
    state, prediction, low, high = (c[::-1].tolist() for c in (state, prediction, low, high))
    return SamplerTable(
        timestep=tuple(float(t) for t in timesteps[::-1]),
        input_scale=(1.0,) * steps,
        state=tuple((c,) for c in state),
        prediction=tuple((c,) for c in prediction),
        noise=tuple(low),
        noise_high=tuple(high),
    )


def _spread(steps: int) -> list[int]:
    """Return training steps from 0 to 999, evenly; halves fall as sums of strides round them."""
    stride = (TRAINED - 1) / max(steps - 1, 1)
    places = [0.0]
    while len(places) < steps:
        places.append(places[-1] + stride)
    return [round(place) for place in places]
