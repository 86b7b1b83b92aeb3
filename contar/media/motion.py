"""How much a video moves: the mean length of its dense optical flow."""

import os
from itertools import pairwise
from typing import Any

import numpy as np

from contar._errors import bad
from contar._typing import Tensor, UInt8
from contar.media.video import check_frames, read_video

_FLOW: dict[str, Any] = {
    "flow": None, "pyr_scale": 0.5, "levels": 3, "winsize": 15, "iterations": 3, "poly_n": 5,
    "poly_sigma": 1.2, "flags": 0,
}  # fmt: skip


def motion_score(
    frames: UInt8[Tensor | np.ndarray, "t h w 3"] | str | os.PathLike[str],
) -> float:
    """Return the mean length of the optical flow between neighbouring frames, in pixels per frame.

        score = mean over i < t - 1, y, x of |flow(frame_i, frame_{i+1})[y, x]|

    The flow is Farneback's, as OpenCV computes it on grey frames (3 levels at scale 0.5, window of
    15, 3 iterations, polynomials over 5 pixels with sigma 1.2). The mean takes every pixel, moving
    or not: a panning camera scores its speed, and an object on an empty background its speed times
    the share of the picture that it and the window around it cover. A score thus compares videos
    of one size, one frame rate and one kind of content; halving the frame rate doubles it.

    Args:
        frames: RGB, uint8 [t, h, w, 3], at least two; or the path of a video, read whole.

    Raises:
        ValueError: other frames, or fewer than two of them; a path that `read_video` refuses.
        FileNotFoundError: there is no file at the path.
        ImportError: cv2 is not installed, or av for a path.

    Source: Farnebäck, "Two-Frame Motion Estimation Based on Polynomial Expansion", SCIA 2003.
    """
    if isinstance(frames, str | os.PathLike):
        frames, _ = read_video(frames)
    pixels = check_frames(frames)
    if len(pixels) < 2:
        raise bad("frames", "1 frame", "at least 2 frames")
    try:
        import cv2
    except ImportError as error:
        raise ImportError('cv2 is not installed (pip install "contar[video]")') from error
    greys = (cv2.cvtColor(np.ascontiguousarray(p), cv2.COLOR_RGB2GRAY) for p in pixels)
    lengths = []
    for before, grey in pairwise(greys):
        flow = cv2.calcOpticalFlowFarneback(before, grey, **_FLOW)
        lengths.append(np.hypot(flow[..., 0], flow[..., 1]).mean(dtype=np.float64))
    return float(np.mean(lengths))
