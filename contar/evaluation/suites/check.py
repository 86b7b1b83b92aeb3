"""What an evaluator would stumble over in a folder of samples."""

import os
import re
from collections import Counter
from pathlib import Path

from contar.evaluation.suites.suite import Suite
from contar.media import open_video, read_image

# What compute_dpg_bench.py writes among the samples, and itself passes over.
_RESULTS = re.compile(r"dpg-bench_\d{8}-\d{6}_results(_detail)?\.txt")


def check_samples(suite: Suite, folder: str | os.PathLike[str]) -> list[str]:
    """Return what is wrong with an evaluator's folder, file by file; nothing if it is whole.

    A file that is missing, a file or folder that the evaluator would come upon and that does not
    belong there, a sample that is cut off or cannot be read, of a size that others do not have, a
    grid that is no square, a video of too few frames. Of videos the first frame is decoded.

    Args:
        suite: what is to be there.
        folder: that the evaluator reads, OUT/SUITE of `plan_suite`.

    Raises:
        ImportError: of videos, if av is not installed.
    """
    place = Path(folder)
    wanted = (*suite.files, *suite.beside)
    problems = [f"{name}: missing" for name in sorted(wanted) if not (place / name).is_file()]
    problems += [f"{name}: does not belong there" for name in _strange(suite, place)]
    for name, text in suite.beside.items():
        file = place / name
        if file.is_file() and file.read_text(encoding="utf-8", errors="replace") != text:
            problems.append(f"{name}: another text")
    sizes: dict[str, str] = {}
    for unit in suite.units:
        for name in unit.files:
            if not (place / name).is_file():
                continue
            try:
                width, height, frames = _seen(place / name, suite.kind == "video")
            except (ValueError, OSError, SyntaxError) as error:
                problems.append(f"{name}: cannot be read ({error})")
                continue
            size = f"{width} x {height}"
            if frames < suite.frames:
                problems.append(f"{name}: {frames} frames, fewer than {suite.frames}")
            if len(unit.numbers) == 4 and (width != height or width % 2):
                problems.append(f"{name}: {size}, which is no grid of squares")
            else:
                sizes[name] = size
    usual = Counter(sizes.values()).most_common(1)
    problems += [f"{n}: {s}, others {usual[0][0]}" for n, s in sizes.items() if s != usual[0][0]]
    return problems


def _strange(suite: Suite, place: Path) -> list[str]:
    """Return what an evaluator comes upon that is neither a sample nor a folder of some."""
    known = {Path(name) for name in (*suite.files, *suite.beside)}
    known |= {parent for name in known for parent in name.parents}
    listed = {Path(name).parent for name in suite.files}
    found = {path for name in listed for path in (place / name).glob("*")}
    if suite.name == "geneval":  # whose evaluator enters each folder that is named by a number
        found |= {path for path in place.glob("*") if path.name.isdigit() and path.is_dir()}
    names = (path.relative_to(place) for path in found)
    return sorted(
        str(name)
        for name in names
        if name not in known and not (suite.name == "dpg-bench" and _RESULTS.fullmatch(name.name))
    )


def _seen(file: Path, video: bool) -> tuple[int, int, int]:
    """Return width, height and number of frames; ValueError if it is damaged."""
    if video:
        opened = open_video(file)
        _, frame = next(opened.frames())
        return frame.width, frame.height, opened.count
    height, width, _ = read_image(file).shape
    return width, height, 1
