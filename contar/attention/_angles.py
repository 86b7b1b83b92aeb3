"""What `positions.py` makes of sizes and tensors, after its checks or those of another door."""

import math

import torch
from torch import Tensor


def coordinates(*sizes: int, device: torch.device | str) -> Tensor:
    axes = [torch.arange(size, dtype=torch.float32, device=device) for size in sizes]
    return torch.cartesian_prod(*axes)


def waves(values: Tensor, width: int, cosine_first: bool = False) -> Tensor:
    """Return what `sinusoid` does, unchecked."""
    half = width // 2
    dtype = torch.promote_types(values.dtype, torch.float32)
    steps = torch.arange(half, dtype=dtype, device=values.device)
    angles = values.to(dtype)[..., None] * (steps * (-math.log(10000) / half)).exp()
    pair = (angles.cos(), angles.sin()) if cosine_first else (angles.sin(), angles.cos())
    return torch.cat(pair, dim=-1)


def grid_waves(
    grid: tuple[int, int], width: int, base: tuple[int, int] | None, device: torch.device | str
) -> Tensor:
    """Return what `sincos_2d` does, unchecked."""
    places = coordinates(1, *grid, device=device)
    rows, columns = places[:, 1], places[:, 2]
    if base is not None:
        rows, columns = rows * (base[0] / grid[0]), columns * (base[1] / grid[1])
    return torch.cat([waves(columns, width // 2), waves(rows, width // 2)], dim=-1)


def rotated(x: Tensor, table: Tensor) -> Tensor:
    """Return what `rotate` does, unchecked."""
    cosine, sine = table.unsqueeze(-4).unbind(-1)  # a new axis for the heads
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    pairs = torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], dim=-1)
    return pairs.flatten(-2).to(x.dtype)
