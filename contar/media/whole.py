"""Whether a video file is all there, by the sizes that its own parts state.

A demuxer that meets the end of a file early calls it the end of the video. The end of a program
stream (.mpg), or of a transport stream between two packets (.ts), says nothing of what came after.
"""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_BOXES = (b"ftyp", b"moov", b"mdat", b"moof", b"styp", b"sidx", b"wide", b"free", b"skip", b"pnot")
_HELD = (b"moov", b"mdat", b"moof")  # without which a box at the end is no loss
_SEGMENT = 0x18538067


def is_cut(file: Path) -> bool | None:
    """Return whether a video file ends before it should; None if it begins as no known one does.

    Raises:
        OSError: it cannot be read.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(200)
        stream.seek(0)
        for begins, ends_early in _KINDS:
            if begins(head):
                return ends_early(stream, size)
    return None


def _mp4(stream: BinaryIO, size: int) -> bool:
    place, kinds = 0, set()
    while place + 8 <= size:
        stream.seek(place)
        head = stream.read(16)
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        kinds.add(kind)
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0 reaches to the end; others are no box
            return False
        place += length
        if place > size:
            return kind in _HELD
    return b"moov" in kinds and not kinds & {b"mdat", b"moof"}


def _number(stream: BinaryIO, keep_marker: bool) -> int | None:
    """Return an integer of Matroska's variable length; None for "unknown" or the file's end."""
    first = stream.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    rest = stream.read(length - 1)
    value = int.from_bytes(first + rest, "big")
    unknown = (1 << 7 * length) - 1
    value = value if keep_marker else value & unknown
    return None if value == unknown or len(rest) < length - 1 else value


def _matroska(stream: BinaryIO, size: int) -> bool:
    place = 0
    while place < size:
        stream.seek(place)
        kind, length = _number(stream, True), _number(stream, False)
        if kind is None:
            return False
        place = stream.tell() + (length or 0)  # one of unknown length is entered
        if kind == _SEGMENT and length is not None:
            break
    return place > size


def _riff(stream: BinaryIO, size: int) -> bool:
    place = 0
    while place + 8 <= size:
        stream.seek(place)
        kind, length = stream.read(4), int.from_bytes(stream.read(4), "little")
        if kind != b"RIFF" or length in (0, 2**32 - 1):
            return False
        place += 8 + length
    return place > size


def _flv(stream: BinaryIO, size: int) -> bool:
    stream.seek(5)
    place = int.from_bytes(stream.read(4), "big") + 4
    while place + 4 < size:
        stream.seek(place)
        length = int.from_bytes(stream.read(4)[1:], "big")
        place += 11 + length + 4  # a header, the content, how long both were
    return place - 4 > size


def _ogg(stream: BinaryIO, size: int) -> bool:
    stream.seek(max(0, size - (1 << 17)))  # a page has at most 65,307 bytes
    content = stream.read()
    last = content.rfind(b"OggS")
    page = content[last:]
    ends = len(page) > 27 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
    return last >= 0 and not (ends and page[5] & 4)  # the flag of a stream's last page


def _gif(stream: BinaryIO, size: int) -> bool:
    stream.seek(max(0, size - 64))
    return not stream.read().rstrip(b"\0").endswith(b";")


def _never(stream: BinaryIO, size: int) -> bool:
    return False


_KINDS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO, int], bool]], ...] = (
    (lambda head: head[4:8] in _BOXES, _mp4),
    (lambda head: head.startswith(b"\x1a\x45\xdf\xa3"), _matroska),
    (lambda head: head.startswith(b"RIFF") and head[8:12] == b"AVI ", _riff),
    (lambda head: head.startswith(b"FLV"), _flv),
    (lambda head: head.startswith(b"OggS"), _ogg),
    (lambda head: head.startswith((b"GIF87a", b"GIF89a")), _gif),
    (lambda head: head[:1] == head[188:189] == b"\x47", lambda stream, size: size % 188 != 0),
    (lambda head: head[4:5] == head[196:197] == b"\x47", lambda stream, size: size % 192 != 0),
    (lambda head: head.startswith((b"\0\0\1\xba", b"\0\0\1\xb3", b"YUV4MPEG2 ")), _never),
)
