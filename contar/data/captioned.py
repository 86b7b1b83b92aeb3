"""A folder of captioned files: videos and pictures, each beside a text of its own."""

from pathlib import Path
from typing import NamedTuple

from contar._errors import bad

VIDEOS, PICTURES = (".mp4",), (".png", ".jpg", ".jpeg")


class CaptionedFile(NamedTuple):
    """A video or a picture, and what it shows."""

    path: Path
    caption: str

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its suffix."""
        return self.path.suffix.lower() in VIDEOS


def captioned_files(folder: Path | str) -> list[CaptionedFile]:
    """Return the .mp4, .png and .jpg files of a folder, by name, with the .txt files beside them.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a folder without such files, or a file whose text is missing, empty or not
            UTF-8 (it is named).
    """
    place = Path(folder)
    if not place.is_dir():
        raise FileNotFoundError(f"folder: no folder {str(place)!r}")
    known = VIDEOS + PICTURES
    files = sorted(file for file in place.iterdir() if file.suffix.lower() in known)
    if not files:
        raise bad("folder", str(place), "one with files of " + ", ".join(known))
    return [CaptionedFile(file, _caption(file)) for file in files]


def _caption(file: Path) -> str:
    text = file.with_suffix(".txt")
    try:
        caption = " ".join(text.read_text(encoding="utf-8-sig").split())
    except FileNotFoundError:
        raise bad("folder", f"{file.name} without a {text.name}", "a text beside each") from None
    except UnicodeDecodeError as error:
        raise bad("folder", str(text), "a text in UTF-8") from error
    if not caption:
        raise bad("folder", f"an empty {text.name}", "what the clip shows, in words")
    return caption
