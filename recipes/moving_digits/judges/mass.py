"""Where the bright mass of a frame lies: what the judges look at and what the tracks follow."""

import torch
from torch.nn import functional

from contar._typing import Float, Tensor, UInt8
from contar.media import check_pixels

FLOOR = 40 / 255  # what is no brighter counts as black: noise, and the haze that a decoder leaves
FAINTEST = 4.0  # of ink, in wholly bright pixels; the thinnest 1 of the data has 17
WINDOW = 28
WIDEST = WINDOW / 2  # pixels from the centre, root mean square; the widest digit has 9


def brightness(frames: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n h w"]:
    """Return the mean of the colours in [0, 1]."""
    return frames.float().mean(-1) / 255


def centres(grey: Float[Tensor, "n h w"]) -> Float[Tensor, "n 2"]:
    """Return each frame's centre of mass (y, x) in pixels, NaN where it shows nothing.

    The mass of a pixel is its ink, how far its brightness lies above `FLOOR`, 1 for white. A frame
    shows nothing if it has less ink than `FAINTEST`, or if the ink is all over it rather than in
    one place: further from its centre than `WIDEST`. Noise of 20 levels of 255 changes neither.
    """
    ink = (grey - FLOOR).clamp_min(0) / (1 - FLOOR)
    total = ink.sum((1, 2))
    rows = torch.arange(grey.shape[1], dtype=grey.dtype, device=grey.device)
    columns = torch.arange(grey.shape[2], dtype=grey.dtype, device=grey.device)
    along, across = ink.sum(2) / total[:, None], ink.sum(1) / total[:, None]
    centre = torch.stack([along @ rows, across @ columns], dim=1)
    squares = along @ rows.square() + across @ columns.square()
    radius = (squares - centre.square().sum(1)).clamp_min(0).sqrt()
    shows = (total >= FAINTEST) & (radius <= WIDEST)
    return centre.where(shows[:, None], torch.nan)


def sharpness(frames: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, " n"]:
    """Return how steep the edges of each frame's ink are, NaN where it shows nothing.

    The sum of squared differences of neighbouring pixels over that of absolute ones, for a
    brightest pixel of 1: an edge from black to white within a pixel has 1, over two pixels 1/2,
    whatever the strokes' thickness and the frame's brightness.
    """
    grey = brightness(check_pixels("frames", frames, "[n, h, w, 3]"))
    ink = (grey - FLOOR).clamp_min(0) / (1 - FLOOR)
    edges = torch.cat([ink.diff(dim=axis).abs().flatten(1) for axis in (1, 2)], dim=1)
    steep = edges.square().sum(1) / edges.sum(1) / ink.amax((1, 2))
    return steep.where(~centres(grey)[:, 0].isnan(), torch.nan)


def windows(grey: Float[Tensor, "n h w"], centre: Float[Tensor, "n 2"]) -> Float[Tensor, "n 28 28"]:
    """Cut 28x28 pixels around each centre (y, x), whole pixels, black outside the frame.

    Where a centre is NaN it is the middle of the frame.
    """
    sides = torch.tensor(grey.shape[1:], device=grey.device)
    middle = (sides - 1).to(grey.dtype) / 2
    first = torch.where(centre.isnan(), middle, centre) - (WINDOW - 1) / 2
    # In the padded frame a window starts WINDOW later; one that misses the frame stays beside it.
    corner = (first.round().long() + WINDOW).clamp_min(0).minimum(sides + WINDOW)
    padded = functional.pad(grey, [WINDOW] * 4)
    span = torch.arange(WINDOW, device=grey.device)
    rows, columns = (corner[:, axis, None] + span for axis in (0, 1))
    samples = torch.arange(len(grey), device=grey.device)
    return padded[samples[:, None, None], rows[:, :, None], columns[:, None, :]]
