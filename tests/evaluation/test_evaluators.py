"""What the official evaluators stumble over, `--check` names; what they pass over, it passes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from evaluators import FILES, STUMBLES, judged
from PIL import Image

from contar.evaluation import Suite, check_samples, plan_suite, read_suite, sample_units
from contar.media import write_video

LANDSCAPE = "Complex_Landscape/The camera slowly descends"


def made(suite: Suite, out: Path) -> Path:
    """Return a suite's folder, of samples of 8 x 8 pixels, of videos 3 frames, by seed."""
    count = 1 if suite.kind == "picture" else 3

    def sample(text: str, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 255, (count, 8, 8, 3), dtype=np.uint8)

    plan_suite(suite, out, {})
    assert sample_units(out, sample) == []
    return out / suite.name


def wanted(suite: Suite) -> set[tuple[str, str]]:
    return {(file, unit.prompt) for unit in suite.units for file in unit.files}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Callable[[str], Path]:
    whole: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in whole:
            whole[name] = made(read_suite(name, FILES[name]), tmp_path_factory.mktemp(name))
        return Path(
            shutil.copytree(whole[name], tmp_path_factory.mktemp("copy") / name, symlinks=True)
        )

    return folder


def lost(start: str) -> Callable[[Path], None]:
    return lambda folder: next(folder.glob(start + "*")).unlink()


def new(place: str) -> Callable[[Path], None]:
    return lambda folder: (folder / place).mkdir(parents=True)


def copied(start: str, place: str) -> Callable[[Path], object]:
    return lambda folder: shutil.copy(next(folder.glob(start + "*")), folder / place)


def wide(place: str) -> Callable[[Path], None]:
    return lambda folder: Image.new("RGB", (16, 12)).save(folder / place)


def short(start: str) -> Callable[[Path], object]:
    frame = np.zeros((1, 8, 8, 3), np.uint8)
    return lambda folder: write_video(frame, next(folder.glob(start + "*")))


def cut(start: str) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        file = next(folder.glob(start + "*"))
        file.write_bytes(file.read_bytes()[:60])

    return apply


@pytest.mark.parametrize(("name", "harm"), [
    ("geneval", lost("00001/samples/0002.png")),
    ("geneval", lost("00001/metadata.jsonl")),
    ("geneval", copied("00000/metadata", "00001/metadata.jsonl")),
    ("geneval", copied("00000/samples/0000", "00000/samples/0004.png")),
    ("geneval", copied("00000/samples/0000", "00000/samples/0000.png.part")),
    ("geneval", cut("00000/samples/0003")),
    ("geneval", new("00003")),
    ("dpg-bench", lost("0.png")),
    ("dpg-bench", copied("0.png", "0.v2.png")),
    ("dpg-bench", copied("0.png", "1.png")),
    ("dpg-bench", wide("0.png")),
    ("dpg-bench", new(".ipynb_checkpoints")),
    ("t2i-compbench", lost("color/samples/*_000003")),
    ("t2i-compbench", lost("complex/samples/*_000009")),
    ("t2i-compbench", copied("color/samples/*_000000", "color/samples/a bench_000010.png")),
    ("t2i-compbench", copied("color/samples/*_000000", "color/samples/grid.png")),
    ("t2i-compbench", new("color/samples/.ipynb_checkpoints")),
    ("vbench", lost("The bund Shanghai, oil painting-4")),
    ("vbench", lost("A tranquil*-24")),
    ("vbench", copied("The bund*-0", "The bund Shanghai, oil painting-0.gif")),
    ("vbench", cut("The bund*-0")),
    ("vbench", short("A tranquil*-7")),
    ("vbench", new(".ipynb_checkpoints")),
    ("vbench-2.0", lost("Diversity/*-19")),
    ("vbench-2.0", lost("Mechanics/*-2")),
    ("vbench-2.0", copied(LANDSCAPE, "Complex_Landscape/a cave.mov")),
    ("vbench-2.0", new("Mechanics/clips")),
])  # fmt: skip
def test_where_an_evaluator_would_stumble_the_check_names_it(name, harm, folders):
    suite, folder = read_suite(name, FILES[name]), folders(name)
    harm(folder)
    try:
        stumbled = judged(name, folder, FILES[name], 8) != wanted(suite)
    except STUMBLES:
        stumbled = True
    assert stumbled
    assert len(check_samples(suite, folder)) == 1


@pytest.mark.parametrize("name", FILES)
def test_what_an_evaluator_passes_over_or_writes_itself_is_no_problem(name, folders):
    suite, folder = read_suite(name, FILES[name]), folders(name)
    beside = {
        "geneval": ("results.jsonl", "00000/grid.png"),
        "dpg-bench": ("dpg-bench_20261128-041500_results.txt",
                      "dpg-bench_20261128-041500_results_detail.txt"),
        "t2i-compbench": ("color/annotation_blip/vqa_result.json", "color/labels/depth/a.png"),
        "vbench": (),
        "vbench-2.0": ("notes.txt",),
    }[name]  # fmt: skip
    for place in beside:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).touch()
    assert judged(name, folder, FILES[name], 8) == wanted(suite)
    assert check_samples(suite, folder) == []


@pytest.mark.parametrize(
    ("name", "dimension", "least"),
    [
        ("vbench", "motion_smoothness", 3),
        ("vbench", "background_consistency", 2),
        ("vbench", "color", 1),
        ("vbench-2.0", "Human_Identity", 21),
        ("vbench-2.0", "Multi-View_Consistency", 21),
        ("vbench-2.0", "Material", 1),
    ],
)
def test_the_check_wants_as_many_frames_as_a_dimension_breaks_off_without(
    name, dimension, least, tmp_path
):
    (tmp_path / "info.json").write_text(
        json.dumps([{"prompt_en": "a bench", "dimension": [dimension]}])
    )
    suite = read_suite(name, tmp_path / "info.json")
    assert suite.frames == least
    folder = tmp_path / name
    for count in {least, max(1, least - 1)}:
        for file in suite.files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            write_video(np.zeros((count, 8, 8, 3), np.uint8), folder / file)
        problems = check_samples(suite, folder)
        if count == least:
            assert judged(name, folder, tmp_path / "info.json", 8) == wanted(suite)
            assert problems == []
        else:
            with pytest.raises(STUMBLES):
                judged(name, folder, tmp_path / "info.json", 8)
            assert [told.partition(": ")[2] for told in problems] == [
                f"{count} frames, fewer than {least}"
            ] * len(suite.files)


def test_a_prompt_of_vbench2_lies_in_the_folder_of_each_of_its_dimensions(tmp_path):
    info = {"prompt_en": "a bench", "dimension": ["Material", "Mechanics"]}
    (tmp_path / "info.json").write_text(json.dumps([info]))
    suite = read_suite("vbench-2.0", tmp_path / "info.json")
    folder = made(suite, tmp_path)
    assert judged("vbench-2.0", folder, tmp_path / "info.json", 8) == wanted(suite)
