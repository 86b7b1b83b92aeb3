"""What an evaluator would stumble over in a folder of samples."""

import os
from collections import Counter
from pathlib import Path

from contar.evaluation.suites.suite import Suite
from contar.media import open_video, read_image


def check_samples(suite: Suite, folder: str | os.PathLike[str]) -> list[str]:
    """Return what is wrong with an evaluator's folder, file by file; nothing if it is whole.

    A file that is missing, that does not belong there, that is cut off or cannot be read, of a size
    that others do not have; a grid that is no square. Of videos the first frame is decoded.

    Args:
        suite: what is to be there.
        folder: that the evaluator reads, OUT/SUITE of `plan_suite`.

    Raises:
        ImportError: of videos, if av is not installed.
    """
    place = Path(folder)
    wanted = {*suite.files, *suite.beside}
    found = {
        str(Path(root, name).relative_to(place)): Path(root, name)
        for root, _, names in os.walk(place)
        for name in names
    }
    problems = [f"{name}: missing" for name in sorted(wanted - found.keys())]
    strange = sorted(found.keys() - wanted)
    if suite.name == "t2i-compbench":  # whose evaluators read `samples` and write beside it
        strange = [name for name in strange if Path(name).parent.name == "samples"]
    problems += [f"{name}: does not belong there" for name in strange]
    for name, text in suite.beside.items():
        if name in found and found[name].read_text(encoding="utf-8", errors="replace") != text:
            problems.append(f"{name}: another text")
    sizes: dict[str, str] = {}
    for unit in suite.units:
        for file in unit.files:
            if file not in found:
                continue
            try:
                sizes[file] = _size(found[file], suite.kind == "video")
            except (ValueError, OSError, SyntaxError) as error:
                problems.append(f"{file}: cannot be read ({error})")
                continue
            sides = sizes[file].split(" x ")
            if len(unit.numbers) == 4 and (sides[0] != sides[1] or int(sides[0]) % 2):
                problems.append(f"{file}: {sizes[file]}, which is no grid of squares")
    if len(counts := Counter(sizes.values())) > 1:
        usual = counts.most_common(1)[0][0]
        problems += [f"{n}: {s}, others {usual}" for n, s in sizes.items() if s != usual]
    return problems


def _size(file: Path, video: bool) -> str:
    if video:
        _, frame = next(open_video(file).frames())
        return f"{frame.width} x {frame.height}"
    height, width, _ = read_image(file).shape
    return f"{width} x {height}"
