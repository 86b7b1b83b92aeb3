"""Is what came out good? Judges, tracks, distances, reports."""

from contar.evaluation.abilities import TASKS, Abilities, real
from contar.evaluation.distances import frechet_clips, frechet_frames, psnr, spearman, ssim
from contar.evaluation.evaluate import Scores, evaluate
from contar.evaluation.figures import FIGURES, Figure
from contar.evaluation.judge import DigitJudge
from contar.evaluation.judge_training import train_judge
from contar.evaluation.outcomes import Outcome
from contar.evaluation.reader import Reader
from contar.evaluation.report import Report
from contar.evaluation.tracking import bounced, direction_of, speed_of, track

__all__ = [
    "FIGURES",
    "TASKS",
    "Abilities",
    "DigitJudge",
    "Figure",
    "Outcome",
    "Reader",
    "Report",
    "Scores",
    "bounced",
    "direction_of",
    "evaluate",
    "frechet_clips",
    "frechet_frames",
    "psnr",
    "real",
    "spearman",
    "speed_of",
    "ssim",
    "track",
    "train_judge",
]
