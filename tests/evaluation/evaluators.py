"""What the official evaluators read from a folder: their rules, as their code has them in 2026.

Each returns the files in the order in which they are judged, each with the prompt that it is judged
by, and raises an AssertionError where the evaluator would fail, warn or judge something else.
"""

import json
import os
import re
from pathlib import Path

from PIL import Image

Judged = list[tuple[Path, str]]


def geneval(folder: Path) -> Judged:
    """djghosh13/geneval, evaluation/evaluate_images.py at af4902f."""
    judged = []
    for name in sorted(os.listdir(folder)):
        assert (folder / name).is_dir()  # others are skipped
        assert name.isdigit()
        metadata = json.loads((folder / name / "metadata.jsonl").read_text())
        assert {"tag", "prompt", "include"} <= metadata.keys()
        images = sorted(os.listdir(folder / name / "samples"))
        for image in images:
            assert re.match(r"\d+\.png", image)  # others are skipped
            judged.append((folder / name / "samples" / image, metadata["prompt"]))
        assert len(images) == 4
    return judged


def dpg_bench(folder: Path, prompts: Path, resolution: int) -> Judged:
    """TencentQQGYLab/ELLA, dpg_bench/compute_dpg_bench.py at 3c228f1, with --pic-num 4."""
    judged = []
    questions = {file.stem: file.read_text().strip() for file in prompts.glob("*.txt")}
    for name in sorted(os.listdir(folder)):
        key = os.path.basename(name).split(".")[0]
        with Image.open(folder / name) as image:
            # Beyond the picture, a cut would be black.
            assert image.size == (2 * resolution, 2 * resolution)
        judged.append((folder / name, questions.pop(key)))
    assert not questions
    return judged


def t2i_compbench(folder: Path) -> Judged:
    """Karine-Huang/T2I-CompBench, BLIPvqa_eval, CLIPScore_eval and UniDet_eval at 1b70949.

    `folder` is a category's. The evaluators of the category make folders beside `samples`.
    """
    names = os.listdir(folder / "samples")
    names.sort(key=lambda name: int(name.split("_")[-1].split(".")[0]))
    for index, name in enumerate(names):
        assert int(name.split(".png")[0].split("_")[1]) == index  # what numeracy calls it
        Image.open(folder / "samples" / name).verify()
    assert len(names) % 10 == 0  # what 3_in_1 shares among the prompts
    assert os.listdir(folder) == ["samples"]
    return [(folder / "samples" / name, name.split("_")[0]) for name in names]


def vbench(folder: Path, infos: Path, special: str = "") -> Judged:
    """Vchitect/VBench, vbench/__init__.py and static_filter.py at 45e79ec."""
    names = os.listdir(folder)
    suffix = Path(names[0]).suffix
    assert {Path(name).suffix for name in names} == {suffix}
    judged, flickering = [], set()
    for info in json.loads(infos.read_text(encoding="utf-8")):
        for index in range(5):
            name = f"{info['prompt_en']}{special}-{index}{suffix}"
            assert name in names
            judged.append((folder / name, info["prompt_en"]))
        if "temporal_flickering" in info["dimension"]:
            flickering.add(info["prompt_en"])
    for prompt in flickering:  # by glob, its number cut off
        assert sum(re.sub(r"-\d+$", "", Path(name).stem) == prompt for name in names) == 25
    return judged


def vbench2(folder: Path, infos: Path) -> Judged:
    """Vchitect/VBench, VBench-2.0/vbench2/__init__.py and evaluate.sh at 45e79ec."""
    judged = []
    told = json.loads(infos.read_text(encoding="utf-8"))
    assert set(os.listdir(folder)) == {info["dimension"][0] for info in told}
    for info in told:
        dimension = info["dimension"][0]
        names = os.listdir(folder / dimension)
        suffix = Path(names[0]).suffix
        for index in range(20 if dimension == "Diversity" else 3):
            name = f"{info['prompt_en'][:180]}-{index}{suffix}"
            assert name in names  # a missing one ends the evaluation
            judged.append((folder / dimension / name, info["prompt_en"]))
    return judged
