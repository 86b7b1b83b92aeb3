"""The judge that all figures are made by, and the clips that it looks at."""

import pytest

from recipes.moving_digits import DigitJudge, MovingDigits, load_judge


@pytest.fixture(scope="session")
def judge() -> DigitJudge:
    return load_judge()


@pytest.fixture(scope="session")
def asked() -> MovingDigits:
    return MovingDigits("test", 40)
