"""The judge of digits that contar carries, as `train_judge()` made it."""

from pathlib import Path

from contar.evaluation import DigitJudge

_FILE = Path(__file__).parent / "judges" / "digits.safetensors"


def load_judge() -> DigitJudge:
    """Return the judge by which all figures of moving digits are made, ready to judge."""
    return DigitJudge.load(_FILE)
