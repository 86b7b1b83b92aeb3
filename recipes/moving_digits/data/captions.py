"""Sentences about a moving digit, in many phrasings, some of them for tests alone.

And what a sentence must say for a model that learned them to know what is meant.
"""

import re
from collections.abc import Callable, Sequence

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
DIRECTIONS = (
    "right", "down right", "down", "down left", "left", "up left", "up", "up right",
)  # fmt: skip
"""Where a digit goes: right, then on clockwise; y grows downwards."""

_WAYS = {
    "right": ("right", "to the right", "rightwards", "towards the right"),
    "left": ("left", "to the left", "leftwards", "towards the left"),
    "up": ("up", "upwards", "to the top", "towards the top"),
    "down": ("down", "downwards", "to the bottom", "towards the bottom"),
    "up right": (
        "up and to the right", "diagonally up right", "to the upper right",
        "towards the top right corner",
    ),
    "up left": (
        "up and to the left", "diagonally up left", "to the upper left",
        "towards the top left corner",
    ),
    "down right": (
        "down and to the right", "diagonally down right", "to the lower right",
        "towards the bottom right corner",
    ),
    "down left": (
        "down and to the left", "diagonally down left", "to the lower left",
        "towards the bottom left corner",
    ),
}  # fmt: skip

# {d} is the digit, {s} how fast with a space before it or nothing, {w} the way.
_MOVING = (
    "a {d} moves{s} {w}",
    "the digit {d} moving{s} {w}",
    "the digit {d} drifting{s} {w}",
    "a {d} sliding{s} {w}",
    "the number {d} goes{s} {w}",
    "a handwritten {d} gliding{s} {w}",
    "a white {d} on black travels{s} {w}",
    "number {d} is moving{s} {w}",
    "{d} going{s} {w}",
    "a video of a {d} that slides{s} {w}",
    "a {d} drifts{s} {w}",
    "the {d} shifts{s} {w}",
)
_MOVING_TEST = (
    "the handwritten digit {d} travelling{s} {w}",
    "a {d} is gliding{s} {w}",
    "a clip of the number {d} drifting{s} {w}",
    "watch a {d} go{s} {w}",
    "the {d} slides{s} {w}",
)
_STILL = (
    "a {d} stands still",
    "the digit {d} stands still",
    "a {d} that does not move",
    "the number {d} stays where it is",
    "a motionless {d}",
    "a handwritten {d} at rest",
    "a white {d} on black, standing still",
    "number {d} is not moving",
    "a still {d}",
    "a video of a {d} that stays in place",
)
_STILL_TEST = (
    "the {d} stands still",
    "a clip of the number {d} standing still",
    "the handwritten digit {d} stays in place",
    "a {d} is at rest",
)
_SPEEDS = {"slow": (" slowly", " gently"), "fast": (" quickly", " fast"), None: ("",)}


def caption(
    digit: int,
    direction: str | None,
    speed: str | None,
    *,
    choose: Callable[[int], int],
    test: bool = False,
) -> str:
    """Return a sentence.

    Args:
        digit: 0 to 9; written as a word or as a numeral.
        direction: one of `DIRECTIONS`; None stands still.
        speed: "slow" or "fast" to say so, None to say nothing.
        choose: draws a number below the one it is given; four times.
        test: use the phrasings that training never sees.
    """

    def draw(choices: Sequence[str]) -> str:
        return choices[choose(len(choices))]

    name = draw((NAMES[digit], str(digit)))
    if direction is None:
        return draw(_STILL_TEST if test else _STILL).format(d=name)
    template = draw(_MOVING_TEST if test else _MOVING)
    return template.format(d=name, s=draw(_SPEEDS[speed]), w=draw(_WAYS[direction]))


_DIGITS = {
    word: digit
    for digit, name in enumerate(NAMES)
    for word in (name, f"{name}s", f"{name}es", str(digit))  # sevens, sixes
}
_MOTIONS = {
    "up", "down", "left", "right", "upwards", "downwards", "leftwards", "rightwards",
    "upper", "lower", "top", "bottom", "move", "moves", "moving", "drift", "drifts", "drifting",
    "slide", "slides", "sliding", "go", "goes", "going", "glide", "glides", "gliding", "travel",
    "travels", "travelling", "shift", "shifts", "stay", "stays", "stand", "stands", "standing",
    "still", "motionless", "rest",
}  # fmt: skip
_OPPOSITE = (
    ({"left", "leftwards"}, {"right", "rightwards"}),
    ({"up", "upwards", "upper", "top"}, {"down", "downwards", "lower", "bottom"}),
)


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
    towards = re.findall(r"[^\W_]+", re.sub(r"\bfrom (the )?\w+", "", prompt.lower()))
    digits = {_DIGITS[word] for word in words if word in _DIGITS}
    lacks = []
    if not digits and not shown:
        lacks.append("no digit (zero to nine, or 0 to 9)")
    if len(digits) > 1:
        lacks.append("more than one digit")
    if moving and not _MOTIONS.intersection(words):
        lacks.append('no motion (as "moves to the left" or "stands still")')
    if any(not one.isdisjoint(towards) and not two.isdisjoint(towards) for one, two in _OPPOSITE):
        lacks.append("opposite directions")
    begin = prompt if len(prompt) <= 100 else prompt[:100] + "…"
    return f"{begin!r} says {' and '.join(lacks)}" if prompt.strip() and lacks else None
