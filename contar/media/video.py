"""Videos: read into uint8 tensors, and written whole or not at all.

Decoding and H.264 need the extra `contar[video]` (PyAV); pictures and animations need Pillow only.
"""

import os
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import GifImagePlugin, Image

from contar._errors import bad, check_count, check_number, check_shape
from contar._typing import Tensor, UInt8

# FFmpeg would also read a text as an animation of its letters, and follow playlists elsewhere.
_CONTAINERS = "mov,matroska,avi,gif,mpegts,mpeg,flv,ogg,yuv4mpegpipe"
# swscale's bilinear | full chroma | accurate rounding: its fast path is 1.5 levels off in green.
_ACCURATE = 0x2 | 0x2000 | 0x40000
_BT709 = 1  # the code of H.264 for primaries, transfer and matrix alike


def _av():
    try:
        import av
        import av.error
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


def check_frames(frames: Tensor | np.ndarray) -> np.ndarray:
    """Return frames as an array [t, h, w, 3].

    Raises:
        ValueError: they are no uint8 of that shape, or an axis is empty.
    """
    if not isinstance(frames, Tensor | np.ndarray):
        raise bad("frames", type(frames).__name__, "a uint8 tensor or array [t, h, w, 3]")
    if str(frames.dtype).removeprefix("torch.") != "uint8":
        raise bad("frames", str(frames.dtype), "uint8")
    check_shape("frames", frames.shape, (None, None, None, 3), "[t, h, w, 3]")
    if 0 in frames.shape:
        raise bad("frames", tuple(frames.shape), "shape [t, h, w, 3], t, h and w at least 1")
    return frames.detach().cpu().numpy() if isinstance(frames, Tensor) else frames


class _Decoded(NamedTuple):
    """Frames that were kept, how many were decoded in all, and frames per second."""

    pictures: Sequence[np.ndarray]
    total: int
    rate: float


def _decode(
    file: Path, name: str, *, start: int, stop: int | None, last: Callable[[float], int] | None
) -> _Decoded:
    """Decode the frames [start, stop), or the last ones, as many as `last` says for the rate."""
    av = _av()
    covers = av.stream.Disposition.attached_pic
    options = {"format_whitelist": _CONTAINERS}
    pictures: deque[np.ndarray] = deque()
    count = 0
    try:
        with (
            file.open("rb") as content,
            av.open(content, mode="r", options=options, metadata_errors="ignore") as container,
        ):
            streams = [s for s in container.streams.video if not s.disposition & covers]
            if not streams:
                raise bad(name, str(file), "a file with a video stream")
            stream = streams[0]
            stream.thread_type = "AUTO"  # type: ignore[assignment]
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            if last is not None and rate:
                pictures = deque(maxlen=last(rate))
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise bad(name, str(file), "a whole video file; this one is damaged")
                for frame in packet.decode():
                    count += 1
                    if count > start:
                        pictures.append(frame.to_ndarray(format="rgb24", interpolation=_ACCURATE))
                    if count == stop:
                        return _Decoded(pictures, count, rate)
    except (av.error.FFmpegError, OSError) as error:
        raise bad(name, str(file), "a video file that can be decoded") from error
    if not count or not rate:
        raise bad(name, str(file), "a video file with frames and a frame rate")
    return _Decoded(pictures, count, rate)


def _stack(decoded: _Decoded, name: str, file: Path) -> UInt8[Tensor, "t h w 3"]:
    if len({picture.shape for picture in decoded.pictures}) > 1:
        raise bad(name, str(file), "a video file whose frames have one size")
    return torch.from_numpy(np.stack(decoded.pictures))


def read_video(
    path: str | os.PathLike[str],
    *,
    frames: int | None = None,
    start: int = 0,
    name: str = "path",
) -> tuple[UInt8[Tensor, "t h w 3"], float]:
    """Return a video's frames as uint8 RGB [t, h, w, 3], and its mean frames per second.

    The rate is the one that the file states or, as for a GIF, FFmpeg's estimate. Every frame from
    the first on is decoded, hence `start` is exact. A rotation asked of players is not applied.

    Args:
        path: of an mp4, mov, mkv, webm, avi, gif, mpeg, flv, ogg or y4m file.
        frames: how many to return, None for all.
        start: index of the first one to return.
        name: of the path, for errors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no video, holds sound only, or is damaged; or it has fewer than
            `start + frames` frames.
        ImportError: av is not installed.
    """
    start = check_count("start", start, 0)
    stop = None if frames is None else start + check_count("frames", frames)
    file = file_at(path, name)
    decoded = _decode(file, name, start=start, stop=stop, last=None)
    count = decoded.total
    if count <= start:
        raise bad("start", start, f"0 to {count - 1}: the file has {count} frames")
    if stop is not None and count < stop:
        raise bad("frames", frames, f"1 to {count - start}: the file has {count} frames")
    return _stack(decoded, name, file), decoded.rate


def read_tail(
    path: str | os.PathLike[str], frames: int, *, fps: float, name: str = "path"
) -> UInt8[Tensor, "t h w 3"]:
    """Return the last frames of a video, so far apart that they play at `fps`; hold no others.

    A video of a lower rate is taken frame by frame.

    Args:
        path: as in `read_video`.
        frames: how many to return.
        fps: frames per second, above 0.
        name: of the path, for errors.

    Raises:
        FileNotFoundError, ImportError: as `read_video`.
        ValueError: as `read_video`, or a video that is too short.
    """
    check_count("frames", frames)
    check_number("fps", fps, 0.01)

    def places(rate: float) -> list[int]:  # counted from the last frame
        return [round(i * max(rate / fps, 1.0)) for i in range(frames)][::-1]

    file = file_at(path, name)
    decoded = _decode(file, name, start=0, stop=None, last=lambda rate: places(rate)[0] + 1)
    needed = places(decoded.rate)[0] + 1
    if decoded.total < needed:
        raise bad(
            name, f"{decoded.total} frames", f"at least {needed}, of which {frames} are taken"
        )
    kept = [decoded.pictures[-1 - place] for place in places(decoded.rate)]
    return _stack(decoded._replace(pictures=kept), name, file)


def _write_mp4(frames: np.ndarray, path: Path, fps: float) -> None:
    av = _av()
    colors = av.video.reformatter
    height, width = frames.shape[1:3]
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        # 29.97 stays 2997/100, and 30000/1001 stays itself.
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate, options={"crf": "17"})
        stream.width, stream.height = width, height
        # Chroma at half the size needs even sides.
        stream.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"
        stream.color_range = colors.ColorRange.MPEG
        stream.colorspace = stream.color_primaries = stream.color_trc = _BT709
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(
                format=stream.pix_fmt,
                dst_colorspace=colors.Colorspace.ITU709,
                dst_color_range=colors.ColorRange.MPEG,
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _write_gif(frames: np.ndarray, path: Path, fps: float) -> None:
    # Image.save would join equal neighbours into one picture; block by block, none is lost.
    ends = [round(100 * end / fps) for end in range(len(frames) + 1)]  # in 1/100 s, GIF's unit
    pictures = [Image.fromarray(np.ascontiguousarray(pixels)).quantize() for pixels in frames]
    with path.open("wb") as file:
        file.writelines(GifImagePlugin.getheader(pictures[0], info={"loop": 0})[0])
        for picture, begin, end in zip(pictures, ends[:-1], ends[1:], strict=True):
            milliseconds = 10 * (end - begin)
            file.writelines(
                GifImagePlugin.getdata(picture, duration=milliseconds, include_color_table=True)
            )
        file.write(b";")


def _write_png(frames: np.ndarray, path: Path, fps: float) -> None:
    Image.fromarray(np.ascontiguousarray(frames[0])).save(path, format="PNG")


_WRITERS = {".mp4": _write_mp4, ".gif": _write_gif, ".png": _write_png}


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Yield a new file in the folder of `path`, which is gone afterwards unless moved."""
    temporary = path.absolute().with_name(f".{uuid.uuid4().hex}{path.suffix}")
    temporary.touch(exist_ok=False)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def check_output(
    path: str | os.PathLike[str],
    *,
    fps: float | None = None,
    frames: int | None = None,
    name: str = "path",
) -> None:
    """Raise unless `write_video` could write to `path`, before the work for it is done.

    Args:
        path: of the file.
        fps: frames per second that it is to have, if known.
        frames: that it is to have, if known.
        name: of the path, for errors.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: the suffix is not one of .mp4, .gif and .png; the path is a folder; no file
            can be made in its folder; a rate outside the file's range; several frames for a .png.
        ImportError: an .mp4 is asked for and av is not installed.
    """
    file = path_of(path, name)
    suffix = file.suffix.lower()
    if suffix not in _WRITERS:
        raise bad(name, str(file), "a suffix of " + ", ".join(_WRITERS))
    if file.is_dir():
        raise bad(name, str(file), "a file, not a folder")
    if not file.parent.exists():
        raise FileNotFoundError(f"{name}: no folder {str(file.parent)!r}")
    if suffix == ".mp4":
        _av()
    if fps is not None:
        check_number("fps", fps, 0.01, 50 if suffix == ".gif" else 1000)
    if frames is not None and suffix == ".png" and frames != 1:
        raise bad("frames", f"{frames} frames", "1 frame for a .png")
    try:
        with _beside(file):
            pass
    except OSError as error:
        raise bad(name, str(file), "a file in a folder that can be written to") from error


def write_video(
    frames: UInt8[Tensor | np.ndarray, "t h w 3"],
    path: str | os.PathLike[str],
    *,
    fps: float = 12.0,
) -> Path:
    """Write frames to a video, an animation or a picture, by the path's suffix; return the path.

    The file appears whole, in the place of one that was there, or not at all.

    .mp4 is H.264 (x264 at crf 17, BT.709, limited range): 4:2:0, or 4:4:4, which some browsers do
    not play, where height or width is odd. .gif has a palette of 256 colours for each frame and
    repeats for ever. .png is exact and holds one frame.

    Args:
        frames: RGB, uint8 [t, h, w, 3].
        path: ends in .mp4, .gif or .png.
        fps: frames per second, from 0.01 to 1000; to 50 for .gif, whose pictures then last whole
            hundredths of a second that add up. An .mp4 holds it as a fraction over at most 1001.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: other frames, a path that `check_output` refuses, a frame rate outside the
            range, or several frames for one .png.
        ImportError: an .mp4 is asked for and av is not installed.
    """
    pixels = check_frames(frames)
    check_number("fps", fps, 0.01, 1000)
    check_output(path, fps=fps, frames=len(pixels))
    file = path_of(path)
    with _beside(file) as temporary:
        _WRITERS[file.suffix.lower()](pixels, temporary, float(fps))
        os.replace(temporary, file)
    return file
