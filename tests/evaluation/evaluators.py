"""What the official evaluators read from a folder: their rules, as their code has them in 2026.

Each returns the files that are judged, with the prompt by which; what the evaluator skips in
silence is left out. Where it would break off, warn or print a failure an error is raised.
"""

import glob
import json
import os
import re
from pathlib import Path

import av
from PIL import Image

PROMPTS = Path(__file__).parent / "prompts"
FILES = {
    "geneval": PROMPTS / "geneval.jsonl",
    "dpg-bench": PROMPTS / "dpg",
    "t2i-compbench": PROMPTS / "t2i",
    "vbench": PROMPTS / "VBench_full_info.json",
    "vbench-2.0": PROMPTS / "VBench2_full_info.json",
}
STUMBLES = (AssertionError, OSError, ValueError, KeyError, IndexError, ZeroDivisionError)
Judged = set[tuple[str, str]]


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder, by its place in it."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def judged(suite: str, folder: Path, prompts: Path, resolution: int) -> Judged:
    """Return the judged files, relative to the folder, and their prompts.

    Args:
        suite: its name.
        folder: of its samples.
        prompts: the suite's own file or folder.
        resolution: side of a sample, as DPG-Bench's dist_eval.sh is told.
    """
    pairs = {
        "geneval": lambda: geneval(folder),
        "dpg-bench": lambda: dpg_bench(folder, prompts, resolution),
        "t2i-compbench": lambda: t2i_compbench(folder, prompts),
        "vbench": lambda: vbench(folder, prompts),
        "vbench-2.0": lambda: vbench2(folder, prompts),
    }[suite]()
    return {(str(file.relative_to(folder)), prompt) for file, prompt in pairs}


def opened(path: Path) -> None:
    with Image.open(path) as picture:
        picture.verify()


def geneval(folder: Path) -> list[tuple[Path, str]]:
    """djghosh13/geneval, evaluation/evaluate_images.py at af4902f."""
    pairs = []
    for name in os.listdir(folder):
        if not (folder / name).is_dir() or not name.isdigit():
            continue
        metadata = json.loads((folder / name / "metadata.jsonl").read_text())
        assert metadata["tag"]
        for image in os.listdir(folder / name / "samples"):
            path = folder / name / "samples" / image
            if path.is_file() and re.match(r"\d+\.png", image):  # what follows does not matter
                opened(path)
                pairs.append((path, metadata["prompt"]))
    return pairs


def dpg_bench(folder: Path, prompts: Path, resolution: int) -> list[tuple[Path, str]]:
    """TencentQQGYLab/ELLA, dpg_bench/compute_dpg_bench.py and dist_eval.sh at 3c228f1.

    The questions of dpg_bench.csv go by the names of the files of prompts.
    """
    pairs = []
    for name in os.listdir(folder):
        prompt = prompts / f"{name.split('.')[0]}.txt"
        if re.fullmatch(r"dpg-bench_\d{8}-\d{6}_results(_detail)?\.txt", name):
            continue  # its own: a failure is printed, and the next one follows
        with Image.open(folder / name) as image:
            assert image.size == (2 * resolution, 2 * resolution)  # beyond, a cut would be black
        pairs.append((folder / name, prompt.read_text().strip()))
    return pairs


def t2i_compbench(folder: Path, prompts: Path) -> list[tuple[Path, str]]:
    """Karine-Huang/T2I-CompBench at 1b70949, a category at a time.

    BLIPvqa_eval/BLIP_vqa.py, CLIPScore_eval/CLIP_similarity.py, UniDet_eval/*_eval.py and
    experts/*/generate_dataset.py, 3_in_1_eval/3_in_1.py, MLLM_eval/gpt4v_eval.py.
    """
    pairs = []
    for file in sorted(prompts.glob("*_val.txt")):
        samples = folder / file.stem.removesuffix("_val") / "samples"
        names = sorted(os.listdir(samples), key=lambda n: int(n.split("_")[-1].split(".")[0]))
        assert names == sorted(names, key=lambda n: int(n.split("_")[1].split(".")[0]))  # UniDet's
        for index, name in enumerate(names):
            assert int(name.split(".png")[0].split("_")[1]) == index  # the question_id of others
            opened(samples / name)
            pairs.append((samples / name, name.split("_")[0]))
        lines = [line.split(".")[0].lower() for line in file.read_text().splitlines()]
        assert len(names) == 10 * len(lines)  # the scores that 3_in_1 adds up
        for index, name in enumerate(names):
            assert name.split("_")[0].split(".")[0].lower() == lines[index // 10]
    return pairs


def frames(video: Path) -> int:
    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(video=0))


def vbench(folder: Path, infos: Path) -> list[tuple[Path, str]]:
    """Vchitect/VBench at 45e79ec: vbench/__init__.py, utils.py, cli/static_filter.py.

    How many frames: vbench/motion_smoothness.py, subject_consistency.py,
    background_consistency.py, temporal_flickering.py.
    """
    pairs, still = [], []
    names = os.listdir(folder)
    suffixes = {Path(name).suffix for name in names}  # that of the first is taken, whichever it is
    assert suffixes == {".mp4"}  # others are not read by all dimensions
    for info in json.loads(infos.read_text(encoding="utf-8")):
        for index in range(5):
            name = f"{info['prompt_en']}-{index}.mp4"
            assert name in names  # else a warning
            count = frames(folder / name)
            if "motion_smoothness" in info["dimension"]:
                assert len(range(0, count, 2)) > 1
            if {"subject_consistency", "background_consistency"} & {*info["dimension"]}:
                assert 1 / (count - 1)
            pairs.append((folder / name, info["prompt_en"]))
        if "temporal_flickering" in info["dimension"]:
            still.append(info["prompt_en"])
    for path in map(Path, sorted(glob.glob(os.path.join(folder, "*.mp4")))):
        prompt = re.sub(r"-\d+$", "", path.stem)
        if prompt in still:
            assert frames(path) > 1  # else the mean of no differences, no number
            pairs.append((path, prompt))
    return pairs


def vbench2(folder: Path, infos: Path) -> list[tuple[Path, str]]:
    """Vchitect/VBench at 45e79ec: VBench-2.0/vbench2/__init__.py, utils.py and evaluate.sh.

    How many frames: VBench-2.0/vbench2/human_identity.py, multi_view_consistency.py.
    """
    pairs = []
    told = json.loads(infos.read_text(encoding="utf-8"))
    for dimension in {name for info in told for name in info["dimension"]}:
        names = os.listdir(folder / dimension)
        assert {Path(name).suffix for name in names} == {".mp4"}  # as of VBench
        for info in told:
            if dimension not in info["dimension"]:
                continue
            for index in range(20 if info["dimension"][0] == "Diversity" else 3):
                name = f"{info['prompt_en'][:180]}-{index}.mp4"
                assert name in names  # else the evaluation ends
                count = frames(folder / dimension / name)
                if dimension == "Human_Identity":
                    assert count - 1 >= 20  # frames after the first that count at all
                if dimension == "Multi-View_Consistency":
                    assert len(range(0, count, 20)) > 1  # a track from one to the next
                pairs.append((folder / dimension / name, info["prompt_en"]))
    return pairs
