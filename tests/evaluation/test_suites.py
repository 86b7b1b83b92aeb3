"""Suites as values, the work on them, and the evaluators' files read back; no model."""

import gc
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluators import FILES, contents
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contar.evaluation import (
    PUBLISHED,
    SUITES,
    Suite,
    Unit,
    check_samples,
    failed_units,
    plan_suite,
    read_plan,
    read_rewritten,
    read_scores,
    read_suite,
    sample_units,
    score_table,
    seed_of,
    units_left,
)


def square(text: str, seed: int) -> np.ndarray:
    """Return a picture that text and seed alone decide."""
    draws = np.random.default_rng([seed, len(text)])
    return draws.integers(0, 255, (1, 8, 8, 3), dtype=np.uint8)


def listed(tmp_path: Path, count: int) -> Suite:
    file = tmp_path / "prompts.txt"
    file.write_text("".join(f"prompt {number}\n" for number in range(count)))
    return read_suite("prompts", file, kind="picture")


@pytest.mark.parametrize(
    ("name", "units", "files", "one"),
    [
        ("geneval", 12, 12, "00002/samples/0003.png"),
        ("dpg-bench", 2, 2, "COCOval2014000000567609.png"),
        ("t2i-compbench", 20, 20, "color/samples/a green bench and a blue bowl_000009.png"),
        ("vbench", 30, 30, "The bund Shanghai, oil painting-4.mp4"),
        ("vbench-2.0", 23, 26, "Mechanics/A wooden toy is placed gently on the surface of a small "
                               "bowl of water.-2.mp4"),
    ],
)  # fmt: skip
def test_each_suite_names_the_files_of_its_evaluator(name, units, files, one):
    suite = read_suite(name, FILES[name])
    assert (len(suite.units), len(suite.files)) == (units, files)
    assert one in suite.files
    assert Suite.from_lines(name, suite.kind, suite.lines()).units == suite.units


def test_a_dpg_file_shows_four_samples_and_a_prompt_of_two_dimensions_is_sampled_once():
    grid = read_suite("dpg-bench", FILES["dpg-bench"]).units[0]
    assert grid.numbers == (0, 1, 2, 3)
    toy = read_suite("vbench-2.0", FILES["vbench-2.0"]).units[0]
    assert [Path(file).parent.name for file in toy.files] == ["Diversity", "Mechanics"]


@given(st.text("aé漢 /", min_size=1), st.integers(0, 99), st.sampled_from(sorted(SUITES)))
def test_a_seed_depends_on_suite_prompt_and_number_alone_and_tells_them_apart(prompt, number, name):
    seed = seed_of(name, prompt, number)
    assert 0 <= seed < 2**63
    assert seed == seed_of(name, prompt, number)
    assert seed not in (
        seed_of(name, prompt, number + 1), seed_of(name, prompt + ".", number),
        seed_of(name + "2", prompt, number),
    )  # fmt: skip


def test_a_seed_stays_what_it_was():
    assert seed_of("geneval", "a photo of a bench", 0) == 7322824587430611854


@pytest.mark.parametrize(
    ("name", "text", "fragments"),
    [
        ("geneval", "a photo of a bench\n", ("line 1", "no JSON")),
        ("geneval", '{"prompt": "a bench"}\n', ("line 1", "a tag and a prompt")),
        ("vbench", '{"prompt_en": "a bench"}', ("dict", "prompt_en and dimension")),
        ("vbench", '[{"prompt_en": "a bench"}]', ("entry 0", "dimension")),
        ("vbench", '[{"prompt_en": "a/b", "dimension": ["scene"]}]', ("entry 0", "/")),
        ("vbench", '[{"prompt_en": "' + "b" * 256 + '", "dimension": ["scene"]}]', ("255",)),
        ("vbench-2.0", "[", ("no JSON",)),
        ("prompts", "one\n\nthree\n", ("line 2", "words")),
        ("prompts", "\n", ("no line",)),
    ],
)
def test_a_file_of_another_format_is_refused_with_its_line(name, text, fragments, tmp_path):
    file = tmp_path / "prompts.json"
    file.write_text(text)
    with pytest.raises(ValueError, match="allowed") as caught:
        read_suite(name, file)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_a_list_that_begins_with_a_mark_of_bytes_has_the_seeds_of_one_without(tmp_path):
    for name, coding in {"plain": "utf-8", "marked": "utf-8-sig"}.items():
        (tmp_path / name).write_text("a bench\n", encoding=coding)
    assert read_suite("prompts", tmp_path / "plain") == read_suite("prompts", tmp_path / "marked")


def test_a_kind_is_refused_where_the_suite_knows_its_own(refuses):
    for name, file in FILES.items():
        with refuses("kind", "'video'", name):
            read_suite(name, file, kind="video")


def test_a_prompt_of_two_dimensions_has_as_many_videos_as_the_one_that_wants_more(tmp_path):
    still = {"prompt_en": "a bench", "dimension": ["temporal_flickering"]}
    other = {"prompt_en": "a bench", "dimension": ["scene"]}
    for order in ([still, other], [other, still]):
        (tmp_path / "info.json").write_text(json.dumps(order))
        assert len(read_suite("vbench", tmp_path / "info.json").units) == 25


def test_prompts_that_an_evaluator_would_read_otherwise_are_refused(tmp_path, refuses):
    (tmp_path / "color_val.txt").write_text("a snake_case bench\n")
    with refuses("color_val.txt, line 1", "_"):
        read_suite("t2i-compbench", tmp_path)
    (tmp_path / "a.b.txt").write_text("a bench")
    with refuses("a.b.txt", "dots"):
        read_suite("dpg-bench", tmp_path)
    with refuses("prompts", "'colour'"):
        (tmp_path / "colour_val.txt").write_text("a bench\n")
        read_suite("t2i-compbench", tmp_path / "colour_val.txt")
    long = [{"prompt_en": "b" * 190 + end, "dimension": ["Material"]} for end in "cd"]
    (tmp_path / "info.json").write_text(json.dumps(long))
    with refuses("files", "no two prompts"):  # equal up to the 180th letter
        read_suite("vbench-2.0", tmp_path / "info.json")
    (tmp_path / "latin.txt").write_bytes("façade".encode("latin-1"))
    with refuses("latin.txt", "UTF-8"):
        read_suite("prompts", tmp_path / "latin.txt")
    with refuses("samples", "geneval"):
        read_suite("geneval", FILES["geneval"], samples=2)
    with refuses("suite", "'gen'"):
        read_suite("gen", tmp_path)


def test_without_a_file_the_packages_own_is_taken_or_it_is_said_where_one_is(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="djghosh13/geneval"):
        read_suite("geneval")
    (tmp_path / "vbench").mkdir()
    (tmp_path / "vbench" / "__init__.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="Vchitect/VBench"):
        read_suite("vbench")
    (tmp_path / "vbench" / "VBench_full_info.json").write_bytes(FILES["vbench"].read_bytes())
    assert read_suite("vbench") == read_suite("vbench", FILES["vbench"])


def test_rewritten_prompts_change_what_is_read_and_neither_names_nor_seeds(tmp_path, refuses):
    suite = read_suite("geneval", FILES["geneval"])
    prompts = sorted({unit.prompt for unit in suite.units})
    told = [{"prompt": prompt, "dense_prompt": prompt + ", sharp"} for prompt in prompts]
    (tmp_path / "dense.json").write_text(json.dumps(told))
    dense = suite.rewritten(read_rewritten(tmp_path / "dense.json"))
    for old, new in zip(suite.units, dense.units, strict=True):
        assert new.text == old.prompt + ", sharp"
        assert (new.files, dense.seeds(new)) == (old.files, suite.seeds(old))
    (tmp_path / "dense.json").write_text(json.dumps({prompts[0]: "a bench"}))
    with refuses("rewritten", "8 prompts less"):
        suite.rewritten(read_rewritten(tmp_path / "dense.json"))
    (tmp_path / "dense.json").write_text("[1]")
    with refuses("dense.json"):
        read_rewritten(tmp_path / "dense.json")


@pytest.mark.parametrize(
    ("argument", "kind", "units"),
    [
        ("kind", "sound", [((0,), ("a.png",))]),
        ("units", "picture", []),
        ("numbers", "picture", [((0, 1), ("a.png",))]),
        ("files", "picture", [((0,), ())]),
        ("files", "video", [((0,), ("a.png",))]),
        ("files", "picture", [((0,), ("../a.png",))]),
        ("files", "picture", [((0,), ("a\n.png",))]),
        ("files", "picture", [((0,), ("a.png",)), ((1,), ("a.png",))]),
    ],
)
def test_a_suite_refuses_what_no_evaluator_reads(argument, kind, units, refuses):
    with refuses(argument):
        Suite("mine", kind, tuple(Unit("a", numbers, files, "a") for numbers, files in units))


def test_the_samples_of_a_grid_stand_in_reading_order(tmp_path):
    suite = Suite("mine", "picture", (Unit("a", (0, 1, 2, 3), ("a.png",), "a"),))
    plan_suite(suite, tmp_path, {})
    shades = iter((10, 20, 30, 40))
    sample_units(tmp_path, lambda text, seed: np.full((1, 2, 2, 3), next(shades), np.uint8))
    with Image.open(tmp_path / "mine" / "a.png") as grid:
        shown = np.asarray(grid)[..., 0]
    assert (shown[::2, ::2] == [[10, 20], [30, 40]]).all()
    assert not check_samples(suite, tmp_path / "mine")


def test_a_share_by_any_number_of_tasks_is_the_same_work(tmp_path):
    suite = listed(tmp_path, 7)
    for tasks in (1, 3):
        out = tmp_path / str(tasks)
        plan_suite(suite, out, {})
        for rank in reversed(range(tasks)):
            before = len(units_left(out))
            sample_units(out, square, rank=rank, tasks=tasks)
            assert before - len(units_left(out)) == len(suite.units[rank::tasks])
    assert contents(tmp_path / "1" / "prompts") == contents(tmp_path / "3" / "prompts")


def test_a_unit_that_fails_is_recorded_the_rest_is_made_and_retry_takes_it_alone(tmp_path):
    suite = listed(tmp_path, 4)
    plan_suite(suite, tmp_path, {})
    asked = []

    def fails(text: str, seed: int) -> np.ndarray:
        asked.append(text)
        if text in ("prompt 1", "prompt 2"):
            raise RuntimeError("no memory")
        return square(text, seed)

    (failure, _) = sample_units(tmp_path, fails)
    assert (failure.file, failure.error) == ("00001-0.png", "RuntimeError: no memory")
    assert len(contents(tmp_path / "prompts")) == 2
    assert [f.file for f in failed_units(tmp_path)] == ["00001-0.png", "00002-0.png"]
    assert units_left(tmp_path) == []
    assert sample_units(tmp_path, square) == []
    assert len(contents(tmp_path / "prompts")) == 2  # as asked: failed ones wait for `retry`
    (tmp_path / "prompts" / "00003-0.png").unlink()
    assert (units_left(tmp_path), units_left(tmp_path, retry=True)) == ([3], [1, 2])
    asked.clear()
    sample_units(tmp_path, lambda text, seed: asked.append(text) or square(text, seed), retry=True)
    assert asked == ["prompt 1", "prompt 2"]
    assert list(failed_units(tmp_path)) == []
    sample_units(tmp_path, square)
    assert not check_samples(suite, tmp_path / "prompts")


def test_a_text_beside_the_samples_that_is_damaged_is_written_anew(tmp_path):
    suite = read_suite("geneval", FILES["geneval"])
    plan_suite(suite, tmp_path, {})
    file = tmp_path / "geneval" / "00000" / "metadata.jsonl"
    before = file.read_bytes()
    file.write_bytes(b"\xff\xfe")
    plan_suite(suite, tmp_path, {})
    assert file.read_bytes() == before


def test_a_prompt_with_line_ends_of_unicode_stays_one(tmp_path):
    (tmp_path / "prompts.txt").write_text("a\u2028b\nc\u2029d\x85e\x0cf\n", encoding="utf-8")
    suite = read_suite("prompts", tmp_path / "prompts.txt")
    plan_suite(suite, tmp_path, {})
    assert read_plan(tmp_path)[0] == suite


def test_a_full_disk_ends_the_work_and_leaves_whole_files_alone(tmp_path, largest_file):
    suite = listed(tmp_path, 3)
    plan_suite(suite, tmp_path, {})

    def grows(text: str, seed: int) -> np.ndarray:
        side = 64 if text == "prompt 1" else 8
        return np.random.default_rng(seed).integers(0, 255, (1, side, side, 3), dtype=np.uint8)

    with largest_file(4000), pytest.raises(OSError, match="large"):
        sample_units(tmp_path, grows)
    assert list(contents(tmp_path / "prompts")) == ["00000-0.png"]
    assert list(failed_units(tmp_path)) == []
    assert units_left(tmp_path) == [1, 2]


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        getattr(torch, "AcceleratorError", torch.cuda.OutOfMemoryError)("device-side assert"),
    ],
)
def test_a_gpu_that_is_full_or_broken_ends_the_work_and_no_prompt_counts_as_failed(tmp_path, error):
    plan_suite(listed(tmp_path, 3), tmp_path, {})

    def fails(text: str, seed: int) -> np.ndarray:
        raise error

    with pytest.raises(type(error)):
        sample_units(tmp_path, fails)
    assert list(failed_units(tmp_path)) == []
    assert units_left(tmp_path) == [0, 1, 2]


def test_frames_that_the_evaluator_would_cut_wrongly_are_failures(tmp_path):
    plan_suite(read_suite("dpg-bench", FILES["dpg-bench"]), tmp_path / "wide", {})
    wide = sample_units(tmp_path / "wide", lambda text, seed: np.zeros((1, 4, 6, 3), np.uint8))
    assert [f.error for f in wide] == [
        "ValueError: samples: got '6 x 4', allowed: squares, into which the evaluator cuts the grid"
    ] * 2
    plan_suite(listed(tmp_path, 1), tmp_path / "clip", {})
    (clip,) = sample_units(tmp_path / "clip", lambda text, seed: np.zeros((2, 4, 4, 3), np.uint8))
    assert "1 of a picture" in clip.error


def test_check_finds_what_is_missing_strange_broken_or_of_another_size(tmp_path, bomb):
    suite = read_suite("geneval", FILES["geneval"])
    plan_suite(suite, tmp_path, {})
    sample_units(tmp_path, square)
    folder = tmp_path / "geneval"
    assert check_samples(suite, folder) == []
    (folder / "00000" / "samples" / "0000.png").unlink()
    (folder / "00000" / "samples" / "0000.jpg").touch()
    (folder / "00001" / "samples" / "0001.png").write_bytes(b"\x89PNG\r\n")
    Image.new("RGB", (9, 8)).save(folder / "00002" / "samples" / "0002.png")
    (folder / "00002" / "metadata.jsonl").write_text("{}\n")
    (folder / "00002" / "samples" / "0003.png").write_bytes(bomb)
    problems = check_samples(suite, folder)
    assert [problem.partition(" (")[0] for problem in problems] == [
        "00000/samples/0000.png: missing",
        "00000/samples/0000.jpg: does not belong there",
        "00002/metadata.jsonl: another text",
        "00001/samples/0001.png: cannot be read",
        "00002/samples/0003.png: cannot be read",
        "00002/samples/0002.png: 9 x 8, others 8 x 8",
    ]
    assert len(check_samples(suite, tmp_path / "nothing")) == 15


def test_another_plan_is_refused_once_there_is_a_sample(tmp_path, refuses):
    suite = listed(tmp_path, 2)
    plan_suite(suite, tmp_path, {"steps": 1})
    plan_suite(suite, tmp_path, {"steps": 2})  # nothing was made with the other
    assert read_plan(tmp_path) == (suite, {"steps": 2})
    sample_units(tmp_path, square)
    with refuses("out", "steps: 3 (was 2)"):
        plan_suite(suite, tmp_path, {"steps": 3})
    with refuses("out", "units"):
        plan_suite(listed(tmp_path, 3), tmp_path, {"steps": 2})


def test_a_name_that_the_file_system_refuses_is_found_before_the_work(tmp_path, monkeypatch):
    suite = read_suite("vbench", FILES["vbench"])
    usual = Path.touch

    def refusing(self, *arguments):
        if "ç" in self.name:
            raise OSError("Invalid argument")
        return usual(self, *arguments)

    monkeypatch.setattr(Path, "touch", refusing)
    with pytest.raises(ValueError, match="a file system that takes 'A tranquil tableau"):
        plan_suite(suite, tmp_path, {})


def test_names_that_the_file_system_takes_for_one_are_found_before_the_work(tmp_path, monkeypatch):
    infos = [{"prompt_en": f"{a} fantasy landscape", "dimension": ["color"]} for a in ("A", "a")]
    (tmp_path / "info.json").write_text(json.dumps(infos))
    suite = read_suite("vbench", tmp_path / "info.json")
    plan_suite(suite, tmp_path / "takes-both", {})
    usual = Path.touch
    monkeypatch.setattr(Path, "touch", lambda self: usual(self.with_name(self.name.lower())))
    with pytest.raises(ValueError, match=r"a file system that takes 'A fantasy landscape-0\.mp4'"):
        plan_suite(suite, tmp_path / "folds", {})


def test_the_work_ends_when_its_run_has(tmp_path):
    suite = listed(tmp_path, 3)
    plan_suite(suite, tmp_path, {})
    sample_units(tmp_path, square, ended=lambda: bool(contents(tmp_path / "prompts")))
    assert len(contents(tmp_path / "prompts")) == 1
    gone = []

    def swept(text: str, seed: int) -> np.ndarray:
        gone.append(text)  # another run, begun meanwhile, takes the parts of files away
        raise RuntimeError("no such part")

    sample_units(tmp_path, swept, ended=lambda: bool(gone))
    assert gone == ["prompt 1"]
    assert list(failed_units(tmp_path)) == []


def test_memory_does_not_grow_with_the_units_made(tmp_path):
    plan_suite(listed(tmp_path, 120), tmp_path, {})
    held = {}

    def measured(text: str, seed: int) -> np.ndarray:
        if text in ("prompt 40", "prompt 119"):
            gc.collect()
            held[text] = tracemalloc.get_traced_memory()[0]
        return np.full((1, 64, 64, 3), seed % 256, np.uint8)

    tracemalloc.start()
    try:
        sample_units(tmp_path, measured)
    finally:
        tracemalloc.stop()
    assert held["prompt 119"] - held["prompt 40"] < 64 * 64 * 3  # a picture of 79


def test_geneval_is_read_by_tag_and_overall_is_the_mean_over_tags(tmp_path):
    tags = {"single_object": (1, 1, 1, 0), "two_object": (1, 0), "counting": (0,), "colors": (1,),
            "position": (0,), "color_attr": (1, 0)}  # fmt: skip
    lines = [{"tag": t, "correct": bool(c), "filename": "x"} for t, cs in tags.items() for c in cs]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    figures = read_scores("geneval", tmp_path / "results.jsonl")
    assert figures["single_object"] == 75
    assert figures["overall"] == pytest.approx((75 + 50 + 0 + 100 + 0 + 50) / 6)
    (tmp_path / "results.jsonl").write_text(json.dumps(lines[0]) + "\n")
    assert read_scores("geneval", tmp_path / "results.jsonl") == {"single_object": 100}


def test_dpg_bench_is_read_from_its_last_summary(tmp_path):
    text = (
        "x/0.png, 0.5, 0.5, 0.5, 0.5, 0.5\nModel: x\nL1 category scores:\n\tentity: {0}\n"
        "\tglobal: 80.5\nL2 category scores:\n\tentity - whole: 70.0\nImage path: x\n"
        "Save results to: y\nDPG-Bench score: {0}\n"
    )
    file = tmp_path / "x_results.txt"
    file.write_text(text.format(10.0) + text.format(82.25))
    expected = {"entity": 82.25, "global": 80.5, "overall": 82.25}
    assert read_scores("dpg-bench", file) == pytest.approx(expected)
    file.write_text("x/0.png, 0.5, 0.5, 0.5, 0.5, 0.5\n")  # it was stopped
    with pytest.raises(ValueError, match="DPG-Bench score"):
        read_scores("dpg-bench", file)


def test_t2i_compbench_is_read_where_each_categorys_evaluator_writes(tmp_path):
    for place, answers in {
        "color/annotation_blip": ("0.2500", "0.7500"),
        "spatial/labels/annotation_obj_detection_2d": (0.25,),
        "complex/annotation_3_in_1": (0.3,),
    }.items():
        told = [{"question_id": n, "answer": answer} for n, answer in enumerate(answers)]
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "vqa_result.json").write_text(json.dumps(told))
    expected = {"color": 50, "spatial": 25, "complex": 30}
    assert read_scores("t2i-compbench", tmp_path) == pytest.approx(expected)


QUALITY = {
    "subject_consistency": (0.1462, 1), "background_consistency": (0.2615, 1),
    "temporal_flickering": (0.6293, 1), "motion_smoothness": (0.706, 0.9975),
    "aesthetic_quality": (0, 1), "imaging_quality": (0, 1), "dynamic_degree": (0, 1),
}  # fmt: skip
SEMANTIC = {
    "object_class": (0, 1), "multiple_objects": (0, 1), "human_action": (0, 1), "color": (0, 1),
    "spatial_relationship": (0, 1), "scene": (0, 0.8222), "appearance_style": (0.0009, 0.2855),
    "temporal_style": (0, 0.364), "overall_consistency": (0, 0.364),
}  # fmt: skip


def test_vbench_is_scaled_and_weighted_as_its_leaderboard(tmp_path):
    best = {n: [high, []] for n, (_, high) in (QUALITY | SEMANTIC).items()}
    (tmp_path / "a_eval_results.json").write_text(json.dumps(best))
    figures = read_scores("vbench", tmp_path)
    whole = {"quality": 100, "semantic": 100, "total": 100}
    assert {n: figures[n] for n in whole} == pytest.approx(whole)
    # The dynamic degree weighs half, quality four times as much as semantic.
    still = best | {"dynamic_degree": [0, []], "scene": [0, []]}
    (tmp_path / "a_eval_results.json").write_text(json.dumps(still))
    figures = read_scores("vbench", tmp_path / "a_eval_results.json")
    assert figures["quality"] == pytest.approx(100 * 6 / 6.5)
    assert figures["semantic"] == pytest.approx(100 * 8 / 9)
    assert figures["total"] == pytest.approx(100 * (4 * 6 / 6.5 + 8 / 9) / 5)
    worst = {n: [low, []] for n, (low, _) in (QUALITY | SEMANTIC).items()}
    (tmp_path / "a_eval_results.json").write_text(json.dumps(worst))
    assert read_scores("vbench", tmp_path)["total"] == pytest.approx(0)


def test_an_overall_figure_of_less_than_all_is_none(tmp_path, refuses):
    part = {"subject_consistency": [0.9, []]}
    (tmp_path / "a_eval_results.json").write_text(json.dumps(part))
    assert read_scores("vbench", tmp_path) == {"subject_consistency": pytest.approx(90)}
    (tmp_path / "b_eval_results.json").write_text(json.dumps({"subject_consistency": [0.8, []]}))
    with refuses("result", "twice"):
        read_scores("vbench", tmp_path)
    with refuses("result", "evaluator of geneval"):
        read_scores("geneval", tmp_path / "a_eval_results.json")
    with pytest.raises(FileNotFoundError, match="results of t2i-compbench"):
        read_scores("t2i-compbench", tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_scores("vbench", tmp_path / "none.json")


@pytest.mark.parametrize(
    ("suite", "place", "content", "name"),
    [
        ("geneval", "a", b'{"tag": "colors", "correct": "false"}', "result"),
        ("geneval", "a", b"\xff\xfe", "result"),
        ("dpg-bench", "a", b"\xff\xfe", "result"),
        ("geneval", "a/b", b"", "result"),
        ("dpg-bench", "a/b", b"", "result"),
        ("dpg-bench", "a", b"DPG-Bench score: 822.5\n", "overall"),
        ("t2i-compbench", "a/color/annotation_blip/vqa_result.json", b"[]", "result"),
        (
            "t2i-compbench",
            "a/color/annotation_blip/vqa_result.json",
            b'[{"answer": "x"}]',
            "result",
        ),
        ("t2i-compbench", "a/color/annotation_blip/vqa_result.json", b'[{"answer": 25}]', "color"),
        ("vbench", "a", b'{"scene": ["high", []]}', "result"),
        ("vbench", "a", b'{"scene": [52.1, []]}', "scene"),
        ("vbench-2.0", "a", b'{"Material": [-0.5, []]}', "Material"),
    ],
)
def test_a_result_of_another_format_is_refused_by_name(
    suite, place, content, name, tmp_path, refuses
):
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).write_bytes(content)
    with refuses(name):
        read_scores(suite, tmp_path / "a")


def test_vbench2_is_the_mean_of_five_groups(tmp_path):
    groups = {
        0.1: ("Composition", "Diversity"),
        0.2: ("Instance_Preservation", "Motion_Rationality"),
        0.3: ("Camera_Motion", "Complex_Landscape", "Complex_Plot", "Dynamic_Attribute",
              "Dynamic_Spatial_Relationship", "Human_Interaction", "Motion_Order_Understanding"),
        0.4: ("Human_Anatomy", "Human_Clothes", "Human_Identity"),
        0.5: ("Material", "Mechanics", "Multi-View_Consistency", "Thermotics"),
    }  # fmt: skip
    for score, names in groups.items():  # a file each, as evaluate.sh has it
        for name in names:
            (tmp_path / name).mkdir()
            told = json.dumps({name: [score, []]})
            (tmp_path / name / "results_x_eval_results.json").write_text(told)
    figures = read_scores("vbench-2.0", tmp_path)
    assert figures["human_fidelity"] == pytest.approx(40)
    assert figures["total"] == pytest.approx(30)


def test_published_rows_agree_with_themselves_and_stand_below_ones_own():
    for row in PUBLISHED["geneval"]:
        if len(row.figures) > 1:  # the overall score is the mean of the six, each rounded
            tags = [value for name, value in row.figures.items() if name != "overall"]
            assert row.figures["overall"] == pytest.approx(np.mean(tags), abs=1)
    lines = score_table("geneval", {"ours": {"counting": 12.5, "overall": 50}}).splitlines()
    assert lines[0].startswith("| model | overall | ")
    assert lines[2].startswith("| ours | 50.00 | ")
    assert any(line.startswith("| NOVA 0.6B, 512 | 75 | –") for line in lines)
    assert all(row.source in "\n".join(lines) for row in PUBLISHED["geneval"])
    assert len({line.count("|") for line in lines}) == 1
    assert "\n| a\\|b c | 50.00 |" in score_table("geneval", {"a|b\nc": {"overall": 50}})
    assert "| 81.76 |" in score_table("dpg-bench", {})
