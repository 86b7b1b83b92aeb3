"""Frames written as they come: to the end, or to where their coming is stopped."""

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contar.media import read_video, write_video


def noise(frames: int, height: int = 8, width: int = 6) -> np.ndarray:
    draws = np.random.default_rng(0)
    return draws.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


FRAMES = noise(5)


def stopped(after: int, error: BaseException | None, stop: Any = None) -> Iterator[np.ndarray]:
    yield from FRAMES[:after]
    if stop is not None:
        stop()
    if error is not None:
        raise error
    yield from FRAMES[after:]


def names(folder: Any) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
@pytest.mark.parametrize(
    "frames",
    [
        lambda: iter(FRAMES),
        lambda: list(FRAMES),
        lambda: (piece for piece in (FRAMES[:1], FRAMES[1], FRAMES[2:])),
    ],
    ids=["frames", "list", "pieces"],
)
def test_frames_and_pieces_make_the_same_file_as_the_array(tmp_path, suffix, frames):
    whole = write_video(FRAMES, tmp_path / f"whole{suffix}", fps=24)
    assert write_video(frames(), tmp_path / f"live{suffix}", fps=24).read_bytes() == (
        whole.read_bytes()
    )


def test_a_frame_that_comes_alone_makes_a_picture_and_two_are_refused(tmp_path, refuses):
    path = write_video(iter(FRAMES[:1]), tmp_path / "a.png")
    assert (np.asarray(Image.open(path)) == FRAMES[0]).all()
    before = path.read_bytes()
    with refuses("frames", "several frames"):
        write_video(iter(FRAMES), path)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["a.png"]


def test_a_frame_is_encoded_before_the_next_one_is_asked_for(tmp_path):
    sizes = []

    def frames() -> Iterator[np.ndarray]:
        for frame in noise(3, 128, 128):
            yield frame
            (part,) = tmp_path.iterdir()
            sizes.append(part.stat().st_size)

    write_video(frames(), tmp_path / "a.gif")
    assert 0 < sizes[0] < sizes[1] < sizes[2]


ERRORS = [RuntimeError("no memory"), KeyboardInterrupt(), SystemExit(143)]


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("after", [1, 3])
def test_what_stops_the_frames_goes_on_and_leaves_those_before_in_a_whole_file(
    tmp_path, suffix, error, after
):
    path, expected = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    path.write_text("before")
    with pytest.raises(type(error)) as caught:
        write_video(stopped(after, error), path)
    assert caught.value is error
    assert names(tmp_path) == [path.name]
    assert len(read_video(path)[0]) == after
    assert path.read_bytes() == write_video(FRAMES[:after], expected).read_bytes()


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".png"])
@pytest.mark.parametrize("error", [*ERRORS, None], ids=lambda error: type(error).__name__)
def test_before_the_first_frame_all_is_as_it_was(tmp_path, suffix, error, refuses):
    path = tmp_path / f"a{suffix}"
    path.write_text("before")
    if error is None:
        with refuses("frames", "no frame"):
            write_video(iter([]), path)
    else:
        with pytest.raises(type(error)):
            write_video(stopped(0, error), path)
    assert names(tmp_path) == [path.name]
    assert path.read_text() == "before"


def test_a_frame_that_does_not_fit_leaves_those_before(tmp_path, refuses):
    path = tmp_path / "a.mp4"
    for wrong, words in (
        (noise(1, 8, 8)[0], "as the first"), (FRAMES[0] / 255.0, "float64"),
        (FRAMES[0, 0], "(6, 3)"), (None, "NoneType"), ("frame", "str"),
    ):  # fmt: skip
        with refuses("frames", words):
            write_video([FRAMES[0], FRAMES[1], wrong], path)
        assert len(read_video(path)[0]) == 2
        path.unlink()
        with refuses("frames"):
            write_video([FRAMES[:0]], path)
        assert not names(tmp_path)


def test_paths_and_rates_are_refused_before_a_frame_is_asked_for(tmp_path, refuses):
    asked: list[int] = []
    frames = (asked.append(0) or frame for frame in FRAMES)
    with refuses("path", ".mp4"):
        write_video(frames, tmp_path / "a.avi")
    with refuses("fps", "60"):
        write_video(frames, tmp_path / "a.gif", fps=60)
    with pytest.raises(FileNotFoundError):
        write_video(frames, tmp_path / "none" / "a.gif")
    assert not asked


def test_a_disk_that_fills_leaves_the_file_that_was_there(tmp_path, largest_file):
    path = tmp_path / "a.gif"
    path.write_text("before")
    with largest_file(10_000), pytest.raises(OSError, match="large"):
        write_video(iter(noise(20, 64, 64)), path)
    assert names(tmp_path) == ["a.gif"]
    assert path.read_text() == "before"


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["between frames", "while one is encoded"])
def test_a_signal_stops_between_frames_and_never_within_one(tmp_path, monkeypatch, kind, where):
    import av

    usual = signal.signal(kind, signal.default_int_handler)
    kill = lambda: os.kill(os.getpid(), kind)  # noqa: E731
    if where == "while one is encoded":
        made, stop = [], None
        original = av.VideoFrame.from_ndarray

        def from_ndarray(*args: Any, **options: Any) -> Any:
            made.append(0)
            if len(made) == 3:
                kill()
            return original(*args, **options)

        fake = type("VideoFrame", (), {"from_ndarray": staticmethod(from_ndarray)})
        monkeypatch.setattr(av, "VideoFrame", fake)
    else:
        stop = kill
    try:
        with pytest.raises(KeyboardInterrupt):
            write_video(stopped(3, None, stop), tmp_path / "a.mp4")
        assert signal.getsignal(kind) is signal.default_int_handler
    finally:
        signal.signal(kind, usual)
    monkeypatch.undo()
    assert names(tmp_path) == ["a.mp4"]
    assert len(read_video(tmp_path / "a.mp4")[0]) == 3


def test_a_video_is_written_by_another_thread(tmp_path):
    job = threading.Thread(target=write_video, args=(iter(FRAMES), tmp_path / "a.mp4"))
    job.start()
    job.join()
    assert len(read_video(tmp_path / "a.mp4")[0]) == 5
