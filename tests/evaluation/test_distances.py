"""Distances: known values, and order where there is no known value."""

import math

import pytest
import torch
from frechet import noisy, oracle
from torch import nn

from contar.evaluation import frechet_distance, psnr, ssim


class Mean(nn.Module):
    """The mean and a weighted mean of pixels, as features."""

    num_features = 2

    def __init__(self):
        super().__init__()
        draws = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.rand(64 * 64 * 3, generator=draws) / 1000)

    def forward(self, pictures):
        flat = pictures.flatten(1).float() / 255
        return torch.stack([flat.mean(1), flat @ self.weight], dim=1)


def shapes(count=17):
    """Return frames of squares that grow and move."""
    frames = torch.zeros(count, 64, 64, 3, dtype=torch.uint8)
    for i in range(count):
        frames[i, 10 + i : 30 + 2 * i, 8 + i : 24 + i] = 200
    return frames


def test_the_frechet_distance_is_that_of_the_formula_and_zero_for_equal_sets():
    real, features = shapes(), Mean()
    other = noisy(real, 40)[:12]
    expected = oracle(*(features(frames).detach() for frames in (real, other)))
    assert frechet_distance(features, real, other) == pytest.approx(expected, rel=1e-3)
    assert frechet_distance(features, real, real.flip(0)) == pytest.approx(0, abs=1e-4)
    assert expected > 0.01


def flat(value, count=2):
    return torch.full((count, 16, 16, 3), value, dtype=torch.uint8)


@pytest.mark.parametrize("apart", [1, 16, 255])
def test_psnr_of_a_constant_error_is_its_formula(apart):
    assert psnr(flat(0), flat(apart)) == pytest.approx(20 * math.log10(255 / apart), abs=1e-4)


def test_psnr_takes_the_mean_error_of_all_frames():
    a, b = flat(0, 400), flat(0, 400)
    b[399] = 20  # beyond the first chunk
    assert psnr(a, b) == pytest.approx(10 * math.log10(255**2 / (400 / 400)), abs=1e-4)
    assert psnr(a, a) == math.inf


@pytest.mark.parametrize(("a", "b"), [(0, 255), (100, 120), (7, 7)])
def test_ssim_of_flat_pictures_is_its_formula_of_their_means(a, b):
    c = (0.01 * 255) ** 2
    expected = (2 * a * b + c) / (a**2 + b**2 + c)
    # The variance of float32 values up to 255 is a difference of squares, right to some 1e-3 of 58.
    assert ssim(flat(a), flat(b)) == pytest.approx(expected, abs=5e-4)


def test_ssim_falls_with_noise_and_is_the_mean_over_frames():
    frames = shapes()
    values = [ssim(frames, noisy(frames, sigma)) for sigma in (0, 5, 20, 60)]
    assert values[0] == pytest.approx(1)
    assert values == sorted(values, reverse=True)
    many = torch.cat([frames] * 20)
    assert ssim(many, noisy(many, 20)) == pytest.approx(values[2], abs=0.01)


def test_sets_without_a_covariance_or_a_counterpart_are_refused(refuses):
    frames = shapes()
    with refuses("other", "at least 2"):
        frechet_distance(Mean(), frames, frames[:1])
    for measure in (psnr, ssim):
        with refuses("b", "the shape of a"):
            measure(frames, frames[1:])
        with refuses("a", "torch.float32"):
            measure(frames.float(), frames)
    with refuses("a", "at least 11"):
        ssim(frames[:, :10], frames[:, :10])
