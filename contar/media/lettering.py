"""Words on pictures, in fonts that have their letters; one that none has stands as its code."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

# DejaVu has Latin, Cyrillic, Greek, Arabic, Hebrew and more; the others are where systems have
# fonts of many scripts.
_NAMES = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "NotoSansCJK-Regular.ttc", "wqy-microhei.ttc",
    "NotoSansDevanagari-Regular.ttf", "Arial Unicode.ttf", "PingFang.ttc", "msyh.ttc", "arial.ttf",
)  # fmt: skip
_NONE = "\uffff"  # no letter: what a font draws for it, it draws for all that it lacks

Font: TypeAlias = ImageFont.FreeTypeFont


@dataclass(frozen=True)
class Words:
    """A text in lines, each of pieces in one font, and the size that it takes in pixels."""

    lines: tuple[tuple[tuple[str, Font], ...], ...]
    step: int  # from line to line
    width: int

    @property
    def height(self) -> int:
        """Of all lines."""
        return self.step * len(self.lines)

    def draw(self, canvas: ImageDraw.ImageDraw, left: int, top: int) -> None:
        """Draw the text in black, its upper left corner at a place."""
        for number, line in enumerate(self.lines):
            x, y = float(left), top + number * self.step + 0.8 * self.step  # the line to stand on
            for piece, font in line:
                canvas.text((x, y), piece, fill="black", font=font, anchor="ls")
                x += font.getlength(piece)


def lay_out(text: str, size: int, width: int) -> Words:
    """Return a text in lines of at most `width` pixels, as far as its words allow.

    Args:
        text: in any script. White space separates words; a word that is too wide is broken.
        size: of the letters, in pixels.
        width: of a line, in pixels.
    """
    lines: list[tuple[tuple[str, Font], ...]] = []
    line = ""
    for word in _shown(text).split():
        longer = f"{line} {word}".strip()
        if line and _width(longer, size) > width:
            lines.append(tuple(_pieces(line, size)))
            longer = word
        while _width(longer, size) > width and len(longer) > 1:
            fits = next(n for n in range(len(longer) - 1, 0, -1) if n == 1
                        or _width(longer[:n], size) <= width)  # fmt: skip
            lines.append(tuple(_pieces(longer[:fits], size)))
            longer = longer[fits:]
        line = longer
    lines.append(tuple(_pieces(line, size)))
    wide = max(sum(font.getlength(piece) for piece, font in line) for line in lines)
    return Words(tuple(lines), round(1.25 * size), round(wide + 0.5))


def _width(text: str, size: int) -> float:
    return sum(font.getlength(piece) for piece, font in _pieces(text, size))


def _shown(text: str) -> str:
    """Return a text with the codes of letters that no font has, as [U+4E03 U+5411]."""
    parts = []
    for there, letters in groupby(text, lambda letter: letter.isspace() or _place(letter) >= 0):
        codes = "".join(letters)
        parts.append(codes if there else f"[{' '.join(f'U+{ord(c):04X}' for c in codes)}]")
    return "".join(parts)


def _pieces(text: str, size: int) -> Iterator[tuple[str, Font]]:
    """Yield the pieces of a text, each with the first font that has its letters."""
    for place, letters in groupby(text, lambda letter: max(0, _place(letter))):
        yield "".join(letters), _fonts(size)[place]


@cache
def _place(letter: str) -> int:
    """Return the number of the first font that has a letter; -1 if none has, or it is not shown."""
    if letter == " ":
        return 0
    if not letter.isprintable():  # a control character, or half of one
        return -1
    for place, font in enumerate(_fonts(16)):
        alone = font.font_variant(layout_engine=ImageFont.Layout.BASIC)  # no circle below a mark
        if _drawn(letter, alone) != _drawn(_NONE, alone):
            return place
    return -1


def _drawn(letter: str, font: Font) -> bytes:
    """Return the pixels of a letter."""
    page = Image.new("L", (48, 48))
    ImageDraw.Draw(page).text((16, 16), letter, fill=255, font=font)
    return page.tobytes()


@cache
def _fonts(size: int) -> tuple[Font, ...]:
    """Return the fonts that are here: Pillow's own, matplotlib's, the system's."""
    found = [ImageFont.load_default(size)]
    package = find_spec("matplotlib")  # which is not imported
    names = _NAMES
    if package is not None and package.origin:
        names = (str(Path(package.origin).parent / "mpl-data/fonts/ttf" / _NAMES[0]), *_NAMES)
    for name in names:
        with suppress(OSError):
            found.append(ImageFont.truetype(name, size))
    return tuple(font for font in found if isinstance(font, Font))
