"""The files that official evaluators write, read back into figures by name."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from statistics import StatisticsError, fmean
from typing import Any

from contar._errors import bad, check_choice, check_number

Figures = dict[str, float]

_DAMAGED = (
    AttributeError, IndexError, KeyError, TypeError, RecursionError, StatisticsError,
    json.JSONDecodeError, UnicodeDecodeError,
)  # fmt: skip
_SCALED = ("quality", "semantic", "total")  # by bounds that a model may exceed

_GENEVAL = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
_T2I = {  # where each category's evaluator writes, beside its samples
    "color": "annotation_blip",
    "shape": "annotation_blip",
    "texture": "annotation_blip",
    "spatial": "labels/annotation_obj_detection_2d",
    "non_spatial": "annotation_clip",
    "complex": "annotation_3_in_1",
    "3d_spatial": "labels/annotation_obj_detection_3d",
    "numeracy": "annotation_num",
}
# Least and largest value, a and b, that a dimension is scaled by.
# Source: Vchitect/VBench, scripts/constant.py.
_QUALITY = {
    "subject_consistency": (0.1462, 1.0), "background_consistency": (0.2615, 1.0),
    "temporal_flickering": (0.6293, 1.0), "motion_smoothness": (0.706, 0.9975),
    "aesthetic_quality": (0.0, 1.0), "imaging_quality": (0.0, 1.0), "dynamic_degree": (0.0, 1.0),
}  # fmt: skip
_SEMANTIC = {
    "object_class": (0.0, 1.0), "multiple_objects": (0.0, 1.0), "human_action": (0.0, 1.0),
    "color": (0.0, 1.0), "spatial_relationship": (0.0, 1.0), "scene": (0.0, 0.8222),
    "appearance_style": (0.0009, 0.2855), "temporal_style": (0.0, 0.364),
    "overall_consistency": (0.0, 0.364),
}  # fmt: skip
_WEIGHTS = {"dynamic_degree": 0.5}  # 1 of all others
# Source: Vchitect/VBench, VBench-2.0/scripts/constant.py.
_GROUPS = {
    "creativity": ("Composition", "Diversity"),
    "commonsense": ("Instance_Preservation", "Motion_Rationality"),
    "controllability": (
        "Camera_Motion", "Complex_Landscape", "Complex_Plot", "Dynamic_Attribute",
        "Dynamic_Spatial_Relationship", "Human_Interaction", "Motion_Order_Understanding",
    ),
    "human_fidelity": ("Human_Anatomy", "Human_Clothes", "Human_Identity"),
    "physics": ("Material", "Mechanics", "Multi-View_Consistency", "Thermotics"),
}  # fmt: skip


def read_scores(suite: str, result: str | os.PathLike[str]) -> Figures:
    """Return figures from what a suite's official evaluator wrote, in percent.

    An overall figure is there only if all that it is the mean of are.

    Args:
        suite: "geneval" (its results.jsonl), "dpg-bench" (its …_results.txt), "t2i-compbench" (the
            folder of categories, each with its `…/vqa_result.json`), "vbench" or "vbench-2.0" (an
            …_eval_results.json, or a folder of such).
        result: that file or folder.

    Raises:
        FileNotFoundError: there is no such file, or no result in the folder.
        ValueError: an unknown suite, or a file of another format.

    Source: the summaries of djghosh13/geneval, TencentQQGYLab/ELLA, Karine-Huang/T2I-CompBench and
    Vchitect/VBench (scripts/cal_final_score.py).
    """
    readers = {
        "geneval": _geneval, "dpg-bench": _dpg, "t2i-compbench": _t2i,
        "vbench": _vbench, "vbench-2.0": _vbench2,
    }  # fmt: skip
    check_choice("suite", suite, tuple(readers))
    path = Path(result)
    if not path.exists():
        raise FileNotFoundError(f"result: got no such file as {str(path)!r}, allowed: one")
    if suite in ("geneval", "dpg-bench") and not path.is_file():
        raise bad("result", f"{path}, a folder", f"the file that the evaluator of {suite} writes")
    try:
        figures = readers[suite](path)
    except _DAMAGED as error:
        allowed = f"what the evaluator of {suite} writes"
        raise bad("result", f"{path} ({error!r})", allowed) from error
    if not figures:
        raise FileNotFoundError(f"result: got nothing in {path}, allowed: results of {suite}")
    for name, value in figures.items():
        if name not in _SCALED:
            check_number(name, value, 0, 1)
    return {name: 100 * check_number(name, value) for name, value in figures.items()}


def _geneval(path: Path) -> Figures:
    """Shares of right pictures by tag; overall is the mean over tags."""
    answers: dict[str, list[float]] = {}
    for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n"):
        told = json.loads(line)
        if told["correct"] not in (True, False):
            raise bad("result", f"correct: {told['correct']!r} in {path}", "true or false")
        answers.setdefault(told["tag"], []).append(float(told["correct"]))
    tags = {tag: fmean(values) for tag, values in answers.items()}
    return _with_mean("overall", tags, _GENEVAL)


def _dpg(path: Path) -> Figures:
    """The last summary: shares by category, and the mean of the pictures' scores."""
    figures: Figures = {}
    broad = False
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, value = line.strip().rpartition(": ")
        if line.startswith("Model:"):
            figures = {}  # of an evaluation that was added to the same file
        elif line.startswith(("L1 category", "L2 category")):
            broad = line.startswith("L1")
        elif name == "DPG-Bench score":
            figures["overall"] = _number(path, value) / 100
        elif line.startswith("\t") and broad:
            figures[name] = _number(path, value) / 100
    if "overall" not in figures:
        raise bad("result", str(path), "a summary that ends in the DPG-Bench score")
    return figures


def _number(path: Path, value: Any) -> float:
    try:
        return float(value)
    except ValueError:
        raise bad("result", f"{value!r} in {path}", "a number") from None


def _t2i(path: Path) -> Figures:
    """The mean answer of each category."""
    figures = {}
    for category, place in _T2I.items():
        file = path / category / place / "vqa_result.json"
        if file.is_file():
            told = json.loads(file.read_text(encoding="utf-8"))
            figures[category] = fmean(_number(file, answer["answer"]) for answer in told)
    return figures


def _vbench(path: Path) -> Figures:
    """Dimensions as they are; quality, semantic and total of scaled and weighted ones."""
    raw = _dimensions(path)
    figures = {n: raw[n] for n in (*_QUALITY, *_SEMANTIC) if n in raw}
    for name, group in {"quality": _QUALITY, "semantic": _SEMANTIC}.items():
        if group.keys() <= raw.keys():
            weights = {n: _WEIGHTS.get(n, 1.0) for n in group}
            scaled = (
                weights[n] * (raw[n] - low) / (high - low) for n, (low, high) in group.items()
            )
            figures[name] = sum(scaled) / sum(weights.values())
    if {"quality", "semantic"} <= figures.keys():
        figures["total"] = (4 * figures["quality"] + figures["semantic"]) / 5
    return figures


def _vbench2(path: Path) -> Figures:
    """Dimensions, the five groups' means, and the mean of those."""
    raw = _dimensions(path)
    known = [name for group in _GROUPS.values() for name in group]
    figures = {name: raw[name] for name in known if name in raw}
    for group, names in _GROUPS.items():
        figures = _with_mean(group, figures, names)
    return _with_mean("total", figures, _GROUPS)


def _dimensions(path: Path) -> Figures:
    """Return each dimension's score from one file, or from all in a folder."""
    files = sorted(path.rglob("*_eval_results.json")) if path.is_dir() else [path]
    figures: Figures = {}
    for file in files:
        told: Any = json.loads(file.read_text(encoding="utf-8"))
        for name, value in told.items():
            name = name.replace(" ", "_")
            if name in figures and figures[name] != value[0]:
                raise bad("result", f"{name} twice in {path}", "one result of each dimension")
            figures[name] = _number(file, value[0])
    return figures


def _with_mean(name: str, figures: Figures, parts: Iterable[str]) -> Figures:
    """Return figures and the mean of some, if all of them are there."""
    found = [figures.get(part) for part in parts]
    return figures if None in found else {**figures, name: fmean(found)}  # type: ignore[arg-type]
