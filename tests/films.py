"""Video files as other programs write them: any times, sound, display matrices, odd pixels."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

CODECS = {
    ".mp4": ("libx264", "aac"), ".mov": ("libx264", "aac"), ".mkv": ("libx264", "aac"),
    ".webm": ("libvpx", "libopus"), ".avi": ("mpeg4", "libmp3lame"), ".flv": ("flv", "libmp3lame"),
    ".ts": ("libx264", "aac"), ".mpg": ("mpeg2video", "mp2"), ".gif": ("gif", ""),
    ".ogv": ("libvpx", "libopus"), ".3gp": ("mpeg4", "aac"), ".m4v": ("libx264", "aac"),
}  # fmt: skip


def greys(times: Sequence[float], height: int = 64, width: int = 64) -> np.ndarray:
    """Return frames whose grey tells their time: 25 levels a second."""
    levels = np.round(25 * np.asarray(times)).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (len(times), height, width, 3))


def seconds(frames: Any) -> np.ndarray:
    """Return the times that greys tell."""
    return np.asarray(frames, np.float64)[:, 20:40, 20:40].mean(axis=(1, 2, 3)) / 25


def film(
    path: Path,
    frames: np.ndarray,
    times: Sequence[float],
    *,
    rate: int = 25,
    sound: bool = False,
    turn: Any = None,
    pixel: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Write frames at times, in seconds; `turn` is an angle or a display matrix of 9 integers."""
    video, audio = CODECS[path.suffix]
    fixed = path.suffix in (".avi", ".mpg", ".3gp")  # which count frames
    base = Fraction(1, rate if fixed else 100 if path.suffix == ".gif" else 1000)
    with av.open(str(path), "w", options=options or {}) as container:
        stream: Any = container.add_stream(video, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb8" if video == "gif" else "yuv420p"
        stream.codec_context.time_base = base
        if pixel is not None:
            stream.codec_context.sample_aspect_ratio = pixel
        if isinstance(turn, int):
            stream.set_display_rotation(turn)
        elif turn is not None:
            stream.set_display_matrix(turn)
        noise: Any = container.add_stream(audio, rate=48000) if sound else None
        draws, heard = np.random.default_rng(0), 0
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = round(time / base), base
            container.mux(stream.encode(frame))
            while sound and heard < 48000 * time:
                samples = draws.normal(0, 0.1, (1, 960)).astype(np.float32)
                said = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
                said.sample_rate, said.pts = 48000, heard
                said.time_base = Fraction(1, 48000)
                container.mux(noise.encode(said))
                heard += 960
        container.mux(stream.encode())
        if sound:
            container.mux(noise.encode())
    return path
