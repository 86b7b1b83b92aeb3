"""A model of moving digits at work on prompts, and how it did."""

from recipes.moving_digits.evaluation.abilities import TASKS, Abilities, real
from recipes.moving_digits.evaluation.drift import measure_drift, ways_of
from recipes.moving_digits.evaluation.figures import FIGURES, load_report
from recipes.moving_digits.evaluation.outcomes import Outcome
from recipes.moving_digits.evaluation.pipeline import abilities_of, evaluate_pipeline
from recipes.moving_digits.evaluation.scoring import evaluate

__all__ = [
    "FIGURES",
    "TASKS",
    "Abilities",
    "Outcome",
    "abilities_of",
    "evaluate",
    "evaluate_pipeline",
    "load_report",
    "measure_drift",
    "real",
    "ways_of",
]
