"""The judge of digits that is carried along, as `train_judge()` made it."""

from pathlib import Path

from recipes.moving_digits.judges.judge import DigitJudge

_FILE = Path(__file__).parents[1] / "weights" / "judge.safetensors"


def load_judge() -> DigitJudge:
    """Return the judge by which all figures of moving digits are made, ready to judge."""
    return DigitJudge.load(_FILE)
