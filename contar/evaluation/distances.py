"""How far generated frames and clips are from real ones: distances and correlations of sets."""

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from torch import nn

from contar._defaults import fixed_defaults
from contar._errors import bad, check_number
from contar._typing import Float, Tensor, UInt8
from contar.evaluation.judge import FEATURES, DigitJudge
from contar.evaluation.mass import check_pixels
from contar.evaluation.tracking import velocity_of

_WALK = 4.0  # pixels; displacements in this unit spread about as wide as a feature
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


class FrameFeatures(nn.Module):
    """A judge's features of frames, [n, 3, h, w] to [n, 32], as torchmetrics asks for them."""

    num_features = FEATURES

    def __init__(self, judge: DigitJudge) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, frames: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n 32"]:
        """Return the features."""
        return self.judge.features(rearrange(frames, "n c h w -> n h w c"))


class ClipFeatures(nn.Module):
    """What a clip shows and how it moves, [b, 3, t, h, w] to [b, 35].

    The means over its frames of the judge's 32 features; how much they change from frame to frame
    (root mean square); and how far the bright mass goes, down and right, in units of 4 pixels (0
    where it is lost). So few that some hundred clips give their covariance.
    """

    num_features = FEATURES + 3

    def __init__(self, judge: DigitJudge) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, clips: UInt8[Tensor, "b 3 t h w"]) -> Float[Tensor, "b 35"]:
        """Return the features."""
        clips = rearrange(clips, "b c t h w -> b t h w c")
        features = self.judge.features(clips.flatten(0, 1)).view(*clips.shape[:2], -1)
        change = features.diff(dim=1).square().mean((1, 2)).sqrt()
        velocities = [velocity_of(clip) for clip in clips]
        walks = torch.tensor(velocities, dtype=torch.float32, device="cpu").nan_to_num(0)
        walks = (walks * (clips.shape[1] - 1) / _WALK).to(features)
        return torch.cat([features.mean(1), change[:, None], walks], dim=1)


@fixed_defaults()
def _frechet(features: nn.Module, real: Tensor, other: Tensor, device: torch.device) -> float:
    kind = require_torchmetrics().image.fid.FrechetInceptionDistance
    metric = kind(feature=features, **_ALONE).to(device)
    metric.update(real, real=True)
    metric.update(other, real=False)
    return float(metric.compute())


def _check_pair(real: object, other: object, axes: str) -> tuple[Tensor, Tensor]:
    pair = check_pixels("real", real, axes), check_pixels("other", other, axes)
    for name, value in zip(("real", "other"), pair, strict=True):
        if len(value) < 2:
            raise bad(name, tuple(value.shape), "at least 2, for a covariance")
    return pair


def frechet_frames(
    judge: DigitJudge, real: UInt8[Tensor, "n h w 3"], other: UInt8[Tensor, "m h2 w2 3"]
) -> float:
    """Return the Fréchet distance of two sets of frames in the judge's features.

        |mean - mean'|² + trace(C + C' - 2 sqrt(C C'))

    over the means and covariances of each set. It grows as sets shrink: compare it only with
    distances between as many frames.

    Raises:
        ValueError: no uint8 [n, h, w, 3], or fewer than 2 frames.
        ImportError: torchmetrics is not installed.

    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
    Equilibrium", NeurIPS 2017, with other features.
    """
    pair = _check_pair(real, other, "[n, h, w, 3]")
    real, other = (rearrange(frames, "n h w c -> n c h w") for frames in pair)
    return _frechet(FrameFeatures(judge), real, other, judge.head.weight.device)


def frechet_clips(
    judge: DigitJudge, real: UInt8[Tensor, "n t h w 3"], other: UInt8[Tensor, "m t2 h2 w2 3"]
) -> float:
    """Return the Fréchet distance of two sets of clips in `ClipFeatures`, as `frechet_frames`.

    Raises:
        ValueError: no uint8 [n, t, h, w, 3], fewer than 2 clips, or clips of one frame.
        ImportError: torchmetrics is not installed.
    """
    pair = _check_pair(real, other, "[n, t, h, w, 3]")
    for name, clips in zip(("real", "other"), pair, strict=True):
        if clips.shape[1] < 2:
            raise bad(name, tuple(clips.shape), "clips of at least 2 frames")
    real, other = (rearrange(clips, "n t h w c -> n c t h w") for clips in pair)
    return _frechet(ClipFeatures(judge), real, other, judge.head.weight.device)


def _check_same(a: object, b: object) -> tuple[Tensor, Tensor]:
    a, b = (check_pixels(n, v, "[n, h, w, 3]") for n, v in (("a", a), ("b", b)))
    if a.shape != b.shape or not len(a):
        raise bad("b", tuple(b.shape), f"the shape of a, {tuple(a.shape)}, at least 1 frame")
    return a, b


def _pictures(frames: Tensor) -> Tensor:
    return rearrange(frames, "n h w c -> n c h w").float()


@fixed_defaults()
def psnr(a: UInt8[Tensor, "n h w 3"], b: UInt8[Tensor, "n h w 3"]) -> float:
    """Return the peak signal-to-noise ratio in dB, 10 log10(255² / mean squared error).

    The mean goes over all frames, so that one bad frame counts; equal frames give infinity.

    Raises:
        ValueError: no uint8 [n, h, w, 3], or not of one shape.
        ImportError: torchmetrics is not installed.
    """
    a, b = _check_same(a, b)
    metric = (
        require_torchmetrics().image.PeakSignalNoiseRatio(data_range=255.0, **_ALONE).to(a.device)
    )
    for one, other in zip(a.split(_CHUNK), b.split(_CHUNK), strict=True):
        metric.update(_pictures(one), _pictures(other))
    return float(metric.compute())


@fixed_defaults()
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
    metric = (
        require_torchmetrics()
        .image.StructuralSimilarityIndexMeasure(data_range=255.0, **_ALONE)
        .to(a.device)
    )
    for one, other in zip(a.split(_CHUNK), b.split(_CHUNK), strict=True):
        metric.update(_pictures(one), _pictures(other))
    return float(torch.as_tensor(metric.compute()))


@fixed_defaults()
def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Spearman's rank correlation in [-1, 1]; equal values share their mean rank.

    Raises:
        ValueError: other than two lists of as many finite numbers, at least 2, or one whose
            numbers are all equal: they have no order to compare.
        ImportError: torchmetrics is not installed.
    """
    values = []
    for name, numbers in (("a", a), ("b", b)):
        listed = [check_number(name, number) for number in numbers]
        if len(set(listed)) < 2:
            raise bad(name, listed, "at least 2 different numbers")
        values.append(torch.tensor(listed, dtype=torch.float64))
    if len(a) != len(b):
        raise bad("b", f"{len(b)} numbers", f"{len(a)}, as many as a")
    value = require_torchmetrics().functional.regression.spearman_corrcoef(*values)
    return float(torch.as_tensor(value))
