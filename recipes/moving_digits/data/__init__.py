"""Clips of handwritten digits that move, with captions."""

from recipes.moving_digits.data.bouncing import BouncingDigits
from recipes.moving_digits.data.captions import DIRECTIONS, caption
from recipes.moving_digits.data.handwriting import Digits, Split, load_digits
from recipes.moving_digits.data.moving import FRAMES, SPEEDS, MovingDigit, MovingDigits, render

__all__ = [
    "DIRECTIONS",
    "FRAMES",
    "SPEEDS",
    "BouncingDigits",
    "Digits",
    "MovingDigit",
    "MovingDigits",
    "Split",
    "caption",
    "load_digits",
    "render",
]
