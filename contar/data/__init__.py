"""Data sets: clips with captions."""

from contar.data.bouncing_digits import BouncingDigits
from contar.data.moving_digits import MovingDigit, MovingDigits

__all__ = ["BouncingDigits", "MovingDigit", "MovingDigits"]
