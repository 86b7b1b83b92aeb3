"""A file to its shots: what it is, and where it is cut."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from contar._errors import bad, check_number
from contar.data import read_caption
from contar.media import Video, open_video, read_image
from contar.preparation.sources import is_video
from contar.preparation.step import Document, Step

_LOOK = 256  # pixels of the longer side of a frame in which cuts are looked for


class Probe(Step):
    """Says what a file is: kind, size as it is shown, frames, seconds, rate; and its caption.

    The caption is the one that is known, else that of a .txt beside the file, else None. A picture
    is read here, and carried along as the one still that it is.

    Raises:
        ValueError: a file that is broken, or a caption that is no text.
        FileNotFoundError: no such file.
    """

    name = "probe"
    adds = ("kind", "start", "frames", "seconds", "fps", "width", "height", "caption")

    def run(
        self, data: Iterable[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield each file as one shot."""
        for document in data:
            with self.track_time("file"):
                self.score(document.metadata)
                document.metadata |= {"name": document.id, "shot": 0, "start": 0}
                document.text = document.metadata["caption"] or ""
            yield document

    def score(self, shot: dict[str, Any]) -> None:
        """Look at a file."""
        path = Path(shot["path"])
        if shot.get("caption") is None:
            text = path.with_suffix(".txt")
            shot["caption"] = read_caption(text) if text.exists() else None
        if is_video(path.name):
            video = open_video(path, "file")
            with closing(video.frames()) as frames:
                height, width = video.picture(next(frames)[1]).shape[:2]
            count, rate = video.count, video.rate
            shot |= {"kind": "video", "frames": count, "seconds": count / rate, "fps": rate}
        else:
            picture = read_image(path, name="file").numpy()
            height, width = picture.shape[:2]
            shot |= {"kind": "picture", "frames": 1, "seconds": None, "fps": None}
            shot["stills"] = [picture]
        shot |= {"width": width, "height": height}


class Shots(Step):
    """Cuts videos at their cuts, as scenedetect's ContentDetector finds them.

    Every frame is decoded, so frames are counted anew, and a file that is damaged is found.

    Args:
        threshold: of the detector, the mean change of hue, saturation and brightness from one frame
            to the next, from 0 to 255; None cuts nowhere.
        shortest: seconds of a shot, at least.

    Raises:
        ImportError: scenedetect is not installed.
        ValueError: a number outside its range; a damaged file.
    """

    name = "shots"
    adds = ("shot", "start", "frames", "seconds")

    def __init__(self, threshold: float | None = 27.0, shortest: float = 0.5) -> None:
        super().__init__()
        if threshold is not None:
            threshold = check_number("threshold", threshold, 0, 255)
        self.threshold = threshold
        self.shortest = check_number("shortest", shortest, 0)

    def run(
        self, data: Iterable[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield the shots of each file, in order."""
        for document in data:
            if document.metadata["kind"] == "picture":
                yield document
                continue
            with self.track_time("file"):
                video = open_video(document.metadata["path"], "file")
                bounds = self.bounds(video)
            for number, (start, stop) in enumerate(bounds):
                of_shot = {
                    "shot": number,
                    "start": start,
                    "frames": stop - start,
                    "seconds": (stop - start) / video.rate,
                }
                metadata = {**document.metadata, **of_shot}
                yield Document(document.text, document.id, metadata=metadata)

    def bounds(self, video: Video) -> list[tuple[int, int]]:
        """Return the first frame of each shot and the one behind its last."""
        find = None if self.threshold is None else self._finder(self.threshold, video.rate)
        cuts, count = [0], 0
        for _, frame in video.frames():
            if find is not None:
                cuts += find(count, frame)
            count += 1
        if not count:
            raise bad("file", str(video.file), "a video with frames")
        cuts = sorted({cut for cut in cuts if cut < count})
        return list(zip(cuts, [*cuts[1:], count], strict=True))

    def _finder(self, threshold: float, rate: float) -> Any:
        """Return what finds the cuts up to a frame, given its number and pixels."""
        try:
            from scenedetect import ContentDetector, FrameTimecode
        except ImportError as error:
            got = 'scenedetect is not installed (pip install "contar[scale]")'
            raise ImportError(got) from error
        shortest = max(1, round(self.shortest * rate))
        detector = ContentDetector(threshold=threshold, min_scene_len=shortest)

        def find(number: int, frame: Any) -> list[int]:
            share = min(1.0, _LOOK / max(frame.width, frame.height))
            size = {n: max(1, round(share * getattr(frame, n))) for n in ("width", "height")}
            small = frame.to_ndarray(format="bgr24", interpolation="AREA", threads=1, **size)
            found = detector.process_frame(FrameTimecode(number, rate), small)
            return [int(cut.frame_num) for cut in found]

        return find
