"""Clips of one handwritten digit that bounces off the walls, many drawn at once on any device.

A digit keeps its direction until its box of 28 pixels meets a wall, and is thrown back there as a
ball is: at once, with its speed. Its strokes are varied a little (turned, slanted, stretched, bent,
thickened), the same in all frames, and drawn as a smooth picture that is sampled anew where the
digit is in each frame: a moving digit is as sharp as a still one.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional
from torch.utils.data import Dataset

from contar._errors import check_count, check_number
from contar._random import keyed_normal, keyed_uniform, keys
from contar._typing import Bool, Float, Int, Tensor, UInt8
from contar.media import frames_to_pixels
from recipes.moving_digits.data.captions import DIRECTIONS, caption
from recipes.moving_digits.data.handwriting import Split, load_digits
from recipes.moving_digits.data.moving import AROUND, DIGIT, FRAMES, SAID, SIDE, SPEEDS, MovingDigit

ROOM = (SIDE - DIGIT) / 2  # pixels from the middle to a wall
LONG = 240  # frames of a course within which clips are cut
_STILL = len(DIRECTIONS)  # the number of the way that leads nowhere
# Strokes are drawn with so many samples to a pixel, on a canvas with room to be bent.
_FINE, _CANVAS = 4, DIGIT + 8
_TURN, _SLANT, _STRETCH, _BEND = 0.14, 0.12, 0.07, 0.4  # radians, share, log share, pixels
_THIN, _THICK = 0.2, 0.7  # most of the way to strokes half a pixel thinner, or thicker


class Drawn(NamedTuple):
    """What was drawn for some samples, all on one device."""

    row: Int[Tensor, " n"]  # of the handwriting
    digit: Int[Tensor, " n"]
    way: Int[Tensor, " n"]  # number of the direction, 8 where it stands still
    speed: Int[Tensor, " n"]  # number in `SPEEDS`
    begins: Bool[Tensor, " n"]  # whether the clip shows the beginning of its course
    course: Float[Tensor, "n t 2"]  # (y, x), pixels from the middle
    chances: Float[Tensor, "n 5"]  # for the words
    strokes: Float[Tensor, "n 6"]  # in [-1, 1]: turn, two slants, two stretches, thickness
    bend: Float[Tensor, "n 2 4 4"]  # standard normal


class BouncingDigits(Dataset[MovingDigit]):
    """A digit in one of 8 directions at one of 5 speeds, or (one in nine) still.

    Its course starts in the middle of the frame, within 1.5 pixels, and meets no wall in the first
    17 frames. Sample `i` is drawn from (seed, split, i) alone, on any device; frames of another
    device may differ by a grey level. Half of the clips that are slow or fast say so.

    Args:
        split: whose digits; the test split also has phrasings of its own.
        count: of samples.
        seed: of all samples.
        frames: of a clip.
        cut: share of the clips that are cut from anywhere in a course of 240 frames; the others
            show its beginning. What a caption says is true of the clip's own beginning.

    Raises:
        ValueError: an unknown split or a number outside its range.
        ImportError: mlxtend is not installed.
    """

    def __init__(
        self, split: Split, count: int, *, seed: int = 0, frames: int = FRAMES, cut: float = 0.0
    ) -> None:
        self.digits = load_digits(split)
        self.split, self.seed = split, check_count("seed", seed, 0)
        self.count, self.frames = check_count("count", count), check_count("frames", frames)
        self.cut = check_number("cut", cut, 0, 1)
        self._placed: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> MovingDigit:
        if not 0 <= index < self.count:
            raise IndexError(index)
        drawn = self.draw([index])
        way = int(drawn.way)
        return MovingDigit(
            frames=self.show(drawn)[0, ..., None].repeat(1, 1, 1, 3),
            caption=self.captions(drawn)[0],
            digit=int(drawn.digit),
            direction=None if way == _STILL else DIRECTIONS[way],
            speed=0.0 if way == _STILL else SPEEDS[int(drawn.speed)],
        )

    def draw(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Drawn:
        """Return what is true of samples, and how their strokes are varied."""
        _, labels, speeds = self._on(device)
        key = keys(self.seed, self.split, "moving digit", index=indices, device=device)
        bends = keys(self.seed, self.split, "bend", index=indices, device=device)
        chance = keyed_uniform(key, 18)

        def below(column: int, count: int) -> Tensor:
            return (chance[:, column] * count).long().clamp(max=count - 1)

        row, way, speed = below(0, len(self.digits.labels)), below(1, _STILL + 1), below(2, 5)
        begins = chance[:, 3] > self.cut
        first = torch.where(begins, 0, 1 + below(4, LONG))
        angle = way.float() * (math.pi / 4)
        pace = speeds[speed] * (way < _STILL)
        step = pace[:, None] * torch.stack([angle.sin(), angle.cos()], dim=1)
        start = AROUND * (2 * chance[:, 5:7] - 1)
        times = first[:, None] + torch.arange(self.frames, device=key.device)
        course, back = bounce(start[:, None] + step[:, None] * times[..., None])
        turned = torch.where(back[:, 0], -step, step)
        angle = torch.atan2(turned[:, 0], turned[:, 1]) / (math.pi / 4)
        return Drawn(
            row=row,
            digit=labels[row],
            way=torch.where(way < _STILL, angle.round().long() % len(DIRECTIONS), way),
            speed=speed,
            begins=begins,
            course=course,
            chances=chance[:, 7:12],
            strokes=2 * chance[:, 12:18] - 1,
            bend=keyed_normal(bends, 2, 4, 4),
        )

    def show(self, drawn: Drawn) -> UInt8[Tensor, "n t 64 64"]:
        """Return the frames of samples, grey, on the device where they were drawn."""
        pictures = self._on(drawn.row.device)[0][drawn.row]
        return draw_frames(vary(draw_strokes(pictures), drawn.strokes, drawn.bend), drawn.course)

    def _on(self, device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
        """Return pictures, labels and speeds on a device, brought there once."""
        place = str(device)
        if place not in self._placed:
            speeds = torch.tensor(SPEEDS, dtype=torch.float32, device="cpu")
            tables = (self.digits.pictures, self.digits.labels, speeds)
            self._placed[place] = tuple(table.to(device) for table in tables)  # type: ignore[assignment]
        return self._placed[place]

    def pixels(
        self, indices: Sequence[int], device: torch.device | str = "cpu"
    ) -> Float[Tensor, "n 3 t 64 64"]:
        """Return the frames of samples in [-1, 1], as `contar.training.train_vae` takes them."""
        grey = self.show(self.draw(indices, device))
        return frames_to_pixels(grey[..., None]).expand(-1, 3, -1, -1, -1)

    def captions(self, drawn: Drawn) -> list[str]:
        """Return the sentences of samples."""
        columns = (drawn.digit, drawn.way, drawn.speed, drawn.chances)
        texts = []
        for digit, way, speed, chances in zip(*(x.tolist() for x in columns), strict=True):
            words = (word for word, speeds in SAID.items() if SPEEDS[speed] in speeds)
            said = next(words, None) if way != _STILL and chances[4] > 0.5 else None
            direction, test = None if way == _STILL else DIRECTIONS[way], self.split == "test"
            texts.append(caption(digit, direction, said, choose=_InTurn(chances), test=test))
        return texts


class _InTurn:
    """Makes whole numbers below a count of chances, one after the other."""

    def __init__(self, chances: Sequence[float]) -> None:
        self.chances = iter(chances)

    def __call__(self, count: int) -> int:
        return min(int(next(self.chances) * count), count - 1)


def bounce(way: Float[Tensor, "*n"]) -> tuple[Float[Tensor, "*n"], Bool[Tensor, "*n"]]:
    """Return where ways, pixels from the middle as if there were no walls, lead between walls.

    And whether they run backwards there.
    """
    along = (way - ROOM).remainder(4 * ROOM)
    return (along - 2 * ROOM).abs() - ROOM, along < 2 * ROOM


def draw_strokes(pictures: UInt8[Tensor, "n 28 28"]) -> Float[Tensor, "n 1 s s"]:
    """Return handwriting in [0, 1] on a finer grid, smooth between the pixels."""
    room = (_CANVAS - DIGIT) // 2
    padded = functional.pad(pictures.float()[:, None] / 255, [room] * 4)
    return functional.interpolate(padded, scale_factor=_FINE, mode="bicubic").clamp(0, 1)


def vary(
    strokes: Float[Tensor, "n 1 s s"], numbers: Float[Tensor, "n 6"], bend: Float[Tensor, "n 2 4 4"]
) -> Float[Tensor, "n 1 s s"]:
    """Return strokes turned, slanted, stretched, bent, and thinner or thicker, as `Drawn` says."""
    turn, slant, stretch = numbers[:, 0] * _TURN, numbers[:, 1:3] * _SLANT, numbers[:, 3:5]
    stretch = (stretch * _STRETCH).exp()
    rows = [
        turn.cos() * stretch[:, 0], slant[:, 0] - turn.sin(),
        turn.sin() + slant[:, 1], turn.cos() * stretch[:, 1],
    ]  # fmt: skip
    matrix = functional.pad(torch.stack(rows, dim=1).view(-1, 2, 2), (0, 1))
    grid = functional.affine_grid(matrix, list(strokes.shape), align_corners=False)
    bent = functional.interpolate(bend, size=strokes.shape[2:], mode="bicubic", align_corners=True)
    grid = grid + (2 * _BEND / _CANVAS) * bent.permute(0, 2, 3, 1)
    strokes = functional.grid_sample(strokes, grid, align_corners=False)
    thick, thin = _widest(strokes), -_widest(-strokes)
    share = numbers[:, 5, None, None, None]
    share = torch.where(share > 0, _THICK * share, _THIN * share)
    return strokes.lerp(torch.where(share > 0, thick, thin), share.abs())


def _widest(strokes: Tensor) -> Tensor:
    return functional.max_pool2d(strokes, _FINE + 1, stride=1, padding=_FINE // 2)


def draw_frames(
    strokes: Float[Tensor, "n 1 s s"], course: Float[Tensor, "n t 2"]
) -> UInt8[Tensor, "n t 64 64"]:
    """Return frames on black with a digit at the places of a course."""
    count, frames, _ = course.shape
    pixels = torch.arange(SIDE, dtype=torch.float32, device=course.device) - (SIDE - 1) / 2
    places = (pixels - course[..., None]) * (2 / _CANVAS)  # [n, t, 2, side], 1 is the canvas' edge
    y = places[:, :, 0, :, None].expand(-1, -1, -1, SIDE)
    x = places[:, :, 1, None, :].expand(-1, -1, SIDE, -1)
    grid = torch.stack([x, y], dim=-1).view(count, frames * SIDE, SIDE, 2)
    drawn = functional.grid_sample(strokes, grid, align_corners=False)
    return drawn.view(count, frames, SIDE, SIDE).mul(255).round().byte()
