"""The frames of shots that are looked at: few, and only those of one shot at a time."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from typing import Any

import numpy as np

from contar._errors import bad, check_count
from contar._typing import UInt8
from contar.media import open_video
from contar.preparation.step import Document, Step


class FrameReader:
    """Reads frames of a video by their numbers, forward only: each frame is decoded once."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._video = open_video(path, "file")
        self._frames = self._video.frames()
        self._next = 0

    def read(self, wanted: Collection[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
        """Yield the numbers and pixels of frames, rising, from where the last call ended on.

        Raises:
            ValueError: the file is damaged, or has fewer frames.
        """
        last = max(wanted, default=-1)
        while self._next <= last:
            came = next(self._frames, None)
            if came is None:
                got = f"{self.path} of {self._next} frames"
                raise bad("file", got, f"one with frame {last}, as when it was cut into shots")
            self._next += 1
            if self._next - 1 in wanted:
                yield self._next - 1, self._video.picture(came[1])

    def close(self) -> None:
        """Let go of the file."""
        self._frames.close()


def spread(count: int, of: int) -> list[int]:
    """Return `count` numbers from 0 to `of` - 1, in the middles of equal parts; all if no more."""
    count = min(count, of)
    return [(2 * k + 1) * of // (2 * count) for k in range(count)]


class Frames(Step):
    """Reads what later steps look at: stills of each shot, and pairs of neighbouring frames.

    Both are spread evenly over the shot. "stills" is a list of uint8 [h, w, 3], "pairs" one of
    uint8 [2, h, w, 3], made smaller; neither is a column. Shots come file by file, in order.

    Args:
        stills: of a shot.
        pairs: of a shot; 0 reads none.
        side: pixels that a pair's shorter side has at most.

    Raises:
        ValueError: a number outside its range; a damaged file.
    """

    name = "frames"

    def __init__(self, stills: int = 3, pairs: int = 8, side: int = 256) -> None:
        super().__init__()
        self.stills, self.side = check_count("stills", stills), check_count("side", side, 8)
        self.pairs = check_count("pairs", pairs, 0)

    def run(
        self, data: Iterable[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield each shot with its frames."""
        reader = None
        try:
            for document in data:
                shot = document.metadata
                if shot["kind"] == "video":
                    with self.track_time("shot"):
                        if reader is None or reader.path != shot["path"] or not shot["start"]:
                            if reader is not None:
                                reader.close()
                            reader = FrameReader(shot["path"])
                        self._look(shot, reader)
                yield document
                for name in ("stills", "pairs"):
                    shot.pop(name, None)
        finally:
            if reader is not None:
                reader.close()

    def _look(self, shot: dict[str, Any], reader: FrameReader) -> None:
        start, count = shot["start"], shot["frames"]
        stills = [start + number for number in spread(self.stills, count)]
        firsts = [start + number for number in spread(self.pairs, count - 1)] if self.pairs else []
        shot["stills"], shot["pairs"], before = [], [], {}
        for number, picture in reader.read({*stills, *firsts, *(n + 1 for n in firsts)}):
            if number in stills:
                shot["stills"].append(picture)
            if number - 1 in before:
                pair = (before.pop(number - 1), self._small(picture))
                shot["pairs"].append(np.stack(pair))
            if number in firsts:
                before[number] = self._small(picture)

    def _small(self, picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        height, width = picture.shape[:2]
        if min(height, width) <= self.side:
            return picture
        import cv2

        share = self.side / min(height, width)
        size = (round(share * width), round(share * height))
        return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def frames_between(path: str, start: int, count: int) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yield `count` frames of a video from `start` on."""
    with closing(FrameReader(path)) as reader:
        for _, picture in reader.read(range(start, start + count)):
            yield picture
