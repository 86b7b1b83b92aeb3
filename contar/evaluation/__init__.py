"""Is what came out good? Distances, figures with their intervals, reports."""

from contar.evaluation.distances import (
    frechet_distance,
    psnr,
    require_torchmetrics,
    spearman,
    ssim,
)
from contar.evaluation.figures import Figure, Scores, mean, rank_correlation, share
from contar.evaluation.report import Report
from contar.evaluation.segments import DriftReport, cut_segments, drift

__all__ = [
    "DriftReport",
    "Figure",
    "Report",
    "Scores",
    "cut_segments",
    "drift",
    "frechet_distance",
    "mean",
    "psnr",
    "rank_correlation",
    "require_torchmetrics",
    "share",
    "spearman",
    "ssim",
]
