"""Handwriting that is a digit no longer: what a judge must know to see it."""

import math
from itertools import product

import torch
from torch.nn import functional

from contar._typing import Float, Tensor

# How alike a picture and what became of it are, as the cosine between them: below, it is broken;
# above the second, still the digit; in between nobody can say.
BROKEN_BELOW, WHOLE_ABOVE = 0.78, 0.88
_BLOCK = 16  # pixels: as tokens are that disagree


def break_strokes(
    pictures: Float[Tensor, "n 28 28"],
    others: Float[Tensor, "n 28 28"],
    generator: torch.Generator,
) -> Float[Tensor, "n 28 28"]:
    """Return each picture broken in one of five ways, drawn at random, all equally often.

    One side of it belongs to one of `others`; such a digit is drawn over it; its strokes are rubbed
    out in places; they melt; blocks of it are shifted, or those of another digit. Black is 0.
    """
    count = len(pictures)

    def draw(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(count, generator=generator))[:, None, None]

    across, along = torch.meshgrid(*[torch.arange(28.0) - 13.5] * 2, indexing="ij")
    angle, shift = draw(0, 2 * math.pi), draw(-2, 2)
    side = ((angle.cos() * along + angle.sin() * across + shift) / 1.5).sigmoid()
    merged = pictures * side + others * (1 - side)
    over = torch.maximum(pictures, others.roll((2, -2), (1, 2)) * draw(0.6, 1))
    field = _smooth(count, 7, generator)
    kept = (field > field.flatten(1).quantile(0.45, dim=1)[:, None, None]).float()
    rubbed = _blurred(pictures * kept) * 1.1
    melted = bend(pictures, draw(3.5, 6), generator)
    blocks = _blocks(pictures, others, generator)
    kind = torch.randint(5, (count,), generator=generator)
    ways = torch.stack([merged, over, rubbed, melted, blocks], dim=1)
    return ways[torch.arange(count), kind]


def bend(
    pictures: Float[Tensor, "n 28 28"],
    amount: Float[Tensor, "n 1 1"],
    generator: torch.Generator,
) -> Float[Tensor, "n 28 28"]:
    """Return pictures bent smoothly, by `amount` pixels (standard deviation) in x and in y."""
    by = torch.stack([_smooth(len(pictures), 5, generator) for _ in range(2)], dim=-1)
    return _moved(pictures, by * amount[..., None])


def likeness(a: Float[Tensor, "n 28 28"], b: Float[Tensor, "n 28 28"]) -> Float[Tensor, " n"]:
    """Return the cosine between pictures, at the best of shifts by up to a pixel."""
    unit = functional.normalize(a.flatten(1), dim=1)
    shifts = list(product((-1, 0, 1), repeat=2))
    moved = (functional.normalize(b.roll(by, (1, 2)).flatten(1), dim=1) for by in shifts)
    return torch.stack([(unit * other).sum(1) for other in moved]).amax(0)


def _blocks(pictures: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures some of whose blocks are shifted by 2 to 6 pixels, or of another digit."""
    count, place = len(pictures), torch.arange(28)
    corner = torch.randint(_BLOCK, (count, 2), generator=generator)
    rows, columns = ((place + corner[:, axis, None]) // _BLOCK for axis in (0, 1))
    chosen = torch.rand(count, 9, generator=generator) < 0.5
    cells = (rows[:, :, None] * 3 + columns[:, None, :]).flatten(1)
    soft = _blurred(chosen.gather(1, cells).view(count, 28, 28).float())
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    far = 2 + 4 * torch.rand(count, generator=generator)
    by = far[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    shifted = _moved(pictures, by[:, None, None].expand(-1, 28, 28, -1))
    mixed = (torch.rand(count, generator=generator) < 0.5)[:, None, None]
    return pictures.lerp(torch.where(mixed, shifted, others), soft)


def _smooth(count: int, cells: int, generator: torch.Generator) -> Float[Tensor, "n 28 28"]:
    coarse = torch.randn(count, 1, cells, cells, generator=generator)
    return functional.interpolate(coarse, size=(28, 28), mode="bicubic")[:, 0]


def _blurred(pictures: Tensor) -> Tensor:
    padded = functional.pad(pictures[:, None], [1] * 4, mode="replicate")
    return functional.avg_pool2d(padded, 3, 1)[:, 0]


def _moved(pictures: Tensor, by: Float[Tensor, "n 28 28 2"]) -> Tensor:
    """Return pictures sampled so many pixels (x, y) from each place."""
    same = torch.eye(2, 3).expand(len(pictures), 2, 3)
    grid = functional.affine_grid(same, [len(pictures), 1, 28, 28], align_corners=False)
    return functional.grid_sample(pictures[:, None], grid + by * 2 / 28, align_corners=False)[:, 0]
