"""Clips of handwritten digits that move, with captions."""

from recipes.moving_digits.data.bouncing import BouncingDigits
from recipes.moving_digits.data.captions import DIRECTIONS, caption
from recipes.moving_digits.data.handwriting import Digits, Split, load_digits
from recipes.moving_digits.data.moving import FRAMES, SPEEDS, MovingDigit, MovingDigits, render
from recipes.moving_digits.data.words import left_open

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
    "left_open",
    "load_digits",
    "render",
]
