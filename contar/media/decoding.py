"""Frames of a video file as a player shows them: upright, with square pixels, at their times."""

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from contar._errors import bad
from contar.media.whole import is_cut

# FFmpeg would also read a text as an animation of its letters, and follow playlists elsewhere.
_CONTAINERS = "mov,matroska,avi,gif,mpegts,mpeg,flv,ogg,yuv4mpegpipe"
# swscale's bilinear | full chroma | accurate rounding: its fast path is 1.5 levels off in green.
_ACCURATE = 0x2 | 0x2000 | 0x40000
_WIDEST = 16  # pixels are at most so many times as wide as high, or as high as wide


def load_av():
    """Return PyAV; ImportError says what to install if it is not there."""
    try:
        import av
        import av.error
        import av.sidedata.sidedata
        import av.stream
        import av.video.reformatter
    except ImportError as error:
        raise ImportError('av is not installed (pip install "contar[video]")') from error
    return av


def path_of(path: object, name: str = "path") -> Path:
    """Return a path; ValueError if it is none."""
    if not isinstance(path, str | os.PathLike):
        raise bad(name, type(path).__name__, "a str or a Path")
    return Path(path)


def file_at(path: object, name: str = "path") -> Path:
    """Return the path of a file; FileNotFoundError or ValueError if there is none."""
    file = path_of(path, name)
    if not file.exists():
        raise FileNotFoundError(f"{name}: no file {str(file)!r}")
    if not file.is_file():
        raise bad(name, str(file), "a file")
    return file


@contextmanager
def _stream(file: Path, name: str) -> Iterator[tuple[Any, Any]]:
    """Yield a video file's container and first video stream; what fails is said by name."""
    av = load_av()
    covers = av.stream.Disposition.attached_pic
    options = {"format_whitelist": _CONTAINERS}
    try:
        with (
            file.open("rb") as content,
            av.open(content, mode="r", options=options, metadata_errors="ignore") as container,
        ):
            streams = [s for s in container.streams.video if not s.disposition & covers]
            if not streams:
                raise bad(name, str(file), "a file with a video stream")
            # Not by frames: a video that is left early may wait for such threads for ever (av 17).
            streams[0].thread_type = "SLICE"  # type: ignore[assignment]
            yield container, streams[0]
    except (av.error.FFmpegError, OSError) as error:
        raise bad(name, str(file), "a video file that can be decoded") from error


@dataclass(frozen=True)
class Video:
    """A video file that is whole.

    Attributes:
        file: its path.
        name: of the path, for errors.
        rate: mean frames per second.
        tick: seconds that its time stamps are multiples of.
        aspect: width of a stored pixel in its heights.
        count: frames, as its packets tell.
    """

    file: Path
    name: str
    rate: float
    tick: float
    aspect: Fraction
    count: int

    @property
    def rounding(self) -> float:
        """Seconds that its time stamps may be off."""
        return min(self.tick, 1 / (4 * self.rate))

    def frames(self) -> Generator[tuple[float, Any], None, None]:
        """Yield each frame's time in seconds, rising, and the frame, as PyAV has it.

        Raises:
            ValueError: the file is damaged, or its frames have several sizes.
        """
        first = last = None
        with (
            _stream(self.file, self.name) as (container, stream),
            closing(container.demux(stream)) as packets,  # else what is left early stays in memory
        ):
            for packet in packets:
                for frame in packet.decode():
                    first = first or frame
                    if (frame.width, frame.height) != (first.width, first.height):
                        raise self._bad("a video file whose frames have one size")
                    time = frame.time
                    if last is not None and (time is None or time <= last):
                        time = last + 1 / self.rate
                    last = time or 0.0
                    yield last, frame
        if first is None:
            raise self._bad("a video file with frames and a frame rate")

    def pictures(self, rate: float) -> Iterator[np.ndarray]:
        """Yield what is shown at each multiple of 1 / `rate` from the first frame on, [h, w, 3].

        A frame may come early, by half its distance from the one before and half of 1 / `rate`.
        """
        kept = None
        for frame in _at_rate(self.frames(), rate, late=self.rounding):
            kept = kept if kept and kept[0] is frame else (frame, self.picture(frame))
            yield kept[1]

    def picture(self, frame: Any) -> np.ndarray:
        """Return a frame as uint8 RGB [h, w, 3], with square pixels, turned as the file says."""
        width, height = frame.width, frame.height
        if self.aspect > 1:
            width = round(width * self.aspect)
        else:
            height = round(height / self.aspect)
        size = {"width": width, "height": height}
        # Threads of its own would stay as long as the frame.
        options = {"format": "rgb24", "interpolation": _ACCURATE, "threads": 1}
        array = frame.to_ndarray(**options, **size)
        data = load_av().sidedata.sidedata
        # `frame.side_data` would put the frame in a cycle, and its pixels stay until it is found.
        held = data.SideDataContainer(frame)  # type: ignore[call-arg]
        matrix = held.get(data.Type.DISPLAYMATRIX)
        return array if matrix is None else self._turned(array, bytes(matrix))

    def _turned(self, array: np.ndarray, matrix: bytes) -> np.ndarray:
        """Apply a display matrix: (x, y) is shown at (ax + cy, bx + dy), fractions of 2**16."""
        a, b, _, c, d = (float(value) for value in np.frombuffer(matrix, np.int32, 5))
        upright, lying = abs(a) + abs(d), abs(b) + abs(c)
        if min(upright, lying) > 0.01 * max(upright, lying):
            raise self._bad("a video that is to be turned by quarters, if at all")
        if lying > upright:
            array, a, d = array.transpose(1, 0, 2), c, b
        return array[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]

    def _bad(self, allowed: str) -> ValueError:
        return bad(self.name, str(self.file), allowed)


def open_video(path: object, name: str = "path") -> Video:
    """Return a video, after a look at all of its time stamps and none of its pixels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no video, holds sound only, is damaged, cut off or without a frame rate.
        ImportError: av is not installed.
    """
    file = file_at(path, name)
    with _stream(file, name) as (container, stream):
        if is_cut(file):
            raise bad(name, str(file), "a whole video file; this one is cut off")
        packets = []
        for packet in container.demux(stream):
            if packet.is_corrupt:
                raise bad(name, str(file), "a whole video file; this one is damaged")
            if packet.size and not packet.is_discard:
                packets.append((packet.pts, packet.dts))
        aspect = stream.sample_aspect_ratio or Fraction(1)
        stated = stream.average_rate or stream.guessed_rate
        tick = stream.time_base
    rate = _rate(packets, tick, stated)
    if rate is None:
        raise bad(name, str(file), "a video file with frames and a frame rate")
    if not 1 / _WIDEST <= aspect <= _WIDEST:
        raise bad(name, str(file), f"pixels at most {_WIDEST} times as wide as high, or as high")
    return Video(file, name, float(rate), float(tick), aspect, len(packets))


def glance_video(path: object, *, name: str = "path") -> None:
    """Raise what `open_video` would, as far as a look at the beginnings of its parts shows it.

    Raises:
        FileNotFoundError, ValueError, ImportError: as `open_video`.
    """
    file = file_at(path, name)
    cut = is_cut(file)
    if cut:
        raise bad(name, str(file), "a whole video file; this one is cut off")
    if cut is None:
        open_video(file, name)


def _rate(
    packets: list[tuple[int | None, int | None]], tick: Fraction, stated: Fraction | None
) -> Fraction | None:
    """Return the stated rate if it agrees with the time stamps, else theirs; None if there is none.

    A browser's recording says the rate of its clock; one that varies has a mean only in its times.
    """
    if not packets:
        return None
    stamps = [pts for pts, _ in packets]
    if None in stamps:
        stamps = [dts for _, dts in packets if dts is not None]
    steps = len(stamps) - 1
    seconds = (max(stamps) - min(stamps)) * tick if stamps else Fraction(0)  # type: ignore[type-var, operator]
    if not seconds or (stated and abs(stated * seconds - steps) <= Fraction(1, 2)):
        return stated or None
    return steps / seconds


def _at_rate(
    frames: Iterable[tuple[float, Any]],
    rate: float,
    *,
    start: float | None = None,
    late: float = 0.0,
) -> Iterator[Any]:
    """Yield the frame that is shown at each multiple of 1 / `rate` after a time.

    A frame may come early, by half its distance from the one before and by half of 1 / `rate`, so
    that of evenly spaced frames it is the nearest one.

    Args:
        frames: with their times in seconds, rising.
        rate: frames per second.
        start: seconds, the first one's time if left out.
        late: seconds for which the last frame is shown.
    """
    number, before = 0, None
    for time, frame in frames:
        if before is None:
            start = time if start is None else start
        else:
            begin = time - min(time - before[0], 1 / rate) / 2 - 1e-9
            while start + number / rate < begin:  # type: ignore[operator]
                yield before[1]
                number += 1
        before = (time, frame)
    while before is not None and start + number / rate <= before[0] + late + 1e-9:  # type: ignore[operator]
        yield before[1]
        number += 1
