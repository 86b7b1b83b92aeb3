"""The tasks of the image variants: handwritten digits as pixels, by class; no tokenizer."""

import math

import torch

from contar._errors import check_choice, check_finite
from contar._random import seeded, uniform
from contar._typing import Float, Int, Tensor, UInt8
from contar.media import fit_frames, frames_to_pixels, pixels_to_frames
from contar.tokenizers import patchify, unpatchify
from recipes.moving_digits import DigitJudge, frechet_frames, load_digits
from recipes.variants.canvas import DROP, Canvas

SIDE, SHIFT, MARGIN = 28, 1, 2  # of a digit; by which it is moved; around it, nothing of it
GRID = (4, 4)
CANVAS = Canvas(GRID, 7**2, 10)  # 28 x 28 pixels
SMALL = Canvas(GRID, 3**2, 10)  # 12 x 12, each the mean of four, without the margin


class DigitPixels:
    """Batches of digits by step on `CANVAS`, or on `SMALL` in tokens of few values.

    And how well generated ones are recognised.
    """

    def __init__(self, canvas: Canvas = CANVAS) -> None:
        check_choice("canvas", canvas, (CANVAS, SMALL))
        self.canvas, self.patch = canvas, math.isqrt(canvas.token_dim)
        self.digits = load_digits("train")

    def batch(
        self, seed: int, step: int, size: int
    ) -> tuple[Float[Tensor, "b n c"], Int[Tensor, " b"]]:
        """Return tokens and labels of a step: the same for every variant of equal seed.

        Each digit is shifted by up to a pixel; labels left out are the number of classes.
        """
        draws = seeded(seed, "batch", step)
        rows = torch.randint(len(self.digits.labels), (size,), generator=draws, device="cpu")
        shift = torch.randint(-SHIFT, SHIFT + 1, (size, 2), generator=draws, device="cpu").tolist()
        pictures = self.digits.pictures[rows]
        moved = [p.roll(s, (0, 1)) for p, s in zip(pictures, shift, strict=True)]
        dropped = uniform(size, generator=draws) < DROP
        labels = self.digits.labels[rows].masked_fill(dropped, CANVAS.classes)
        return self.tokens(torch.stack(moved)), labels

    def asked(self, first: int, count: int) -> Int[Tensor, " b"]:
        """Return the labels of samples, every class in turn."""
        return torch.arange(first, first + count, device="cpu") % CANVAS.classes

    def frames(self, made: Float[Tensor, "b n c"]) -> UInt8[Tensor, "b 64 64 3"]:
        """Return tokens as frames, each digit in the middle of a larger picture.

        Raises:
            ValueError: NaN or infinite tokens.
        """
        check_finite("made", made)
        pixels = unpatchify(made.float(), GRID, self.patch)
        grey = pixels_to_frames(pixels[:, :, None])[:, 0, ..., 0]
        if self.canvas == SMALL:  # of real digits, the judge reads as many so
            side = SIDE - 2 * MARGIN
            grey = fit_frames(grey[..., None].expand(-1, -1, -1, 3), side, side)[..., 0]
        padded = torch.nn.functional.pad(grey, ((64 - grey.shape[-1]) // 2,) * 4)
        return padded[..., None].expand(-1, -1, -1, 3).contiguous()

    def judged(self, made: Float[Tensor, "b n c"], judge: DigitJudge) -> dict[str, float]:
        """Return the share of digits that are recognised, and the distance from real test digits.

        The tokens are those of `asked(0, b)`.
        """
        frames = self.frames(made)
        others = self.frames(self.tokens(load_digits("test").pictures))
        right = (judge.digits(frames) == self.asked(0, len(made))).float().mean()
        return {"digit": float(right), "frechet": frechet_frames(judge, others, frames)}

    def sheet(self, made: Float[Tensor, "b n c"]) -> Float[Tensor, "b2 3 t h w"]:
        """Return a few pictures in [0, 1], a row for every ten."""
        margin = (64 - SIDE) // 2
        shown = self.frames(made[:40])[:, margin:-margin, margin:-margin]
        return shown.unflatten(0, (-1, CANVAS.classes)).permute(0, 4, 1, 2, 3).float() / 255

    def tokens(self, pictures: UInt8[Tensor, "b h w"]) -> Float[Tensor, "b n c"]:
        """Return pictures of digits as tokens."""
        pixels = frames_to_pixels(pictures[:, None, :, :, None])[:, :, 0]
        if self.canvas == SMALL:
            inner = pixels[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
            pixels = inner.unflatten(-1, (-1, 2)).mean(-1).unflatten(-2, (-1, 2)).mean(-2)
        return patchify(pixels, self.patch)
