"""Positions: coordinates of a grid, sine-cosine embeddings, rotary embedding in three axes.

All are functions of the grid in hand; nothing is kept from one call to the next.
"""

import math
from dataclasses import dataclass

import torch

from contar._errors import bad, check_count
from contar._typing import Float, Int, Tensor


def grid_coordinates(
    frames: int, height: int, width: int, device: torch.device | str = "cpu"
) -> Float[Tensor, "n 3"]:
    """Return (t, y, x) of each token, [frames * height * width, 3], x running fastest."""
    axes = [
        torch.arange(check_count(name, size), dtype=torch.float32, device=device)
        for name, size in (("frames", frames), ("height", height), ("width", width))
    ]
    return torch.cartesian_prod(*axes)


def sinusoid(
    values: Float[Tensor, "..."], width: int, *, cosine_first: bool = False
) -> Float[Tensor, "... d"]:
    """Return sines, then cosines, of `values` at width/2 frequencies 10000^(-2i/width).

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.5, halves instead of interleaved.

    Raises:
        ValueError: an odd `width`.
    """
    if check_count("width", width) % 2:
        raise bad("width", width, "an even number")
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=values.device)
    angles = values.float()[..., None] * (steps * (-math.log(10000) / half)).exp()
    pair = (angles.cos(), angles.sin()) if cosine_first else (angles.sin(), angles.cos())
    return torch.cat(pair, dim=-1)


def sincos_2d(
    grid: tuple[int, int],
    width: int,
    *,
    base: tuple[int, int] | None = None,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "n d"]:
    """Return fixed embeddings [h * w, width] of a grid: the column's half, then the row's.

    Args:
        grid: (h, w).
        width: of the embedding, a multiple of 4.
        base: the grid that the model was made for; another grid is stretched over it, so that a
            corner keeps its embedding. None takes `grid` itself.
        device: of the result.

    Raises:
        ValueError: `width` is no multiple of 4, or a size is below 1.
    """
    if check_count("width", width) % 4:
        raise bad("width", width, "a multiple of 4")
    coordinates = grid_coordinates(1, *grid, device=device)
    rows, columns = coordinates[:, 1], coordinates[:, 2]
    if base is not None:
        rows, columns = rows * (base[0] / grid[0]), columns * (base[1] / grid[1])
    return torch.cat([sinusoid(columns, width // 2), sinusoid(rows, width // 2)], dim=-1)


def rotary_sections(width: int) -> tuple[int, int, int]:
    """Return how many of a head's values turn with t, y and x: an eighth, then halves of the rest.

    Raises:
        ValueError: a width for which one of the three is odd; multiples of 32 always work.
    """
    time = width // 8
    space = (width - time) // 2
    if check_count("width", width) != time + 2 * space or time % 2 or space % 2:
        raise bad("width", width, "a head width whose eighth and halved rest are even, as in 32 m")
    return time, space, space


def rotary_table(
    coordinates: Float[Tensor, "*b n 3"],
    width: int,
    *,
    sections: tuple[int, int, int] | None = None,
    theta: float = 10000.0,
) -> Float[Tensor, "*b n k 2"]:
    """Return cosine and sine of every pair's angle, [..., n, width / 2, 2].

    Source: Su et al. 2021 (arXiv 2104.09864), eq. 15, one section of the head for each axis.

    Args:
        coordinates: [..., n, 3], (t, y, x) of each token; zeros leave a token unturned.
        width: values per head.
        sections: how many of them turn with each axis; even, adding up to `width`. None takes
            `rotary_sections(width)`.
        theta: base of the frequencies.

    Raises:
        ValueError: sections that are odd or do not add up to `width`.
    """
    sections = rotary_sections(width) if sections is None else sections
    if sum(sections) != width or any(section % 2 for section in sections):
        raise bad("sections", sections, f"three even numbers that add up to {width}")
    angles = []
    for axis, section in enumerate(sections):
        steps = torch.arange(0, section, 2, dtype=torch.float32, device=coordinates.device)
        frequencies = (theta ** (steps / max(section, 1))).reciprocal()
        angles.append(coordinates[..., axis, None] * frequencies)
    angle = torch.cat(angles, dim=-1)
    return torch.stack([angle.cos(), angle.sin()], dim=-1)


def rotate(
    x: Float[Tensor, "b s n k"], table: Float[Tensor, "*b n k2 2"]
) -> Float[Tensor, "b s n k"]:
    """Turn each neighbouring pair of a head's values by its angle; lengths and dtype stay."""
    cosine, sine = table.unsqueeze(-4).unbind(-1)  # a new axis for the heads
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1)
    return turned.flatten(-2).to(x.dtype)


@dataclass(frozen=True)
class Positions:
    """Where the tokens of a tower are: something to add, something to turn by, both, or neither.

    Attributes:
        add: [n, d] or [b, n, d], added to the tokens.
        turn: [n, k/2, 2] or [b, n, k/2, 2], a rotary table for queries and keys.
    """

    add: Float[Tensor, "*b n d"] | None = None
    turn: Float[Tensor, "*b n k 2"] | None = None

    def take(self, ids: Int[Tensor, "b m"]) -> "Positions":
        """Return the positions of the tokens `ids` of each sample, from one grid for all."""
        add = None if self.add is None else self.add[ids]
        turn = None if self.turn is None else self.turn[ids]
        return Positions(add, turn)

    def behind(self, prefix: int) -> "Positions":
        """Return the positions with `prefix` tokens before them that are not turned."""
        if self.turn is None or not prefix:
            return self
        still = self.turn.new_zeros(*self.turn.shape[:-3], prefix, *self.turn.shape[-2:])
        still[..., 0] = 1
        return Positions(self.add, torch.cat([still, self.turn], dim=-3))
