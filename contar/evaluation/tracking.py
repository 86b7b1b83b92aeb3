"""The track of what moves: where the bright mass lies in each frame."""

import math

from contar._errors import bad
from contar._typing import Float, Tensor, UInt8
from contar.data.captions import DIRECTIONS
from contar.evaluation.mass import brightness, centres, check_pixels

STILL = 0.2  # pixels a frame; half the slowest speed of the moving digits
LOST = "lost"


def track(frames: UInt8[Tensor, "t h w 3"]) -> Float[Tensor, "t 2"]:
    """Return the centre of mass (y, x) of each frame in pixels, NaN where it shows nothing.

    What is no brighter than 40 of 255 has no mass, so noise below that moves nothing; of brighter
    pixels the excess counts, see `contar.evaluation.mass`.

    Raises:
        ValueError: no uint8 [t, h, w, 3].
    """
    return centres(brightness(check_pixels("frames", frames, "[t, h, w, 3]")))


def velocity_of(frames: UInt8[Tensor, "t h w 3"]) -> tuple[float, float]:
    """Return (y, x) pixels a frame of the straight line nearest to the track by least squares.

    NaN where not more than half of the frames, or only one, show something.

    Raises:
        ValueError: no uint8 [t, h, w, 3], or fewer than two frames.
    """
    if len(check_pixels("frames", frames, "[t, h, w, 3]")) < 2:
        raise bad("frames", tuple(frames.shape), "at least 2 frames")
    places = track(frames).double().cpu()
    seen = ~places[:, 0].isnan()
    if 2 * int(seen.sum()) <= len(places) or int(seen.sum()) < 2:
        return math.nan, math.nan
    times, places = seen.nonzero()[:, 0].double(), places[seen]
    times = times - times.mean()
    slope = times @ (places - places.mean(0)) / times.square().sum()
    return float(slope[0]), float(slope[1])


def speed_of(frames: UInt8[Tensor, "t h w 3"]) -> float:
    """Return the speed in pixels a frame by least squares on the track, NaN where it is lost.

    Raises:
        ValueError: no uint8 [t, h, w, 3], or fewer than two frames.
    """
    return math.hypot(*velocity_of(frames))


def direction_of(frames: UInt8[Tensor, "t h w 3"]) -> str | None:
    """Return where the bright mass moves to.

    Returns:
        The nearest of the eight `contar.data.captions.DIRECTIONS`; None, it stands still, below
        0.2 pixels a frame, which is 3.2 over a clip of 17 and half of the slowest 0.4; "lost" if
        not more than half of the frames show anything.

    Raises:
        ValueError: no uint8 [t, h, w, 3], or fewer than two frames.
    """
    down, right = velocity_of(frames)
    if math.isnan(down):
        return LOST
    if math.hypot(down, right) < STILL:
        return None
    return DIRECTIONS[round(math.atan2(down, right) / (math.pi / 4)) % 8]
