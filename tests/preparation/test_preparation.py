"""Videos and pictures to scores and shards: what is measured, and the bytes that come of it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from clips_of import described, make_folder, moving
from forks import begin, end

from contar._lock import locked
from contar.data import Cache
from contar.media import motion_score, read_image, read_video, write_video
from contar.preparation import (
    Preparation,
    SourceFile,
    cut_clips,
    find_files,
    gather_scores,
    join_clips,
    plan_clips,
    plan_preparation,
    ranks_left,
    read_prepared,
    read_scores,
    require_installed,
    score_files,
    scoring,
    shards_left,
)
from recipes._cli.engines import Task, Work
from recipes._cli.preparing import prepare

for package in ("datatrove", "imagehash", "pyarrow", "rapidocr", "scenedetect"):
    pytest.importorskip(package)
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

KEPT = "kind == 'picture' or motion > 0.5 and not duplicate and caption_length > 0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_folder(tmp_path_factory.mktemp("clips") / "in")


def planned(folder: Path, out: Path, tasks: int = 1, **asked: Any) -> Path:
    plan_preparation(*find_files(folder), out, Preparation(**asked), tasks=tasks)
    return out


@pytest.fixture(scope="module")
def scored(folder: Path, tmp_path_factory) -> Path:
    """A run of one task, whose clips are cut as well; tests only read it."""
    out = planned(folder, tmp_path_factory.mktemp("scored") / "out")
    score_files(out)
    gather_scores(out)
    plan_clips(out, KEPT, shard=2)
    cut_clips(out)
    join_clips(out)
    return out


@pytest.fixture
def quick(monkeypatch) -> Callable[..., list[str]]:
    """Have files scored by a function instead of the steps; it is noted which."""
    from contar.preparation import Chain

    seen: list[str] = []

    def shots(self: Chain, root: Path, file: SourceFile) -> list[dict[str, Any]]:
        seen.append(file.name)
        if (root / file.name).is_file() and (root / file.name).read_bytes() == b"broken":
            raise ValueError("broken")
        return [{"name": file.name, "shot": 0, "hash": f"{len(file.name):048x}"}]

    monkeypatch.setattr(Chain, "shots", shots)
    return seen  # type: ignore[return-value]


def stop_after(count: int) -> Callable[[], bool]:
    """Return what says that the work has ended once it was asked `count` times."""
    asked = iter(range(count))
    return lambda: next(asked, None) is None


def contents(place: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in place.iterdir()}


def test_every_file_has_its_shots_or_its_error(folder, scored):
    rows = list(read_scores(scored))
    failed = [json.loads(line) for line in (scored / "failed.jsonl").read_text().splitlines()]
    assert [each["name"] for each in failed] == ["empty.mp4", "no.jpg", "short.mp4"]
    assert "cut off" in failed[2]["error"]
    names = [(row["name"], row["shot"]) for row in rows]
    assert names == sorted(names)
    assert {name for name, _ in names} | {each["name"] for each in failed} == {
        file.name for file in find_files(folder)[1]
    }
    assert [(r["start"], r["frames"]) for r in rows if r["name"] == "cut.mp4"] == [(0, 8), (8, 8)]


def test_scores_are_what_their_steps_say(folder, scored):
    of = {(row["name"], row["shot"]): row for row in read_scores(scored)}
    first = of["a3.mp4", 0]
    assert (first["width"], first["height"], first["fps"], first["seconds"]) == (48, 48, 8.0, 1.0)
    assert first["motion"] == motion_score(folder / "a3.mp4")  # all its pairs are looked at
    second = read_video(folder / "cut.mp4", start=8)[0]
    assert of["cut.mp4", 1]["motion"] == motion_score(second)
    assert (first["caption"], first["caption_length"]) == ("a texture, a3", 13)
    assert of["a4.mp4", 0]["caption"] is of["a4.mp4", 0]["caption_length"] is None
    picture = of["letters.png", 0]
    assert (picture["kind"], picture["motion"], picture["seconds"]) == ("picture", None, None)
    assert 0.1 < picture["text_area"] < 0.45  # of 0.42 that are black behind the letters
    assert all(row["text_area"] == 0 for row in of.values() if row["kind"] == "video")
    alike = {name: row["duplicate_of"] for (name, _), row in of.items() if row["duplicate"]}
    assert alike == {"copy.mp4": "a2.mp4#0", "more/near.mp4": "a3.mp4#0"}


def test_bytes_are_the_same_in_three_tasks_that_were_stopped(folder, scored, tmp_path):
    out = planned(folder, tmp_path / "out", tasks=3)
    for rank in range(3):
        score_files(out, rank=rank, tasks=3, ended=stop_after(2))
        part = scoring.journal_of(out, rank).with_suffix(".part")
        assert part.read_bytes().count(b"\n") == 2
        with part.open("ab") as stream:
            stream.write(b'{"shots": [{"na')  # as a kill leaves it
    assert ranks_left(out) == [0, 1, 2]
    with pytest.raises(FileNotFoundError):
        gather_scores(out)
    for rank in (2, 0, 1):
        score_files(out, rank=rank, tasks=3)
    assert ranks_left(out) == []
    gather_scores(out)
    for name in ("scores.parquet", "failed.jsonl"):
        assert (out / name).read_bytes() == (scored / name).read_bytes()

    plan_clips(out, KEPT, shard=2)
    cut_clips(out, rank=1, tasks=2, ended=stop_after(1))
    assert shards_left(out) == [0, 1, 2]
    cut_clips(out, rank=1, tasks=2)
    with pytest.raises(FileNotFoundError):
        join_clips(out)
    cut_clips(out, rank=0, tasks=2)
    assert join_clips(out) == (6, [])
    assert join_clips(out) == (6, [])
    assert contents(out / "clips") == contents(scored / "clips")


def test_shards_are_a_cache_of_what_the_condition_keeps(folder, scored):
    cache = Cache(scored / "clips")
    kept = [(sample.facts["name"], sample.facts["shot"]) for sample in cache]
    names = ["a1.mp4", "a2.mp4", "a3.mp4", "cut.mp4", "cut.mp4", "letters.png"]
    assert kept == list(zip(names, [0, 0, 0, 0, 1, 0], strict=True))
    for number in range(5):
        frames, rate = read_prepared(cache[number])
        start = 8 * kept[number][1]
        source = read_video(folder / kept[number][0], start=start, frames=8)[0]
        assert (frames.shape, rate) == (source.shape, 8.0)
        assert (frames.float() - source.float()).abs().mean() < 6  # encoded a second time
    picture, rate = read_prepared(cache[5])
    assert torch.equal(picture[0], read_image(folder / "letters.png"))
    assert rate is None
    assert cache[0].facts["caption"] == "a texture, a1"
    assert cache.made_with["condition"] == KEPT


def test_a_retry_takes_only_what_failed(tmp_path, quick):
    for number in range(6):
        (tmp_path / f"{number}.mp4").write_bytes(b"broken" if number in (1, 4) else b"")
    out = planned(tmp_path, tmp_path / "out", tasks=2)
    assert [score_files(out, rank=rank, tasks=2) for rank in (0, 1)] == [1, 1]
    assert gather_scores(out)[:3] == (6, 2, 4)
    (tmp_path / "4.mp4").write_bytes(b"")
    quick.clear()
    assert ranks_left(out) == []
    assert ranks_left(out, retry=True) == [0, 1]
    for rank in (0, 1):
        assert score_files(out, rank=rank, tasks=2) == 0
    assert quick == []
    assert [score_files(out, rank=rank, tasks=2, retry=True) for rank in (0, 1)] == [0, 1]
    assert quick == ["4.mp4", "1.mp4"]
    assert gather_scores(out)[:3] == (6, 1, 5)


def test_a_clip_that_fails_is_left_out_and_can_be_tried_again(folder, tmp_path):
    place = tmp_path / "in"
    place.mkdir()
    for number in range(3):
        write_video(moving(number, 3), place / f"{number}.mp4")
        (place / f"{number}.txt").write_text("moves")
    out = planned(place, tmp_path / "out", steps=("motion",))
    score_files(out)
    gather_scores(out)
    content = (place / "1.mp4").read_bytes()
    (place / "1.mp4").unlink()
    plan_clips(out, "motion >= 0", shard=1)
    cut_clips(out)
    count, failed = join_clips(out)
    assert (count, failed[0]["name"]) == (2, "1.mp4")
    assert failed[0]["error"].startswith("FileNotFoundError")
    assert [sample.facts["name"] for sample in Cache(out / "clips")] == ["0.mp4", "2.mp4"]
    assert shards_left(out) == []
    (place / "1.mp4").write_bytes(content)
    assert shards_left(out, retry=True) == [1]
    cut_clips(out)
    assert join_clips(out) == (3, [])
    assert len(Cache(out / "clips")) == 3


def test_a_full_disk_ends_the_work_and_is_no_failure_of_a_clip(scored, folder, largest_file):
    plan_clips(scored, KEPT, name="full", shard=3)
    try:
        with largest_file(500), pytest.raises(OSError, match="too large"):
            cut_clips(scored, name="full")
        assert shards_left(scored, "full") == [0, 1]
        assert not list((scored / "run" / "cut" / "full" / "parts").iterdir())
        cut_clips(scored, name="full")
        assert join_clips(scored, "full") == (6, [])
    finally:
        shutil.rmtree(scored / "run" / "cut" / "full")
        shutil.rmtree(scored / "full", ignore_errors=True)


def test_functions_of_ones_own_score_and_describe_what_only_lets_through(folder, tmp_path):
    asked: dict[str, Any] = {
        "steps": ("motion", "caption_length"),
        "only": "motion > 1",
        "stills": 2,
    }
    functions: dict[str, Any] = {
        "aesthetic": "clips_of:brightness",
        "captioner": "clips_of:described",
    }
    (tmp_path / "l.txt").write_text("".join(f"{folder}/a{n}.mp4\n" for n in (0, 2)))
    out = planned(tmp_path / "l.txt", tmp_path / "out", **asked, **functions)
    score_files(out)
    gather_scores(out)
    still, moves = read_scores(out)
    assert (still["aesthetic"], still["caption"]) == (None, "a texture, a0")
    frames = read_video(folder / "a2.mp4")[0].numpy()
    assert moves["aesthetic"] == np.mean([frames[2].mean(), frames[6].mean()])
    assert moves["caption"] == "a picture of 48 x 48" == " ".join(described([frames[0]]).split())
    assert moves["caption_length"] == 20


def test_steps_work_alone_in_a_pipeline_of_datatrove(folder):
    from contar.preparation import Frames, Hashes, Motion, Only, Probe, Shots, document_of

    data: Any = [document_of(folder / "cut.mp4", "cut.mp4")]
    condition = Only("seconds > 0.9")
    for step in (Probe(), Shots(threshold=None), condition):
        data = step(data)
    [whole] = data
    assert (whole.metadata["frames"], whole.metadata["spared"]) == (16, False)
    for step in (Shots(), Frames(pairs=0), Motion(), Hashes()):
        data = step([whole] if data is None or step.name == "shots" else data)
    shots = list(data)
    assert [shot.metadata["start"] for shot in shots] == [0, 8]
    assert all(shot.metadata["motion"] is None for shot in shots)
    assert all(len(shot.metadata["hash"]) == 48 for shot in shots)
    assert all("stills" not in shot.metadata for shot in shots)  # none is held behind the steps


def test_duplicates_are_those_of_a_comparison_of_all_with_all():
    from contar.preparation import Duplicates

    draws = np.random.default_rng(0)
    for near in (0, 1, 4, 15):
        base = draws.integers(0, 2, (6, 192), dtype=np.uint8)
        flips = draws.random((200, 192)) < near / 64 * draws.random((200, 1))
        bits = base[draws.integers(0, 6, 200)] ^ flips
        finder, stay = Duplicates(near), list[int]()
        for number, row in enumerate(bits):
            words = "".join(f"{int(''.join(map(str, w)), 2):016x}" for w in row.reshape(3, 64))
            same = [
                other
                for other in stay
                if (bits[other] ^ row).reshape(3, 64).sum(axis=1).max() <= near
            ]
            assert finder.first(words, f"{number}") == (f"{same[0]}" if same else None)
            stay += [] if same else [number]
        assert 6 <= len(stay) < 200


def test_the_memory_of_a_rank_does_not_grow_with_the_number_of_files(tmp_path, monkeypatch):
    from contar.preparation import Chain

    monkeypatch.setattr(Chain, "shots", lambda self, root, file: [{"name": file.name}])

    def peak(count: int) -> int:
        files = [SourceFile(f"{number:06d}.mp4") for number in range(count)]
        out = tmp_path / f"{count}"
        plan_preparation(tmp_path, files, out, Preparation(steps=()))
        del files
        tracemalloc.start()
        score_files(out)
        reached = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return reached

    peak(10)  # what is imported at the first call
    assert peak(1600) < peak(160) + 20_000  # 14 bytes a file


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"tasks": 3}, r"tasks: 3 \(was 2\)"),
        ({"near": 5}, r"near: 5 \(was 4\)"),
        ({"steps": ("motion",)}, r"steps: \['motion'\] \(was"),
    ],
)
def test_a_folder_begun_otherwise_is_refused(folder, tmp_path, other, said):
    out = planned(folder, tmp_path / "out", tasks=2)
    assert planned(folder, out, tasks=2) == out
    with pytest.raises(ValueError, match=f"out: got .*begun otherwise: {said}"):
        planned(folder, out, **{"tasks": 2, **other})
    with pytest.raises(ValueError, match="tasks: got 3, allowed: 2, as begun with"):
        score_files(out, tasks=3)
    (tmp_path / "l.txt").write_text("a.mp4")
    with pytest.raises(ValueError, match=r"files: .*count: 1 \(was 12\)"):
        planned(tmp_path / "l.txt", out, tasks=2)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"steps": ("moton",)}, "steps: got 'moton'.*'motion'"),
        ({"stills": 0}, "stills: got 0"),
        ({"near": 16}, "near: got 16"),
        ({"cut": 256}, "cut: got 256"),
        ({"only": "motion > 1"}, "only: got .*none without"),
        ({"only": "duplicate", "captioner": "a:b"}, "unknown column 'duplicate'"),
        ({"steps": (), "tokenizer": "a"}, "tokenizer: got 'a'"),
    ],
)
def test_what_cannot_be_asked_is_refused(asked, said):
    with pytest.raises(ValueError, match=f"(?s){said}"):
        Preparation(**asked)


@pytest.mark.parametrize(
    "place", ["clips_of", "clips_of:none", "none_of:this", ":f", "json:__doc__"]
)
def test_a_function_that_is_not_there_is_refused(place):
    from contar.preparation import Aesthetic, Captioner

    for step in (Aesthetic, Captioner):
        with pytest.raises(ValueError, match=r"(aesthetic|captioner): got .*package:function"):
            step(place)


def test_a_function_whose_module_misses_another_says_which(tmp_path, monkeypatch):
    from contar.preparation import Captioner

    (tmp_path / "needs_more.py").write_text("import none_of_this\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="none_of_this"):
        Captioner("needs_more:tell")


@pytest.mark.parametrize("answer", ["", " \n", None, 3])
def test_a_captioner_that_says_nothing_is_refused(answer, tmp_path, monkeypatch):
    from contar.preparation import Captioner

    (tmp_path / "says_nothing.py").write_text(f"def tell(stills):\n    return {answer!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "says_nothing", raising=False)
    with pytest.raises(ValueError, match="captioner: got "):
        Captioner("says_nothing:tell").score({"stills": []})


def test_what_is_not_installed_is_said_before_the_work(monkeypatch):
    from contar.preparation import settings

    require_installed(Preparation())
    monkeypatch.setattr(settings, "find_spec", lambda name: None if name in "cv2imagehash" else 1)
    with pytest.raises(ImportError, match=r"cv2, imagehash: not.*contar\[scale,video\]"):
        require_installed(Preparation())
    require_installed(Preparation(steps=("shots",)))


def test_a_package_that_misses_ends_the_work_and_is_no_failure_of_a_file(tmp_path, monkeypatch):
    from contar.preparation import Chain

    def misses(self: Chain, root: Path, file: SourceFile) -> list[dict[str, Any]]:
        raise ImportError("scenedetect is not installed")

    monkeypatch.setattr(Chain, "shots", misses)
    (tmp_path / "a.mp4").touch()
    out = planned(tmp_path, tmp_path / "out")
    with pytest.raises(ImportError):
        score_files(out)
    assert ranks_left(out) == [0]


def test_a_task_waits_for_one_of_a_killed_run(tmp_path, monkeypatch, quick):
    (tmp_path / "a.mp4").touch()
    out = planned(tmp_path, tmp_path / "out")
    place = out / "run" / "scored" / "00000"
    monkeypatch.setattr(scoring, "_PATIENCE", 0.0)
    with locked(place), pytest.raises(ValueError, match="another run goes on"):
        score_files(out)
    monkeypatch.setattr(scoring, "_PATIENCE", 60.0)
    held, waited, usual = threading.Event(), threading.Event(), time.sleep
    monkeypatch.setattr(scoring.time, "sleep", lambda _: (waited.set(), usual(0.01)))

    def hold() -> None:
        with locked(place):
            held.set()
            waited.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    assert held.wait(60)
    assert score_files(out) == 0
    assert waited.is_set()
    other.join()
    assert quick == ["a.mp4"]


def test_conditions_that_keep_nothing_or_lack_a_caption_leave_no_trace(scored):
    before = sorted(file.name for file in (scored / "run").iterdir())
    with pytest.raises(ValueError, match=r"apply: got .*a4.mp4#0 without a caption"):
        plan_clips(scored, "motion > 3", name="other")
    with pytest.raises(ValueError, match=r"apply: got .*keeps nothing"):
        plan_clips(scored, "motion > 99", name="other")
    with pytest.raises(ValueError, match="name: got 'run'"):
        plan_clips(scored, "motion > 1", name="run")
    with pytest.raises(ValueError, match="begun otherwise: condition"):
        plan_clips(scored, "motion > 1", shard=2)
    assert sorted(file.name for file in (scored / "run").iterdir()) == before


def test_the_command_line_goes_the_whole_way(main, tmp_path, capsys, folder):
    place, out = tmp_path / "in", str(tmp_path / "out")
    place.mkdir()
    for name in ("a1.mp4", "a1.txt", "empty.mp4"):
        (place / name).write_bytes((folder / name).read_bytes())
    score = ["prepare", str(place), "--out", out, "--steps", "motion", "caption_length"]
    main(*score)
    said, told = capsys.readouterr()
    assert "2 of 2: empty.mp4" in told
    assert "datatrove" not in told  # whose banner and traces are its own
    assert f"1 shots of 1 files, of which 0 are duplicates: {out}/scores.parquet" in said
    assert "1 files failed" in said
    main("prepare", "--apply", "motion > 0.5 and caption_length <= 256", "--out", out)
    assert f"1 clips: {out}/clips" in capsys.readouterr().out
    assert len(Cache(Path(out) / "clips")) == 1

    for words, refusal in (
        ([*score, "--tasks", "2"], r"--out: got .*tasks: 2 \(was 1\)"),
        ([*score, "moton"], "--steps: got 'moton'"),
        ([*score, "--apply", "motion > 1"], "--apply: got .*one or the other"),
        (["prepare", "--out", out], "--source|source: got 'none'"),
        (["prepare", "--out", out, "--apply", "moton > 1"], "unknown column 'moton'"),
        (["prepare", "--out", out, "--retry", "--tasks", "2"], "--tasks: got 2, allowed: 1"),
        (["prepare", "--out", f"{out}/none", "--retry"], "no preparation"),
        ([*score, "--workers", "2"], "--workers: got 2"),
        ([*score, "--aesthetic", "none_of:this"], "--aesthetic: got"),
    ):
        with pytest.raises(SystemExit, match=f"contar: .*{refusal}"):
            main(*words)
    with locked(Path(out) / "run"), pytest.raises(SystemExit, match="another run goes on"):
        main(*score)


def test_a_task_whose_command_is_gone_ends_without_the_mark_of_an_engine(tmp_path, quick):
    (tmp_path / "a.mp4").touch()
    out = planned(tmp_path, tmp_path / "out")

    def ends_with(parent: int) -> int:
        task = Task(str(out / "run"), parent, partial(score_files, out))
        return end(begin(lambda: task(None, 0, 1)))

    gone = subprocess.Popen(["true"])
    gone.wait()
    assert ends_with(gone.pid) == 1
    assert ranks_left(out) == [0]
    assert ends_with(os.getpid()) == 0
    assert ranks_left(out) == []


def test_ten_kills_at_random_moments_leave_the_bytes_as_they_are(folder, scored, tmp_path):
    out = planned(folder, tmp_path / "out", tasks=2)
    draws = np.random.default_rng(0)

    def score() -> None:
        for rank in (1, 0):
            score_files(out, rank=rank, tasks=2)

    def cut() -> None:
        for rank in (1, 0):
            cut_clips(out, rank=rank, tasks=2)

    def killed(work: Callable[[], None], longest: float) -> bool:
        code = end(begin(work, killed_after=draws.uniform(0, longest)))
        assert code in (0, -signal.SIGALRM)
        return code != 0

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # a forked process has none of the others
    try:
        assert sum(killed(score, 0.1) for _ in range(7)) >= 3
        score()
        gather_scores(out)
        plan_clips(out, KEPT, shard=2)
        assert sum(killed(cut, 0.03) for _ in range(3)) >= 1
        cut()
    finally:
        cv2.setNumThreads(threads)
    assert join_clips(out) == (6, [])
    for name in ("scores.parquet", "failed.jsonl"):
        assert (out / name).read_bytes() == (scored / name).read_bytes()
    assert contents(out / "clips") == contents(scored / "clips")


def killed_midway(folder: Path, out: Path, address: str) -> bool:
    """Kill the command on a Ray cluster, two tasks at a time, once it has scored a file.

    The command alone: Ray ends what it began. Return whether there were files left to score.
    """
    command = [sys.executable, "-m", "recipes.cli", "prepare", str(folder), "--out", str(out)]
    command += ["--tasks", "3", "--workers", "2", "--engine", "ray"]
    command += ["--engine-options", "mem_per_cpu_gb=1"]
    environment, before = {**os.environ, "RAY_ADDRESS": address}, journaled(out)
    with (out.parent / "errors.txt").open("w+") as errors:
        running = subprocess.Popen(command, env=environment, stderr=errors)
        while journaled(out) <= before and running.poll() is None:
            time.sleep(0.01)
        running.kill()
        code = running.wait()
        errors.seek(0)
        assert code in (0, -signal.SIGKILL), errors.read()
    return code != 0 and journaled(out) < 12


def journaled(out: Path) -> int:
    """Return how many files are scored."""
    lines = 0
    for file in (out / "run" / "scored").glob("*.*"):
        with contextlib.suppress(FileNotFoundError):  # renamed meanwhile, or a lock let go of
            lines += file.read_bytes().count(b"\n")
    return lines


@pytest.mark.scale
@pytest.mark.filterwarnings("default")  # of Ray's own threads
def test_ray_makes_the_same_bytes_also_after_kills(folder, scored, tmp_path, ray_cluster):
    import ray

    how = Work("ray", tasks=3, workers=2, engine_options=ray_cluster)
    address = ray.get_runtime_context().gcs_address
    tries = (tmp_path / f"killed-{number}" for number in range(5))
    killed = next(
        out for out in tries if all(killed_midway(folder, out, address) for _ in range(2))
    )
    for out in (tmp_path / "whole", killed):
        prepare(out, folder, work=how)
        prepare(out, apply=KEPT, shard=2, work=how)
        for table in ("scores.parquet", "failed.jsonl"):
            assert (out / table).read_bytes() == (scored / table).read_bytes()
        assert contents(out / "clips") == contents(scored / "clips")
