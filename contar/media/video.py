"""Videos: read into uint8 tensors, and written whole, or frame by frame as they come.

Decoding and H.264 need the extra `contar[video]` (PyAV); pictures and animations need Pillow only.
"""

import os
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import GifImagePlugin, Image

from contar._errors import bad, check_count, check_number, check_shape, check_size
from contar._typing import Tensor, UInt8
from contar.media.decoding import _at_rate, load_av, open_video, path_of
from contar.media.live import until_stopped

_BT709 = 1  # the code of H.264 for primaries, transfer and matrix alike
# With AVX-512, x264 165 reads memory that it has not written: the same frames give other bytes.
_NO_AVX512 = {"x264-params": "asm=MMX2,SSE2,SSSE3,SSE4.2,LZCNT,AVX,FMA3,BMI1,BMI2,AVX2"}


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


def _one_by_one(pieces: Iterable[Any]) -> Iterator[np.ndarray]:
    """Yield frames [h, w, 3] of pieces, each a frame or several; ValueError if one does not fit."""
    size = None
    for piece in pieces:
        alone = isinstance(piece, Tensor | np.ndarray) and piece.ndim == 3
        pixels = check_frames(piece[None] if alone else piece)
        size = pixels.shape[1:] if size is None else size
        if pixels.shape[1:] != size:
            raise bad("frames", f"one of {pixels.shape[1:]}", f"{size}, as the first")
        yield from pixels


def _stack(pictures: Iterable[np.ndarray]) -> UInt8[Tensor, "t h w 3"]:
    return torch.from_numpy(np.stack([*pictures]))


def read_video(
    path: str | os.PathLike[str],
    *,
    frames: int | None = None,
    start: int = 0,
    name: str = "path",
) -> tuple[UInt8[Tensor, "t h w 3"], float]:
    """Return a video's frames as uint8 RGB [t, h, w, 3], and its mean frames per second.

    Frames come as a player shows them: turned as the file says, and with square pixels, for which
    the shorter side of wide or high ones grows. The rate is the one that the file states, if its
    time stamps agree with it, else theirs. Every frame from the first on is decoded, hence `start`
    is exact.

    Args:
        path: of an mp4, mov, mkv, webm, avi, gif, mpeg, flv, ogg or y4m file.
        frames: how many to return, None for all.
        start: index of the first one to return.
        name: of the path, for errors.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no video, holds sound only, is damaged or cut off (as far as its
            format tells: .mpg and .ts do not), is turned by other angles than quarters; or it has
            fewer than `start + frames` frames.
        ImportError: av is not installed.
    """
    start = check_count("start", start, 0)
    stop = None if frames is None else start + check_count("frames", frames)
    video = open_video(path, name)
    pictures, count = [], 0
    for _, frame in islice(video.frames(), stop):
        count += 1
        if count > start:
            pictures.append(video.picture(frame))
    if count <= start:
        raise bad("start", start, f"0 to {count - 1}: the file has {count} frames")
    if stop is not None and count < stop:
        raise bad("frames", frames, f"1 to {count - start}: the file has {count} frames")
    return _stack(pictures), video.rate


def read_tail(
    path: str | os.PathLike[str], frames: int, *, fps: float, name: str = "path"
) -> UInt8[Tensor, "t h w 3"]:
    """Return the last frames of a video, chosen by their times to play at `fps`; hold few others.

    A video of a lower mean rate gives frames at that.

    Args:
        path: as in `read_video`.
        frames: how many to return.
        fps: frames per second, above 0.
        name: of the path, for errors.

    Raises:
        FileNotFoundError, ImportError: as `read_video`.
        ValueError: as `read_video`, or a video that is too short.
    """
    frames, fps = check_count("frames", frames), check_number("fps", fps, 0.01)
    video = open_video(path, name)
    rate = min(fps, video.rate)
    span = (frames - 1) / rate
    kept: deque[tuple[float, Any]] = deque()
    count = 0
    for time, frame in video.frames():
        kept.append((time, frame))
        count += 1
        while len(kept) > 1 and kept[1][0] <= time - span:
            kept.popleft()
    start = kept[-1][0] - span
    if kept[0][0] > start + video.rounding:
        needed = round(span * video.rate) + 1
        raise bad(name, f"{count} frames", f"at least {needed}, of which {frames} are taken")
    chosen = islice(_at_rate(kept, rate, start=start), frames)
    return _stack(video.picture(frame) for frame in chosen)


def _write_mp4(frames: Iterator[np.ndarray], path: Path, fps: float, threads: int | None) -> None:
    av = load_av()
    colors = av.video.reformatter
    first = next(frames)
    height, width = first.shape[:2]
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        # 29.97 stays 2997/100, and 30000/1001 stays itself.
        rate = Fraction(fps).limit_denominator(1001)
        with_avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
        options = {"crf": "17", **(_NO_AVX512 if with_avx512 else {})}
        stream = container.add_stream("libx264", rate=rate, options=options)
        if threads is not None:
            stream.thread_count = threads
        stream.width, stream.height = width, height
        # Chroma at half the size needs even sides.
        stream.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"
        stream.color_range = colors.ColorRange.MPEG
        stream.colorspace = stream.color_primaries = stream.color_trc = _BT709
        for pixels in chain([first], frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(
                format=stream.pix_fmt,
                dst_colorspace=colors.Colorspace.ITU709,
                dst_color_range=colors.ColorRange.MPEG,
                threads=1,
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _write_gif(frames: Iterator[np.ndarray], path: Path, fps: float, threads: int | None) -> None:
    # Image.save would join equal neighbours into one picture; block by block, none is lost.
    pictures = (Image.fromarray(np.ascontiguousarray(pixels)).quantize() for pixels in frames)
    first = next(pictures)
    with path.open("wb") as file:
        file.writelines(GifImagePlugin.getheader(first, info={"loop": 0})[0])
        for number, picture in enumerate(chain([first], pictures)):
            begin, end = (round(100 * n / fps) for n in (number, number + 1))  # in GIF's 1/100 s
            milliseconds = 10 * (end - begin)
            file.writelines(
                GifImagePlugin.getdata(picture, duration=milliseconds, include_color_table=True)
            )
        file.write(b";")


def _write_png(frames: Iterator[np.ndarray], path: Path, fps: float, threads: int | None) -> None:
    picture = Image.fromarray(np.ascontiguousarray(next(frames)))
    if next(frames, None) is not None:
        raise bad("frames", "several frames", "1 frame for a .png")
    picture.save(path, format="PNG")


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
        load_av()
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
    frames: UInt8[Tensor | np.ndarray, "t h w 3"] | Iterable[Any],
    path: str | os.PathLike[str],
    *,
    fps: float = 12.0,
    threads: int | None = None,
) -> Path:
    """Write frames to a video, an animation or a picture, by the path's suffix; return the path.

    Of an array the file appears whole, in the place of one that was there, or not at all. Frames
    may also come one by one, or in pieces, and are encoded as they do. If what they come from
    fails or is stopped, by Ctrl-C as well, the file holds those before, and the error goes on;
    before the first one, all is as it was.

    .mp4 is H.264 (x264 at crf 17, BT.709, limited range): 4:2:0, or 4:4:4, which some browsers do
    not play, where height or width is odd. .gif has a palette of 256 colours for each frame and
    repeats for ever. .png is exact and holds one frame.

    Args:
        frames: RGB, uint8 [t, h, w, 3]; or an iterable of such and of frames [h, w, 3], as
            `NovaPipeline.stream` is.
        path: ends in .mp4, .gif or .png.
        fps: frames per second, from 0.01 to 1000; to 50 for .gif, whose pictures then last whole
            hundredths of a second that add up. An .mp4 holds it as a fraction over at most 1001.
        threads: of x264, whose bytes depend on their number; by that of the CPU's cores if left
            out.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: other frames, a path that `check_output` refuses, a frame rate outside the
            range, or several frames for one .png.
        ImportError: an .mp4 is asked for and av is not installed.
    """
    live = isinstance(frames, Iterable) and not isinstance(frames, Tensor | np.ndarray)
    pixels = None if live else check_frames(frames)  # type: ignore[arg-type]
    check_number("fps", fps, 0.01, 1000)
    if threads is not None:
        check_size("threads", threads, maximum=128)
    check_output(path, fps=fps, frames=None if pixels is None else len(pixels))
    file = path_of(path)
    coming = until_stopped(_one_by_one(frames)) if pixels is None else nullcontext(iter(pixels))
    with _beside(file) as temporary, coming as shown:
        _WRITERS[file.suffix.lower()](shown, temporary, float(fps), threads)
        os.replace(temporary, file)
    return file
