"""Is what came out good? Distances, figures with their intervals, reports, suites of prompts."""

from contar.evaluation.distances import frechet_distance, psnr, require_torchmetrics, ssim
from contar.evaluation.figures import Figure, Scores, mean, rank_correlation, share
from contar.evaluation.report import Report
from contar.evaluation.segments import DriftReport, cut_segments, drift
from contar.evaluation.suites.check import check_samples
from contar.evaluation.suites.prompts import SUITES, read_rewritten, read_suite
from contar.evaluation.suites.published import PUBLISHED, Published, score_table
from contar.evaluation.suites.scores import read_scores
from contar.evaluation.suites.suite import Suite, Unit, seed_of
from contar.evaluation.suites.work import (
    Failure,
    clear_parts,
    failed_units,
    plan_suite,
    read_plan,
    sample_units,
    units_left,
)

__all__ = [
    "PUBLISHED",
    "SUITES",
    "DriftReport",
    "Failure",
    "Figure",
    "Published",
    "Report",
    "Scores",
    "Suite",
    "Unit",
    "check_samples",
    "clear_parts",
    "cut_segments",
    "drift",
    "failed_units",
    "frechet_distance",
    "mean",
    "plan_suite",
    "psnr",
    "rank_correlation",
    "read_plan",
    "read_rewritten",
    "read_scores",
    "read_suite",
    "require_torchmetrics",
    "sample_units",
    "score_table",
    "seed_of",
    "share",
    "ssim",
    "units_left",
]
