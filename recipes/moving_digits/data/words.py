"""What a sentence must say for a model of moving digits to know what is meant."""

import re

from recipes.moving_digits.data.captions import NAMES

_DIGITS = {word: digit for digit, name in enumerate(NAMES) for word in (name, str(digit))}
_MOTIONS = {
    "up", "down", "left", "right", "upwards", "downwards", "leftwards", "rightwards",
    "upper", "lower", "top", "bottom", "move", "moves", "moving", "drift", "drifts", "drifting",
    "slide", "slides", "sliding", "go", "goes", "going", "glide", "glides", "gliding", "travel",
    "travels", "travelling", "shift", "shifts", "stay", "stays", "stand", "stands", "standing",
    "still", "motionless", "rest",
}  # fmt: skip


def left_open(prompt: str, *, shown: bool = False, moving: bool = True) -> str | None:
    """Return what a prompt does not say, although only that has a meaning for the model; or None.

    A model that learned captions of one moving digit makes some digit of any words. It understands
    a digit, as a word or a numeral, and a motion or none: see `caption`.

    Args:
        prompt: an English sentence; an empty one leaves all to the model, and lacks nothing.
        shown: frames are given, or a prompt came before, so the digit is known without words.
        moving: a video is asked for, not a picture, which needs no motion.
    """
    words = re.findall(r"[^\W_]+", prompt.lower())
    digits = {_DIGITS[word] for word in words if word in _DIGITS}
    lacks = []
    if not digits and not shown:
        lacks.append("no digit (zero to nine, or 0 to 9)")
    if len(digits) > 1:
        lacks.append("more than one digit")
    if moving and not _MOTIONS.intersection(words):
        lacks.append('no motion (as "moves to the left" or "stands still")')
    begin = prompt if len(prompt) <= 100 else prompt[:100] + "…"
    return f"{begin!r} says {' and '.join(lacks)}" if prompt.strip() and lacks else None
