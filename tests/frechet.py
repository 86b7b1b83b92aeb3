"""What tests of Fréchet distances hold them against."""

import torch


def noisy(frames, sigma):
    """Return frames with normal noise."""
    draws = torch.Generator().manual_seed(0)
    noise = sigma * torch.randn(frames.shape, generator=draws)
    return (frames + noise).clamp(0, 255).round().byte()


def oracle(a, b):
    """Return the Fréchet distance of features [n, d] by roots of symmetric matrices alone."""
    a, b = a.double(), b.double()
    values, vectors = torch.linalg.eigh(a.T.cov())
    root = vectors @ values.clamp_min(0).sqrt().diag() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b.T.cov() @ root).clamp_min(0).sqrt().sum()
    means = (a.mean(0) - b.mean(0)).square().sum()
    return float(means + a.T.cov().trace() + b.T.cov().trace() - 2 * cross)
