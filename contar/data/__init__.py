"""Data sets: clips with captions."""

from contar.data.moving_digits import MovingDigit, MovingDigits

__all__ = ["MovingDigit", "MovingDigits"]
