"""Positions: coordinates of a grid, sine-cosine embeddings, rotary embedding in three axes.

All are functions of the grid in hand; nothing is kept from one call to the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from contar._errors import (
    bad,
    check_device,
    check_grid,
    check_instance,
    check_number,
    check_size,
    check_tensor,
    check_total,
)
from contar._typing import Float, Int, Tensor
from contar.attention._angles import coordinates, grid_waves, rotated, waves


def grid_coordinates(
    frames: int, height: int, width: int, device: torch.device | str = "cpu"
) -> Float[Tensor, "n 3"]:
    """Return (t, y, x) of each token, [frames * height * width, 3], x running fastest.

    Raises:
        ValueError: a size below 1, or an unknown device.
    """
    check_device("device", device)
    named = {"frames": frames, "height": height, "width": width}
    sizes = [check_size(name, size) for name, size in named.items()]
    check_total(", ".join(named), *sizes)
    return coordinates(*sizes, device=device)


def sinusoid(
    values: Float[Tensor, "..."], width: int, *, cosine_first: bool = False
) -> Float[Tensor, "... d"]:
    """Return sines, then cosines, of `values` at width/2 frequencies 10000^(-2i/width).

    Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.5, halves instead of interleaved.

    Raises:
        ValueError: an odd `width`, or values that are no floats.
    """
    if check_size("width", width) % 2:
        raise bad("width", width, "an even number")
    check_tensor("values", values, (...,), "[...]")
    check_instance("cosine_first", cosine_first, bool)
    return waves(values, width, cosine_first)


def sincos_2d(
    grid: tuple[int, int],
    width: int,
    *,
    base: tuple[int, int] | None = None,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "n d"]:
    """Return fixed embeddings [h * w, width] of a grid: the column's half, then the row's.

    Args:
        width: of the embedding, a multiple of 4.
        base: the grid that the model was made for; another grid is stretched over it, so that a
            corner keeps its embedding. None takes `grid` itself.

    Raises:
        ValueError: `width` is no multiple of 4, or a size is below 1.
    """
    if check_size("width", width) % 4:
        raise bad("width", width, "a multiple of 4")
    check_device("device", device)
    check_grid("grid", grid)
    if base is not None:
        check_grid("base", base)
    return grid_waves(grid, width, base, device)


def rotary_sections(width: int) -> tuple[int, int, int]:
    """Return how many of a head's values turn with t, y and x: an eighth, then halves of the rest.

    Raises:
        ValueError: a width for which one of the three is odd; multiples of 32 always work.
    """
    time = check_size("width", width) // 8
    space = (width - time) // 2
    if width != time + 2 * space or time % 2 or space % 2:
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
        ValueError: other coordinates, sections that are odd or do not add up to `width`, or a
            `theta` below 1.
    """
    check_tensor("coordinates", coordinates, (..., None, 3), "[..., n, 3]")
    theta = check_number("theta", theta, 1)
    sections = rotary_sections(width) if sections is None else sections
    three = isinstance(sections, Sequence) and len(sections) == 3
    even = three and not any(check_size("sections", s, 0) % 2 for s in sections)
    if not even or sum(sections) != width:
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
    """Turn each neighbouring pair of a head's values by its angle; lengths and dtype stay.

    Raises:
        ValueError: a table of another length or width.
    """
    check_tensor("x", x, [None] * 4, "[b, s, n, k]")
    if x.shape[3] % 2:
        raise bad("x", tuple(x.shape), "[b, s, n, k] with an even k")
    check_table("table", table, x.shape[0], x.shape[2], x.shape[3])
    return rotated(x, table)


def check_table(name: str, table: Tensor, batch: int, tokens: int, width: int) -> None:
    """Raise a ValueError unless `table` turns so many tokens of such heads, alike or by sample."""
    axes = "[n, k / 2, 2] or [b, n, k / 2, 2]"
    check_tensor(name, table, (..., tokens, width // 2, 2), axes)
    if table.ndim > 4 or (table.ndim == 4 and table.shape[0] not in (1, batch)):
        raise bad(name, tuple(table.shape), f"{axes} with b = {batch}")


@dataclass(frozen=True)
class Positions:
    """Where the tokens of a tower are: something to add, something to turn by, both, or neither.

    Attributes:
        add: [n, d] or [b, n, d], added to the tokens.
        rope: [n, k/2, 2] or [b, n, k/2, 2], a rotary table for queries and keys.
    """

    add: Float[Tensor, "*b n d"] | None = None
    rope: Float[Tensor, "*b2 n2 k 2"] | None = None

    def take(self, ids: Int[Tensor, "b m"]) -> "Positions":
        """Return the positions of the tokens `ids` of each sample, from one grid for all."""
        add = None if self.add is None else self.add[ids]
        rope = None if self.rope is None else self.rope[ids]
        return Positions(add, rope)

    def shifted(self, prefix: int) -> "Positions":
        """Return the positions with `prefix` tokens before them that are not turned."""
        if self.rope is None or not prefix:
            return self
        still = self.rope.new_zeros(*self.rope.shape[:-3], prefix, *self.rope.shape[-2:])
        still[..., 0] = 1
        return Positions(self.add, torch.cat([still, self.rope], dim=-3))
