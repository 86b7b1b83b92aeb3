"""The learned variance's bound against distributions written out with torch.distributions."""

import math
from typing import Any

import torch
from torch.distributions import Normal, kl_divergence

from contar.diffusion import NoiseProcess, variance_bound
from contar.diffusion.variance import _log_likelihood
from contar.heads import DiffusionHead, DiffusionMLP

CONFIG = {
    "_class_name": "DDPMScheduler",
    "beta_schedule": "squaredcos_cap_v2",
    "variance_type": "learned_range",
    "clip_sample": False,
}


def inputs(index):
    process: Any = NoiseProcess.from_config(CONFIG)
    generator = torch.Generator().manual_seed(0)
    x_0, noise, predicted, log_variance = torch.randn(4, len(index), 3, generator=generator)
    index = torch.tensor(index)
    return process, x_0, process.add_noise(x_0, noise, index), predicted, log_variance.tanh(), index


def reverse_step(process, x, x_t, t):
    """The true reverse step's mean and variance, from its definition as a product of Gaussians."""
    beta = process.betas[t].double()
    kept = (1 - process.betas.double()).cumprod(0)
    before = kept[t - 1]
    precision = (1 - beta) / beta + 1 / (1 - before)
    mean = ((1 - beta).sqrt() / beta * x_t + before.sqrt() / (1 - before) * x) / precision
    return mean, 1 / precision


def test_the_bound_is_the_divergence_from_the_true_reverse_step():
    process, x_0, x_t, predicted, log_variance, index = inputs([1, 5, 400, 998])
    ours = variance_bound(x_0, x_t, predicted, log_variance, index, process.betas)
    for row, t in enumerate(index.tolist()):
        x, noisy = x_0[row].double(), x_t[row].double()
        guess = (noisy - process.sigma[t] * predicted[row]) / process.alpha[t]
        mean, variance = reverse_step(process, x, noisy, t)
        guessed, _ = reverse_step(process, guess, noisy, t)
        share = (log_variance[row].double() + 1) / 2
        learned = process.betas[t].double() ** share * variance ** (1 - share)
        wanted = kl_divergence(Normal(mean, variance.sqrt()), Normal(guessed, learned.sqrt()))
        # float32 tables, and differences of logarithms near each other: 1e-3
        torch.testing.assert_close(ours[row].double(), wanted / math.log(2), rtol=1e-3, atol=1e-3)


def test_at_the_first_timestep_the_bound_is_the_likelihood_of_a_bin():
    process, x_0, x_t, predicted, log_variance, index = inputs([0] * 40)
    x_0 = x_0.clamp(-1, 1)  # of which the outermost bins are open
    ours = variance_bound(x_0, x_t, predicted, log_variance, index, process.betas)
    guess = (x_t - process.sigma[0] * predicted) / process.alpha[0]
    betas = process.betas.double()
    kept = (1 - betas).cumprod(0)
    low = (betas[1] * (1 - kept[0]) / (1 - kept[1])).log()  # the variance at index 1 stands in
    deviation = ((low + (log_variance.double() + 1) / 2 * (betas[0].log() - low)) / 2).exp()
    step = Normal(guess.double(), deviation)
    above, below = step.cdf(x_0.double() + 1 / 255), step.cdf(x_0.double() - 1 / 255)
    mass = torch.where(x_0 == 1, 1 - below, above - below).where(x_0 > -1, above)
    wanted = -mass.clamp_min(1e-12).log() / math.log(2)
    likely = mass > 1e-3  # the reference approximates the normal's tails by a tanh
    assert all(likely[where].any() for where in (x_0 == 1, x_0 == -1, x_0.abs() < 1))
    torch.testing.assert_close(ours[likely].double(), wanted[likely], rtol=0.02, atol=0.02)


def test_only_the_variance_learns_from_the_bound_and_the_head_adds_it():
    process, x_0, x_t, predicted, log_variance, index = inputs([3, 700])
    predicted.requires_grad_()
    log_variance.requires_grad_()
    variance_bound(x_0, x_t, predicted, log_variance, index, process.betas).sum().backward()
    assert predicted.grad is None
    assert log_variance.grad is not None
    assert log_variance.grad.abs().min() > 0
    network = DiffusionMLP(3, 8, width=16, depth=1, learned_variance=True)
    head = DiffusionHead(network, CONFIG)
    noise = torch.randn(1, 2, 3, generator=torch.Generator().manual_seed(1))
    cond = torch.ones(2, 8)
    loss = head.loss(x_0, cond, noise=noise, index=index[None])
    x_t = process.add_noise(x_0[None], noise, index[None])
    output = network(x_t, process.timestep(index[None]), network.condition(cond)[None])
    prediction, learned = output.chunk(2, dim=-1)
    bound = variance_bound(x_0[None], x_t, prediction, learned, index[None], process.betas)
    wanted = ((prediction - noise).square() + bound).mean(-1)
    torch.testing.assert_close(loss, wanted)


def test_the_bins_of_the_256_values_share_out_the_whole_mass_of_a_gaussian():
    x = torch.linspace(-1, 1, 256, dtype=torch.float64)
    for deviation in (0.01, 0.1, 0.5):
        mean, log = torch.full_like(x, 0.3), torch.full_like(x, math.log(deviation))
        # The tanh in place of the error function cancels out between neighbours.
        assert abs(_log_likelihood(x, mean, log).exp().sum() - 1) < 1e-6
