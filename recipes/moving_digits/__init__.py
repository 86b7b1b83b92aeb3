"""Moving digits: a text-to-video model of handwriting, its data, its judges and its training."""

from recipes.moving_digits.data.bouncing import BouncingDigits
from recipes.moving_digits.data.captions import DIRECTIONS, caption, left_open
from recipes.moving_digits.data.handwriting import Digits, Split, load_digits
from recipes.moving_digits.data.moving import FRAMES, SPEEDS, MovingDigit, MovingDigits, render
from recipes.moving_digits.evaluation.abilities import TASKS, Abilities, real
from recipes.moving_digits.evaluation.drift import measure_drift, ways_of
from recipes.moving_digits.evaluation.figures import FIGURES, load_report
from recipes.moving_digits.evaluation.outcomes import Outcome
from recipes.moving_digits.evaluation.pipeline import abilities_of, evaluate_pipeline
from recipes.moving_digits.evaluation.scoring import evaluate
from recipes.moving_digits.judges.features import frechet_clips, frechet_frames
from recipes.moving_digits.judges.judge import DigitJudge, load_judge, majority
from recipes.moving_digits.judges.mass import sharpness
from recipes.moving_digits.judges.reader import Reader
from recipes.moving_digits.judges.tracking import STILL, bounced, direction_of, speed_of, track
from recipes.moving_digits.judges.training import train_judge
from recipes.moving_digits.model import (
    DEFAULTS,
    FPS,
    PROMPTS,
    SHARES,
    TEXT,
    NetworkSizes,
    build,
    load_text,
    network,
)
from recipes.moving_digits.stages.first_look import glance
from recipes.moving_digits.stages.latents import digits_latents, scored
from recipes.moving_digits.stages.recipe import MovingDigitsRecipe, run, smoke

__all__ = [
    "DEFAULTS",
    "DIRECTIONS",
    "FIGURES",
    "FPS",
    "FRAMES",
    "PROMPTS",
    "SHARES",
    "SPEEDS",
    "STILL",
    "TASKS",
    "TEXT",
    "Abilities",
    "BouncingDigits",
    "DigitJudge",
    "Digits",
    "MovingDigit",
    "MovingDigits",
    "MovingDigitsRecipe",
    "NetworkSizes",
    "Outcome",
    "Reader",
    "Split",
    "abilities_of",
    "bounced",
    "build",
    "caption",
    "digits_latents",
    "direction_of",
    "evaluate",
    "evaluate_pipeline",
    "frechet_clips",
    "frechet_frames",
    "glance",
    "left_open",
    "load_digits",
    "load_judge",
    "load_report",
    "load_text",
    "majority",
    "measure_drift",
    "network",
    "real",
    "render",
    "run",
    "scored",
    "sharpness",
    "smoke",
    "speed_of",
    "track",
    "train_judge",
    "ways_of",
]
