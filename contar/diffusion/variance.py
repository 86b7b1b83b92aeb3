"""The learned variance's share of the variational bound."""

import math

import torch

from contar._errors import bad, check_ids, check_tensor
from contar._typing import Float, Int, Tensor


def variance_bound(
    x_0: Float[Tensor, "*m c"],
    x_t: Float[Tensor, "*m c"],
    eps: Float[Tensor, "*m c"],
    log_variance: Float[Tensor, "*m c"],
    index: Int[Tensor, "*m"],
    betas: Float[Tensor, " steps"],
) -> Float[Tensor, "*m c"]:
    """Return the bound's term of each value's timestep in bits; `log_variance` gets gradients.

    The term is the divergence of the network's reverse step from the true one, and at index 0 the
    negative log-likelihood of the value of x_0 in a bin of 2/255, as for pixels in [-1, 1] (which
    MAR keeps for latents). Source: Nichol & Dhariwal 2021 (arXiv 2102.09672), eq. 4 to 7 and 15;
    Ho et al. 2020 (arXiv 2006.11239), eq. 13.

    Args:
        x_0: tokens.
        x_t: the same at their timesteps.
        eps: the network's prediction of the noise, which gets no gradients.
        log_variance: from -1 to 1, where the logarithm lies between its bounds.

    Raises:
        ValueError: shapes that do not fit, or indices (on the CPU) that `betas` does not have.
    """
    check_tensor("x_0", x_0, (..., None), "[..., c]")
    for name, value in (("x_t", x_t), ("eps", eps), ("log_variance", log_variance)):
        check_tensor(name, value, tuple(x_0.shape), "[..., c]")
    check_tensor("index", index, tuple(x_0.shape[:-1]), "[...]", kind="int")
    check_tensor("betas", betas, (None,), "[steps]")
    if len(betas) < 2:
        raise bad("betas", tuple(betas.shape), "at least two timesteps")
    check_ids("index", index, len(betas))
    steps = betas.to(index.device, torch.float64)
    kept = (1 - steps).cumprod(0)
    before = torch.cat([kept.new_ones(1), kept[:-1]])
    posterior = steps * (1 - before) / (1 - kept)
    posterior[0] = posterior[1]  # it is 0 there, which has no logarithm
    of_x_0 = before.sqrt() * steps / (1 - kept)
    of_x_t = (1 - before) * (1 - steps).sqrt() / (1 - kept)
    tables = (kept.sqrt(), (1 - kept).sqrt(), of_x_0, of_x_t, posterior.log(), steps.log())
    alpha, sigma, of_x_0, of_x_t, low, high = (table.float()[index][..., None] for table in tables)

    guess = (x_t - sigma * eps.detach()) / alpha
    mean = of_x_0 * guess + of_x_t * x_t
    truth = of_x_0 * x_0 + of_x_t * x_t
    learned = low + (log_variance + 1) / 2 * (high - low)
    divergence = 0.5 * (
        learned - low - 1 + (low - learned).exp()
        + (truth - mean).square() * (-learned).exp()
    )  # fmt: skip
    likelihood = _log_likelihood(x_0, mean, learned / 2)
    nats = torch.where(index[..., None] == 0, -likelihood, divergence)
    return nats / math.log(2)


def _log_likelihood(x: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Return the logarithm of a Gaussian's mass in the bin around x; the outer bins are open."""
    scale = (-log_deviation).exp()
    above = _normal_cdf(scale * (x - mean + 1 / 255))
    below = _normal_cdf(scale * (x - mean - 1 / 255))
    inside = torch.where(x > 0.999, 1 - below, above - below)
    return torch.where(x < -0.999, above, inside).clamp_min(1e-12).log()


def _normal_cdf(x: Tensor) -> Tensor:
    """Return the normal distribution function, by the tanh approximation of the reference."""
    return 0.5 * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())
