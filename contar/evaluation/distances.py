"""How far generated frames and clips are from real ones: distances of sets."""

from typing import Any

import torch
from einops import rearrange
from torch import nn

from contar._defaults import fixed_defaults
from contar._errors import bad
from contar._typing import Tensor, UInt8
from contar.media import check_pixels

_CHUNK = 256  # frames compared at once
_ALONE: dict[str, Any] = {"sync_on_compute": False}  # one process of several evaluates


def require_torchmetrics():
    """Return torchmetrics; ImportError says what to install if it is not there."""
    try:
        import torchmetrics
        import torchmetrics.functional.regression
        import torchmetrics.image
        import torchmetrics.image.fid
    except ImportError as error:
        raise ImportError(f'{error} (pip install "contar[eval]")') from error
    return torchmetrics


@fixed_defaults()
def frechet_distance(features: nn.Module, real: Tensor, other: Tensor) -> float:
    """Return the Fréchet distance of two sets in a network's features.

        |mean - mean'|² + trace(C + C' - 2 sqrt(C C'))

    over the means and covariances of each set. It grows as sets shrink: compare it only with
    distances between as many.

    Args:
        features: from uint8 [n, ...] to [n, d], with d as its `num_features`; on the device of its
            parameters.
        real: [n, ...], at least 2.
        other: [m, ...], likewise.

    Raises:
        ValueError: fewer than 2.
        ImportError: torchmetrics is not installed.

    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
    Equilibrium", NeurIPS 2017, with other features.
    """
    for name, value in (("real", real), ("other", other)):
        if len(value) < 2:
            raise bad(name, tuple(value.shape), "at least 2, for a covariance")
    kind = require_torchmetrics().image.fid.FrechetInceptionDistance
    metric = kind(feature=features, **_ALONE).to(next(features.parameters()).device)
    metric.update(real, real=True)
    metric.update(other, real=False)
    return float(metric.compute())


def _check_same(a: object, b: object) -> tuple[Tensor, Tensor]:
    a, b = (check_pixels(n, v, "[n, h, w, 3]") for n, v in (("a", a), ("b", b)))
    if a.shape != b.shape or not len(a):
        raise bad("b", tuple(b.shape), f"the shape of a, {tuple(a.shape)}, at least 1 frame")
    return a, b


@fixed_defaults()
def _compared(metric: str, a: Tensor, b: Tensor) -> float:
    """Return a metric of torchmetrics' of frames [n, h, w, 3], some at a time."""
    made = getattr(require_torchmetrics().image, metric)(data_range=255.0, **_ALONE).to(a.device)
    for pair in zip(a.split(_CHUNK), b.split(_CHUNK), strict=True):
        made.update(*(rearrange(frames, "n h w c -> n c h w").float() for frames in pair))
    return float(torch.as_tensor(made.compute()))


def psnr(a: UInt8[Tensor, "n h w 3"], b: UInt8[Tensor, "n h w 3"]) -> float:
    """Return the peak signal-to-noise ratio in dB, 10 log10(255² / mean squared error).

    The mean goes over all frames, so that one bad frame counts; equal frames give infinity.

    Raises:
        ValueError: no uint8 [n, h, w, 3], or not of one shape.
        ImportError: torchmetrics is not installed.
    """
    return _compared("PeakSignalNoiseRatio", *_check_same(a, b))


def ssim(a: UInt8[Tensor, "n h w 3"], b: UInt8[Tensor, "n h w 3"]) -> float:
    """Return the mean structural similarity of frames, 1 for equal ones; sides of at least 11.

    Raises:
        ValueError: no uint8 [n, h, w, 3], not of one shape, or smaller than the window of 11.
        ImportError: torchmetrics is not installed.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity",
    2004: a Gaussian window of sigma 1.5.
    """
    a, b = _check_same(a, b)
    if min(a.shape[1:3]) < 11:
        raise bad("a", tuple(a.shape), "height and width of at least 11")
    return _compared("StructuralSimilarityIndexMeasure", a, b)
