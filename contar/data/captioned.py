"""A folder of captioned files: videos and pictures, each beside a text of its own."""

import logging
import os
import stat
from pathlib import Path
from typing import NamedTuple

from contar._errors import bad

VIDEOS = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".mpg", ".mpeg", ".ts", ".m2ts",
    ".mts", ".flv", ".ogv", ".ogg", ".3gp", ".y4m",
)  # fmt: skip
"""Suffixes of videos."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Suffixes of pictures."""
LONGEST = 1 << 16  # bytes of a caption


class CaptionedFile(NamedTuple):
    """A video or a picture, and what it shows."""

    path: Path
    caption: str

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its suffix."""
        return self.path.suffix.lower() in VIDEOS


def captioned_files(folder: Path | str) -> list[CaptionedFile]:
    """Return the videos and pictures of a folder, by name, with the .txt files beside them.

    Which they are the suffix says, one of `VIDEOS` and `PICTURES`. Files whose names begin with a
    dot are skipped; what else is left out is logged as a warning.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a folder without such files, or a file whose text is missing, empty, of more
            than 64 KiB, not UTF-8, or no regular file (it is named).
    """
    place = Path(folder)
    if not place.is_dir():
        raise FileNotFoundError(f"folder: no folder {str(place)!r}")
    names = sorted(name for name in os.listdir(place) if not name.startswith("."))
    known = VIDEOS + PICTURES
    taken = [name for name in names if os.path.splitext(name)[1].lower() in known]
    if not taken:
        raise bad("folder", str(place), "one with files of " + ", ".join(known))
    files = [CaptionedFile(place / name, _caption(place, name)) for name in taken]
    used = {*taken, *(file.path.with_suffix(".txt").name for file in files)}
    if left := [repr(name) for name in names if name not in used]:
        logging.getLogger("contar").warning(
            "left out %d of %s, neither videos and pictures that are read nor texts beside one: %s",
            len(left), place, ", ".join([*left[:20], *(["..."] if len(left) > 20 else [])]),
        )  # fmt: skip
    return files


def _caption(folder: Path, name: str) -> str:
    text = (folder / name).with_suffix(".txt")
    try:
        return read_caption(text)
    except FileNotFoundError:
        raise bad("folder", f"{name} without a {text.name}", "a text beside each") from None


def read_caption(text: Path) -> str:
    """Return the caption in a file, its words one space apart.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an empty file, one of more than 64 KiB, not UTF-8, or no regular one.
    """
    if not stat.S_ISREG(text.stat().st_mode):  # opening a pipe would wait
        raise bad("folder", f"{text}, which is no regular file", "a text beside each clip")
    with text.open("rb") as stream:
        content = stream.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise bad("folder", f"{text} of more than {LONGEST} bytes", "what the clip shows, in words")
    try:
        caption = " ".join(content.decode("utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise bad("folder", str(text), "a text in UTF-8") from error
    if not caption:
        raise bad("folder", f"an empty {text.name}", "what the clip shows, in words")
    return caption
