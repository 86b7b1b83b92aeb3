"""IDDPM's table against diffusers' scheduler and against a known Gaussian."""

import pytest
import torch

from contar.diffusion import SamplerTable, iddpm_table

CONFIG = {
    "_class_name": "DDPMScheduler",
    "beta_schedule": "squaredcos_cap_v2",
    "variance_type": "learned_range",
    "timestep_spacing": "linspace",
    "clip_sample": False,
}


@pytest.mark.parametrize("steps", [1, 2, 7, 25, 100])
def test_the_table_is_that_of_diffusers_up_to_its_float32(steps):
    ours, theirs = iddpm_table(steps), SamplerTable.from_config(CONFIG, steps)
    assert ours.timestep == theirs.timestep
    assert ours.initial == theirs.initial
    assert [level > 0 for level in ours.noise] == [level > 0 for level in theirs.noise]
    for name in ("state", "prediction", "noise", "noise_high"):
        pair = (torch.tensor(getattr(table, name)).double() for table in (ours, theirs))
        # diffusers computes 1 - (product of alphas) in float32, of which 4e-5 is left at the end.
        torch.testing.assert_close(*pair, rtol=1e-3, atol=1e-3)


def test_halves_fall_as_in_the_reference_which_sums_strides():
    # 20 strides of 49.95: the sum of ten is a little below 499.5, which numpy rounds to 500.
    assert 499.0 in iddpm_table(21).timestep
    assert 500.0 in SamplerTable.from_config(CONFIG, 21).timestep
    assert iddpm_table(1000).timestep == tuple(map(float, range(999, -1, -1)))


@pytest.mark.parametrize("spread", [-1.0, 1.0])
def test_with_the_exact_denoiser_of_a_gaussian_the_samples_have_its_mean_and_variance(spread):
    mean, deviation, table = 1.5, 0.5, iddpm_table(250)
    share = (torch.arange(1001, dtype=torch.float64) / 1000 + 0.008) / 1.008
    curve = (share * torch.pi / 2).cos().square()
    kept = (1 - (1 - curve[1:] / curve[:-1]).clamp(max=0.999)).cumprod(0)

    def predict(x, timestep):
        signal = kept[int(timestep)]
        variance = signal * deviation**2 + 1 - signal
        noise = (1 - signal).sqrt() * (x - signal.sqrt() * mean) / variance
        return torch.cat([noise, torch.full_like(x, spread)], dim=-1)

    draws = torch.Generator().manual_seed(0)
    start = torch.randn(20_000, 1, generator=draws, dtype=torch.float64)
    samples = table.sample(
        predict, start, lambda: torch.randn(start.shape, generator=draws, dtype=torch.float64)
    )
    # Five deviations of the mean and of the deviation; 1% for steps that are not infinitely small.
    assert abs(samples.mean() - mean) < 5 * deviation / 20_000**0.5 + 0.01 * mean
    assert abs(samples.std() / deviation - 1) < 5 / 40_000**0.5 + 0.01
