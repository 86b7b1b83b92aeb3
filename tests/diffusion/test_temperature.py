"""The temperature is the factor of the fresh noise."""

import pytest
import torch

from contar.diffusion import SamplerTable

DDPM = {"_class_name": "DDPMScheduler", "clip_sample": False, "timestep_spacing": "leading"}


@pytest.mark.parametrize("temperature", [0.0, 0.5, 0.9, 2.0])
def test_what_fresh_noise_adds_grows_as_the_temperature(temperature):
    table = SamplerTable.from_config(DDPM, 10)

    def drawn(temperature):
        g = torch.Generator().manual_seed(0)

        def fresh():
            return torch.randn(5, 3, generator=g)

        return table.sample(
            lambda x, _: torch.zeros_like(x), fresh(), fresh, temperature=temperature
        )

    without = drawn(0.0)
    full = drawn(1.0) - without
    assert full.abs().max() > 0.1
    close = {"rtol": 0, "atol": 1e-5 * float(without.abs().max())}  # float32's rounding
    torch.testing.assert_close(drawn(temperature) - without, temperature * full, **close)
