"""A judge, trained once for all tests, and the clips that it looks at."""

import pytest

from contar.data import MovingDigits
from contar.evaluation import DigitJudge, train_judge


@pytest.fixture(scope="session")
def judge() -> DigitJudge:
    return train_judge(steps=150)  # 12 s; the default is 500


@pytest.fixture(scope="session")
def asked() -> MovingDigits:
    return MovingDigits("test", 40)
