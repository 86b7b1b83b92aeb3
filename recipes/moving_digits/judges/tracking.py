"""The track of what moves: where the bright mass lies in each frame."""

import math

from contar._errors import bad
from contar._typing import Float, Tensor, UInt8
from contar.media import check_pixels
from recipes.moving_digits.data.captions import DIRECTIONS
from recipes.moving_digits.judges.mass import WINDOW, brightness, centres

STILL = 0.2
"""Pixels a frame below which a digit stands still; half the slowest speed of the moving digits."""
LOST = "lost"


def track(frames: UInt8[Tensor, "t h w 3"]) -> Float[Tensor, "t 2"]:
    """Return the centre of mass (y, x) of each frame in pixels, NaN where it shows nothing.

    What is no brighter than 40 of 255 has no mass, so noise below that moves nothing; of brighter
    pixels the excess counts, see `recipes.moving_digits.judges.mass`.

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
    down, right = _slopes(track(frames).double().cpu())
    return down, right


def _slopes(places: Float[Tensor, "t n"]) -> list[float]:
    seen = ~places[:, 0].isnan()
    if 2 * int(seen.sum()) <= len(places) or int(seen.sum()) < 2:
        return [math.nan] * places.shape[1]
    times, places = seen.nonzero()[:, 0].double(), places[seen]
    times = times - times.mean()
    return (times @ (places - places.mean(0)) / times.square().sum()).tolist()


def speed_of(frames: UInt8[Tensor, "t h w 3"]) -> float:
    """Return pixels a frame by least squares on the track, NaN where it is lost.

    Errors as `direction_of`.
    """
    return math.hypot(*velocity_of(frames))


def direction_of(frames: UInt8[Tensor, "t h w 3"]) -> str | None:
    """Return where the bright mass moves to, the nearest of the eight `DIRECTIONS` of captions.

    None, it stands still, below 0.2 pixels a frame, which is 3.2 over a clip of 17 and half of the
    slowest 0.4; "lost" if not more than half of the frames show anything.

    Raises:
        ValueError: no uint8 [t, h, w, 3], or fewer than two frames.
    """
    down, right = velocity_of(frames)
    if math.isnan(down):
        return LOST
    if math.hypot(down, right) < STILL:
        return None
    return DIRECTIONS[round(math.atan2(down, right) / (math.pi / 4)) % 8]


def bounced(frames: UInt8[Tensor, "t h w 3"], free: int) -> bool | None:
    """Return whether what moves is thrown back where its way meets a wall.

    Its way is the straight line of its first `free` frames. Where a digit of 28 pixels on that way
    touches a wall early enough that 8 frames are left, it has to go back in the 12 frames from the
    third after that on (its mass is not quite in the middle of its 28 pixels), at least half as
    fast. None is what meets no wall so early, moves less than 0.2 pixels a frame, or is lost.

    Raises:
        ValueError: no uint8 [t, h, w, 3], or fewer than two free frames.
    """
    speeds = velocity_of(frames[:free])
    places = track(frames).double().cpu()
    middles = [(side - 1) / 2 for side in frames.shape[1:3]]
    back = []
    for axis, (speed, middle) in enumerate(zip(speeds, middles, strict=True)):
        if math.isnan(speed) or abs(speed) < STILL:
            continue
        place = float(places[:free, axis].nanmean()) - middle  # in the middle of the free frames
        room = middle - (WINDOW - 1) / 2
        meets = (free - 1) / 2 + (math.copysign(room, speed) - place) / speed
        if meets > len(frames) - 8:
            continue
        first = max(0, math.ceil(meets + 3))
        (after,) = _slopes(places[first : first + 12, axis : axis + 1])
        back.append(after * speed < 0 and abs(after) >= abs(speed) / 2)
    return all(back) if back else None
