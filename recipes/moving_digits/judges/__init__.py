"""What a clip of a moving digit shows: which digit, where it goes, how sharp it stays."""

from recipes.moving_digits.judges.carried import load_judge
from recipes.moving_digits.judges.features import frechet_clips, frechet_frames
from recipes.moving_digits.judges.judge import DigitJudge
from recipes.moving_digits.judges.mass import sharpness
from recipes.moving_digits.judges.reader import Reader
from recipes.moving_digits.judges.tracking import STILL, bounced, direction_of, speed_of, track
from recipes.moving_digits.judges.training import train_judge
from recipes.moving_digits.judges.votes import majority

__all__ = [
    "STILL",
    "DigitJudge",
    "Reader",
    "bounced",
    "direction_of",
    "frechet_clips",
    "frechet_frames",
    "load_judge",
    "majority",
    "sharpness",
    "speed_of",
    "track",
    "train_judge",
]
