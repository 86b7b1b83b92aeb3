"""The suites' own files of prompts, read into suites; each rule is its evaluator's."""

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from contar._errors import bad, check_choice, check_count, check_text
from contar.evaluation.suites.suite import SUFFIXES, Kind, Suite, Unit

_CATEGORIES = (
    "color", "shape", "texture", "spatial", "non_spatial", "complex", "3d_spatial", "numeracy",
)  # fmt: skip

# Of a video with fewer these dimensions divide by zero, mean nothing or refuse it.
# Source: the file of each name in vbench and VBench-2.0/vbench2 of Vchitect/VBench.
_FRAMES = {
    "subject_consistency": 2, "background_consistency": 2, "temporal_flickering": 2,
    "motion_smoothness": 3, "Human_Identity": 21, "Multi-View_Consistency": 21,
}  # fmt: skip


def geneval(path: Path) -> Suite:
    """Read `evaluation_metadata.jsonl`: four pictures a prompt.

    `00000/samples/0000.png`, and beside the samples the prompt's line as `00000/metadata.jsonl`.

    Source: djghosh13/geneval, evaluation/evaluate_images.py; 553 prompts.
    """
    units, beside = [], {}
    for index, (place, line) in enumerate(_lines(path)):
        told = _loaded(line, place)
        if not isinstance(told, dict) or not {"tag", "prompt"} <= told.keys():
            raise bad(place, line, "an object with a tag and a prompt, as GenEval's")
        prompt = _prompt(told["prompt"], place)
        for number in range(4):
            file = f"{index:05d}/samples/{number:04d}.png"
            units.append(Unit(prompt, (number,), (file,), prompt))
        beside[f"{index:05d}/metadata.jsonl"] = line + "\n"
    return Suite("geneval", "picture", tuple(units), beside)


def dpg_bench(path: Path) -> Suite:
    """Read the folder `prompts`: four pictures of a text file in one, named after it.

    The grid is cut into squares; the prompt's file is found by what stands before the first dot.

    Source: TencentQQGYLab/ELLA, dpg_bench/compute_dpg_bench.py; 1,065 prompts.
    """
    files = sorted(path.glob("*.txt")) if path.is_dir() else []
    if not files:
        raise bad("prompts", str(path), "DPG-Bench's folder of text files")
    units = []
    for file in files:
        if "." in file.stem:
            raise bad(file.name, file.stem, "a name without dots, at which the evaluator cuts it")
        prompt = _prompt(_text(file).strip(), file.name)
        units.append(Unit(prompt, (0, 1, 2, 3), (f"{file.stem}.png",), prompt))
    return Suite("dpg-bench", "picture", tuple(units))


def t2i_compbench(path: Path) -> Suite:
    """Read a category's file, as `color_val.txt`, or the folder of all: ten pictures a prompt.

    `color/samples/PROMPT_000000.png`, counted through the category. The evaluators read the prompt
    before the first "_", and write beside `samples`.

    Source: Karine-Huang/T2I-CompBench, BLIPvqa_eval, UniDet_eval, CLIPScore_eval, 3_in_1_eval; 300
    prompts a category.
    """
    within = (path / f"{name}_val.txt" for name in _CATEGORIES)
    files = [file for file in within if file.is_file()] if path.is_dir() else [path]
    if not files:
        raise bad("prompts", str(path), f"a folder with one of {_CATEGORIES}, each …_val.txt")
    units = []
    for file in files:
        category = file.stem.removesuffix("_val")
        check_choice("prompts", category, _CATEGORIES)
        for index, (place, line) in enumerate(_lines(file)):
            prompt = _named(line.split("\t")[0], place)
            if "_" in prompt:
                raise bad(place, prompt, 'no "_", at which the evaluator ends the prompt')
            for number in range(10):
                name = f"{category}/samples/{prompt}_{10 * index + number:06d}.png"
                units.append(Unit(prompt, (number,), (name,), prompt))
    return Suite("t2i-compbench", "picture", tuple(units))


def vbench(path: Path) -> Suite:
    """Read `VBench_full_info.json`: `PROMPT-0.mp4` to `-4`, to `-24` for temporal flickering.

    A prompt that two dimensions name is sampled once. The first file that the evaluator's listing
    of the folder gives says the suffix of all.

    Source: Vchitect/VBench, vbench/__init__.py and prompts/README.md; 946 lines, 944 prompts.
    """
    counts: dict[str, int] = {}
    frames = 1
    for place, prompt, dimensions in _infos(path):
        frames = max(frames, *(_FRAMES.get(name, 1) for name in dimensions))
        count = 25 if "temporal_flickering" in dimensions else 5
        counts[_named(prompt, place)] = max(count, counts.get(prompt, 0))
    units = (
        Unit(prompt, (number,), (f"{prompt}-{number}.mp4",), prompt)
        for prompt, count in counts.items()
        for number in range(count)
    )
    return Suite("vbench", "video", tuple(units), frames=frames)


def vbench2(path: Path) -> Suite:
    """Read `VBench2_full_info.json`: a folder a dimension, three videos a prompt, 20 for Diversity.

    A name is the prompt's first 180 characters. A prompt of several dimensions is sampled once, and
    its file lies in each folder.

    Source: Vchitect/VBench, VBench-2.0/vbench2/__init__.py, evaluate.sh and prompts/README.md;
    1,230 lines.
    """
    places: dict[tuple[str, int], list[str]] = {}
    frames = 1
    for place, prompt, dimensions in _infos(path):
        frames = max(frames, *(_FRAMES.get(name, 1) for name in dimensions))
        name = _named(prompt, place)[:180]
        for number in range(20 if dimensions[0] == "Diversity" else 3):
            files = (f"{_named(folder, place)}/{name}-{number}.mp4" for folder in dimensions)
            places.setdefault((prompt, number), []).extend(files)
    units = (Unit(key[0], (key[1],), tuple(files), key[0]) for key, files in places.items())
    return Suite("vbench-2.0", "video", tuple(units), frames=frames)


def prompt_list(path: Path, kind: Kind = "video", samples: int = 1) -> Suite:
    """Read a text file, a prompt a line: `00000-0.mp4`, lines and samples counted from 0."""
    check_choice("kind", kind, tuple(SUFFIXES))
    check_count("samples", samples)
    units = []
    for index, (_, line) in enumerate(_lines(path)):
        for number in range(samples):
            file = f"{index:05d}-{number}{SUFFIXES[kind]}"
            units.append(Unit(line, (number,), (file,), line))
    return Suite("prompts", kind, tuple(units))


SUITES: dict[str, Callable[[Path], Suite]] = {
    "geneval": geneval, "dpg-bench": dpg_bench, "t2i-compbench": t2i_compbench,
    "vbench": vbench, "vbench-2.0": vbench2, "prompts": prompt_list,
}  # fmt: skip
_PACKAGED = {
    "vbench": ("vbench", "VBench_full_info.json"),
    "vbench-2.0": ("vbench2", "VBench2_full_info.json"),
}
_FOUND = {
    "geneval": "prompts/evaluation_metadata.jsonl of djghosh13/geneval",
    "dpg-bench": "the folder dpg_bench/prompts of TencentQQGYLab/ELLA",
    "t2i-compbench": "the folder examples/dataset of Karine-Huang/T2I-CompBench, or a file of it",
    "vbench": "vbench/VBench_full_info.json of Vchitect/VBench, or the package vbench",
    "vbench-2.0": "VBench-2.0/vbench2/VBench2_full_info.json of Vchitect/VBench",
    "prompts": "a text file with a prompt a line",
}


def read_suite(
    name: str,
    prompts: str | os.PathLike[str] | None = None,
    *,
    kind: Kind | None = None,
    samples: int = 1,
) -> Suite:
    """Return a suite, of its own file of prompts.

    Args:
        name: "geneval", "dpg-bench", "t2i-compbench", "vbench", "vbench-2.0", or "prompts" for any
            list.
        prompts: the file or folder; None takes that of the package vbench or vbench2, if it is
            installed.
        kind: of a list's samples, "picture" or "video", which it is if left out; the others know
            theirs.
        samples: of each line of a list, likewise.

    Raises:
        FileNotFoundError: there is no such file, or none is given and no package has it.
        ValueError: an unknown name; a file of another format, with the line; a prompt that cannot
            name a file, where the evaluator wants it to.
    """
    check_choice("suite", name, tuple(SUITES))
    path = _packaged(name) if prompts is None else Path(prompts)
    if path is None or not path.exists():
        got = "none" if path is None else f"no such file as {str(path)!r}"
        raise FileNotFoundError(f"prompts: got {got}, allowed: {_FOUND[name]}")
    if name == "prompts":
        return prompt_list(path, "video" if kind is None else kind, samples)
    if samples != 1:
        raise bad("samples", samples, f"1: {name} says how many it wants")
    if kind is not None:
        raise bad("kind", kind, f"none: {name} says which it wants")
    return SUITES[name](path)


def read_rewritten(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return what a model shall read instead of each prompt, for `Suite.rewritten`.

    Args:
        path: of JSON: an object from prompts to texts, or a list of objects with `prompt` and
            `dense_prompt`, as NOVA's evaluations have.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
    """
    file = Path(path)
    told = _loaded(_text(file), file.name)
    if isinstance(told, list) and all(isinstance(line, dict) for line in told):
        told = {line.get("prompt"): line.get("dense_prompt") for line in told}
    if not isinstance(told, dict) or not all(isinstance(x, str) for p in told.items() for x in p):
        raise bad(file.name, "another format", "an object from prompts to texts, or NOVA's list")
    return told


def _packaged(name: str) -> Path | None:
    """Return the file of an installed package, without importing it."""
    if name not in _PACKAGED:
        return None
    package, file = _PACKAGED[name]
    spec = importlib.util.find_spec(package)
    folders = [] if spec is None else spec.submodule_search_locations or []
    places = (Path(folder) / file for folder in folders)
    return next((place for place in places if place.is_file()), None)


def _infos(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yield place, prompt and dimensions of a `…_full_info.json`."""
    told = _loaded(_text(path), path.name)
    wanted = "a list of objects with prompt_en and dimension, as VBench's …_full_info.json"
    if not isinstance(told, list):
        raise bad(path.name, type(told).__name__, wanted)
    for index, entry in enumerate(told):
        place = f"{path.name}, entry {index}"
        dimensions = entry.get("dimension") if isinstance(entry, dict) else None
        if not isinstance(dimensions, list) or not dimensions or "prompt_en" not in entry:
            raise bad(place, entry, wanted)
        yield place, _prompt(entry["prompt_en"], place), [_prompt(d, place) for d in dimensions]


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and text of each line; empty ones are refused but at the end."""
    text = _text(path).rstrip()
    if not text:
        raise bad(path.name, "no line", "a prompt a line")
    for number, line in enumerate(text.split("\n"), 1):
        place = f"{path.name}, line {number}"
        yield place, _prompt(line.strip("\r"), place)


def _text(path: Path) -> str:
    if not path.is_file():
        raise FileNotFoundError(f"{path.name}: got no file in {path.parent}, allowed: one")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise bad(path.name, f"{path}, which is no text ({error})", "UTF-8") from error


def _loaded(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise bad(place, f"no JSON ({error})", "JSON, as the suite's own file") from error


def _prompt(value: object, place: str) -> str:
    if not check_text(place, value).strip():  # type: ignore[arg-type]
        raise bad(place, value, "words")
    return str(value)


def _named(prompt: str, place: str) -> str:
    """Return a prompt that is to name a file."""
    if "/" in prompt:
        raise bad(place, prompt, 'no "/", which no file name holds and the evaluator wants there')
    return prompt
