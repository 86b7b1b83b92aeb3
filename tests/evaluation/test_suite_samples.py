"""`contar sample` and `contar scores`, as a person runs them: engines, kills, refusals."""

import json
import os
import random
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from evaluators import FILES, contents, judged
from forks import begin
from PIL import Image

from contar._lock import locked
from contar.evaluation import check_samples, read_plan, read_suite
from contar.media import read_video
from recipes._cli import suites
from recipes._cli.engines import Work
from recipes._cli.pipes import Drawing, Loading

pytest.importorskip("datatrove")
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

QUICK = ("--steps", "1", "--diffusion-steps", "1")


class Fake:
    """A pipeline whose samples are the seed's, and that refuses 3 frames and some words."""

    def __init__(self) -> None:
        self.config = {"defaults": {"fps": 8.0, "num_frames": 33}}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.refused: tuple[str, ...] = ()

    def stream(self, text: str, **call: Any) -> None:
        if call["num_frames"] == 3:
            raise ValueError("num_frames: got 3, allowed: 1 or 5")

    def __call__(self, text: str, generator: torch.Generator, **call: Any) -> SimpleNamespace:
        self.asked.append((text, call))
        if text in self.refused:
            raise RuntimeError("no memory")
        draws = np.random.default_rng(generator.initial_seed())
        frames = draws.integers(0, 255, (call["num_frames"] or 5, 8, 8, 3), dtype=np.uint8)
        return SimpleNamespace(frames=[frames])


@pytest.fixture
def fake(monkeypatch):
    pipe = Fake()
    monkeypatch.setattr(suites, "load_once", lambda loading: pipe)
    return pipe


def listed(folder: Path, count: int) -> Path:
    file = folder / "prompts.txt"
    digits = ("zero", "one", "two", "three", "four", "five", "six")
    file.write_text("".join(f"a {digits[n % 7]} moves up, {n}\n" for n in range(count)))
    return file


def made_so_far(out: Path) -> dict[str, bytes]:
    return contents(out / "prompts") if (out / "prompts").is_dir() else {}


@pytest.mark.parametrize("name", FILES)
def test_the_official_evaluator_reads_what_the_shipped_model_made(name, main, tmp_path, capsys):
    suite = read_suite(name, FILES[name])
    frames = () if suite.kind == "picture" else ("--frames", "5")
    call = ("sample", name, "--prompts", str(FILES[name]), "--out", str(tmp_path))
    main(*call, *QUICK, *frames)
    folder = tmp_path / name
    read = {(file, unit.prompt) for unit in suite.units for file in unit.files}
    assert judged(name, folder, FILES[name], 64) == read
    assert sorted(os.listdir(tmp_path)) == sorted([name, "run"])
    lines = (tmp_path / "run" / "units.jsonl").read_text().splitlines()
    assert [tuple(json.loads(line)["seeds"]) for line in lines] == [
        suite.seeds(unit) for unit in suite.units
    ]
    main(*call, "--check")
    assert f"{len(suite.files)} files, as the evaluator wants them" in capsys.readouterr().out
    made = contents(folder)
    for unit in suite.units[::4]:  # killed before these, resumed in other shares
        (folder / unit.name).unlink()
    main(*call, *QUICK, *frames, "--tasks", "3")
    assert contents(folder) == made
    if suite.kind == "video":
        video, rate = read_video(folder / suite.files[0])
        assert video.shape == (5, 64, 64, 3)
        assert rate == 8


def run(out: Path, prompts: Path, **options: Any) -> None:
    options = {"steps": 1, "diffusion_steps": 1, **options}
    parts = {
        name: kind(**{key: options.pop(key) for key in [*options] if key in kind.__annotations__})
        for name, kind in (("drawing", Drawing), ("loading", Loading), ("work", Work))
    }
    suites.sample("prompts", prompts, out=out, frames=5, **parts, **options)


def forked(out: Path, prompts: Path, **options: Any) -> int:
    """Return a process, of a group of its own, that has the model and runs."""

    def work() -> None:
        os.setpgid(0, 0)  # here and there: of both, one is the first
        run(out, prompts, **options)

    child = begin(work)
    with suppress(PermissionError, ProcessLookupError):
        os.setpgid(child, child)
    return child


def is_at_work(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def test_bytes_are_the_same_in_one_share_or_three_by_any_workers_and_kills(tmp_path, capfd):
    prompts = listed(tmp_path, 6)
    suite = read_suite("prompts", prompts)
    run(tmp_path / "whole", prompts)
    made = contents(tmp_path / "whole" / "prompts")
    assert len(made) == len(set(made.values())) == 6
    run(tmp_path / "three", prompts, tasks=3)
    assert contents(tmp_path / "three" / "prompts") == made
    run(tmp_path / "two", prompts, tasks=3, workers=2, engine_options=("start_method=fork",))
    assert contents(tmp_path / "two" / "prompts") == made
    told = capfd.readouterr().err
    assert "00005-0.mp4" in told
    assert "datatrove" not in told  # whose banner and traces are its own

    draws, within = random.Random(1), 0
    for number in range(10):
        out = tmp_path / f"killed{number // 5}"
        before = len(made_so_far(out))
        child = forked(out, prompts, tasks=1 + 2 * (number // 5))
        while number % 5 < 3 and len(made_so_far(out)) == before and before < 6:
            assert is_at_work(child) or len(made_so_far(out)) > before
            time.sleep(0.01)  # after its first file; two of five at any time
        time.sleep(draws.uniform(0, 0.2))
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        left = made_so_far(out)
        assert left.items() <= made.items()
        within += 0 < len(left) < 6
    assert within, "no kill fell among the files"
    for out, tasks in ((tmp_path / "killed0", 1), (tmp_path / "killed1", 3)):
        run(out, prompts, tasks=tasks)
        assert contents(out / "prompts") == made
        assert check_samples(suite, out / "prompts") == []
        assert not list((out / "run").glob("parts/*"))


def test_workers_end_when_their_run_was_killed(tmp_path):
    prompts, out = listed(tmp_path, 400), tmp_path / "out"
    options = ("start_method=fork",)
    child = forked(out, prompts, tasks=2, workers=2, engine_options=options)
    try:
        until = time.monotonic() + 120
        while len(made_so_far(out)) < 2:
            assert time.monotonic() < until
            time.sleep(0.05)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        made = -1
        while made != (made := len(made_so_far(out))):  # until no more come
            assert time.monotonic() < until
            time.sleep(1)
        assert made < 200
        assert not list((out / "run").glob("failed/*"))
    finally:
        os.killpg(child, signal.SIGKILL)  # datatrove's own server of queues, too


def test_two_runs_at_once_on_one_folder_are_refused(fake, tmp_path, refuses):
    prompts = listed(tmp_path, 2)
    with locked(tmp_path / "out" / "run"), refuses("out", "another run goes on"):
        run(tmp_path / "out", prompts)
    assert fake.asked == []
    run(tmp_path / "out", prompts)


def test_a_run_here_leaves_the_parts_of_a_task_at_work_elsewhere_alone(fake, tmp_path, refuses):
    prompts, part = listed(tmp_path, 2), tmp_path / "out" / "run" / "parts" / "00001-a.mp4"
    part.parent.mkdir(parents=True)
    part.touch()
    with locked(tmp_path / "out" / "run" / "tasks" / "00001"), refuses("out", "another run"):
        run(tmp_path / "out", prompts)
    assert part.exists()
    assert fake.asked == []
    run(tmp_path / "out", prompts)
    assert not part.exists()


@pytest.mark.parametrize("other", [{"tiling": True}, {"heads": (1, 1)}, {"dtype": "bfloat16"}])
def test_a_run_goes_on_with_the_same_heads_tiles_and_numbers_alone(fake, tmp_path, refuses, other):
    prompts = listed(tmp_path, 2)
    run(tmp_path / "out", prompts, device="cpu")
    with refuses("out", f"{next(iter(other))}: "):
        run(tmp_path / "out", prompts, device="cpu", **other)
    run(tmp_path / "out", prompts, device="cpu", dtype="float32")  # as it was
    with refuses("out", "device: 'cuda' (was 'cpu')"):
        run(tmp_path / "out", prompts, device="cuda")


def test_another_number_of_tasks_goes_on_and_a_lost_file_is_made_again(fake, tmp_path):
    prompts = listed(tmp_path, 7)
    run(tmp_path, prompts, tasks=3)
    made = contents(tmp_path / "prompts")
    for tasks in (2, 3):
        fake.asked.clear()
        (tmp_path / "prompts" / "00004-0.mp4").unlink()
        run(tmp_path, prompts, tasks=tasks)
        assert contents(tmp_path / "prompts") == made
        assert len(fake.asked) == 1
    fake.asked.clear()
    run(tmp_path, prompts)
    assert fake.asked == []


def test_a_prompt_that_fails_is_named_and_retry_takes_it_alone(fake, main, tmp_path, capsys):
    prompts = listed(tmp_path, 4)
    call = ("sample", "prompts", "--prompts", str(prompts), "--out", str(tmp_path / "out"))
    fake.refused = ("a one moves up, 1",)
    with pytest.raises(SystemExit, match=r"1 failed, the first is 00001-0.mp4: RuntimeError: no m"):
        main(*call)
    assert "3 of 4" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"2 problems|1 problems") as caught:
        main(*call, "--check")
    assert "00001-0.mp4: missing" in capsys.readouterr().out
    assert caught.value.code
    fake.asked.clear()
    with pytest.raises(SystemExit, match="1 failed"):
        main(*call)
    assert fake.asked == []
    fake.refused = ()
    main(*call, "--retry")
    assert [text for text, _ in fake.asked] == ["a one moves up, 1"]
    main(*call, "--check")


def test_settings_that_the_model_refuses_end_the_run_before_any_sample(fake, tmp_path, capfd):
    prompts = listed(tmp_path, 3)
    with pytest.raises(ValueError, match="num_frames: got 3"):
        suites.sample("prompts", prompts, out=tmp_path / "out", frames=3)
    assert capfd.readouterr().err == ""  # the engine tells whole traces
    assert not list((tmp_path / "out").glob("run/failed/*"))
    suites.sample("prompts", prompts, out=tmp_path / "out", frames=5)  # in the same folder
    assert len(contents(tmp_path / "out" / "prompts")) == 3


def test_paper_asks_for_the_papers_settings(fake, tmp_path, refuses):
    suites.sample("vbench", FILES["vbench"], out=tmp_path / "v", paper=True)
    _, call = fake.asked[-1]
    assert {name: value for name, value in call.items() if value is not None} == {
        "num_frames": 33, "num_inference_steps": 128, "guidance_scale": 7, "motion_flow": 5,
    }  # fmt: skip
    suites.sample("geneval", FILES["geneval"], out=tmp_path / "g", paper=True)
    _, call = fake.asked[-1]
    assert (call["num_frames"], call["num_inference_steps"], call["motion_flow"]) == (1, 128, None)
    with refuses("paper", "steps"):
        other = Drawing(steps=3)
        suites.sample("geneval", FILES["geneval"], tmp_path / "p", paper=True, drawing=other)
    with refuses("frames", "geneval takes pictures"):
        suites.sample("geneval", FILES["geneval"], out=tmp_path / "p", frames=5)
    with refuses("frames", "1", "at least 2, without which vbench breaks off"):
        suites.sample("vbench", FILES["vbench"], out=tmp_path / "p", frames=1)
    fake.config["defaults"]["num_frames"] = 1
    with refuses("frames", "1", "at least 2, without which vbench breaks off"):
        suites.sample("vbench", FILES["vbench"], out=tmp_path / "p")


def test_the_model_reads_what_was_rewritten(fake, tmp_path):
    prompts = listed(tmp_path, 2)
    texts = {line: f"{line}, sharp" for line in prompts.read_text().splitlines()}
    (tmp_path / "dense.json").write_text(json.dumps(texts))
    run(tmp_path, prompts, rewritten=tmp_path / "dense.json")
    assert [text for text, _ in fake.asked] == list(texts.values())
    assert sorted(contents(tmp_path / "prompts")) == ["00000-0.mp4", "00001-0.mp4"]


def test_a_list_takes_pictures_and_several_samples_of_each(fake, tmp_path):
    suites.sample("prompts", listed(tmp_path, 2), out=tmp_path, kind="picture", samples=2)
    names = ["00000-0.png", "00000-1.png", "00001-0.png", "00001-1.png"]
    assert sorted(contents(tmp_path / "prompts")) == names
    with Image.open(tmp_path / "prompts" / names[0]) as picture:
        assert picture.size == (8, 8)


@pytest.mark.parametrize(("engine", "module", "package"), [
    ("local", "datatrove.executor", 'datatrove is not installed.*"contar.scale."'),
    ("slurm", "datatrove.executor", 'datatrove is not installed.*"contar.scale."'),
    ("ray", "ray", 'ray is not installed.*"contar.ray."'),
])  # fmt: skip
def test_without_the_engine_it_is_said_which_package_brings_it(
    engine, module, package, main, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, module, None)
    call = ("--prompts", str(listed(tmp_path, 1)), "--out", str(tmp_path / "out"))
    with pytest.raises(SystemExit, match=package):
        main("sample", "prompts", *call, "--engine", engine)
    assert not (tmp_path / "out").exists()


def test_an_engines_options_are_its_own(tmp_path, refuses):
    prompts = listed(tmp_path, 1)
    with refuses("engine_options", "time=…, partition=… as well"):
        run(tmp_path / "out", prompts, engine="slurm")
    with refuses("engine_options", "'gpus=1'", "gpus_per_task=…"):
        run(tmp_path / "out", prompts, engine="slurm", engine_options=("gpus=1",))
    with refuses("engine_options", "'tasks=2'"):
        run(tmp_path / "out", prompts, engine_options=("tasks=2",))
    slurm: dict[str, Any] = {"engine": "slurm"}
    for option in ("requeue=no", "cpus_per_task=--1", "sbatch_args=x=1", "requeue_signals=USR1"):
        options = ("time=1:00:00", "partition=gpu", option)
        with refuses("engine_options", repr(option)):
            run(tmp_path / "out", prompts, engine_options=options, **slurm)
    options = ("time=24", "partition=7", "requeue=False", "cpus_per_task=2", "with_srun=true")
    assert Work("slurm", 1, 1, options).options() == {
        "time": "24", "partition": "7", "requeue": False, "cpus_per_task": 2, "with_srun": True,
    }  # fmt: skip
    with refuses("workers", "2"):
        run(tmp_path / "out", prompts, workers=2)


def test_slurm_gets_an_array_whose_tasks_make_their_shares(fake, slurm, tmp_path, capsys):
    import dill

    prompts, out = listed(tmp_path, 5), tmp_path / "out"
    options = ("time=24:00:00", "partition=gpu", "gpus_per_task=1")
    run(out, prompts, engine="slurm", tasks=3, workers=2, engine_options=options)
    assert "3 tasks are handed to Slurm" in capsys.readouterr().out
    script = (out / "run" / "tasks-3" / "launch_script.slurm").read_text()
    for line in ("--array=0-2%2", "--time=24:00:00", "--partition=gpu", "--gpus=1"):
        assert f"#SBATCH {line}\n" in script
    pickled = out / "run" / "tasks-3" / "executor.pik"
    assert f"launch_pickled_pipeline {pickled}" in script
    assert fake.asked == []
    for rank in (2, 0):  # what launch_pickled_pipeline does on a node, without its signals
        dill.loads(pickled.read_bytes())._run_for_rank(rank)
    names = ["00000-0.mp4", "00002-0.mp4", "00003-0.mp4"]
    assert sorted(contents(out / "prompts")) == names
    share = dill.loads(pickled.read_bytes())
    with locked(out / "run" / "tasks" / "00001"), pytest.raises(ValueError, match="another run"):
        share._run_for_rank(1)


def test_slurm_that_refuses_is_told_on_one_line(fake, main, slurm, tmp_path):
    (tmp_path / "tools" / "sbatch").write_text("#!/bin/sh\nexit 3\n")
    call = ("--prompts", str(listed(tmp_path, 1)), "--out", str(tmp_path / "out"))
    options = ("--engine", "slurm", "--engine-options", "time=1", "partition=2")
    with pytest.raises(SystemExit, match=r"^contar: .*sbatch.* status 3"):
        main("sample", "prompts", *call, *options)


@pytest.mark.scale
@pytest.mark.filterwarnings("default")  # of Ray's own threads
def test_ray_makes_the_same_bytes_and_says_which_task_failed(tmp_path, ray_cluster, monkeypatch):
    prompts = listed(tmp_path, 4)
    for out, options in {
        "one": {},
        "three": {"tasks": 3},
        "ray": {"tasks": 3, "workers": 2, "engine": "ray", "engine_options": ray_cluster},
    }.items():
        run(tmp_path / out, prompts, **options)
    made = contents(tmp_path / "one" / "prompts")
    assert len(made) == 4
    assert contents(tmp_path / "three" / "prompts") == made
    assert contents(tmp_path / "ray" / "prompts") == made
    (tmp_path / "ray" / "prompts" / "00002-0.mp4").unlink()
    with (
        locked(tmp_path / "ray" / "run" / "tasks" / "00002"),
        pytest.raises(ChildProcessError, match=r"1 of 3 tasks did not end well: .*00002.log"),
    ):
        run(tmp_path / "ray", prompts, tasks=3, engine="ray", engine_options=ray_cluster)


@pytest.mark.scale
@pytest.mark.filterwarnings("default")
def test_what_ray_refuses_ends_the_command_instead_of_waiting(tmp_path, ray_cluster):
    options = (*ray_cluster, "nodes_per_task=0")
    with pytest.raises(ValueError, match="Bundles must be a non-empty list"):
        run(tmp_path, listed(tmp_path, 1), engine="ray", engine_options=options)


def test_a_stopped_run_says_that_the_same_command_goes_on(fake, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Fake, "__call__", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(SystemExit) as caught:
        run(tmp_path / "out", listed(tmp_path, 1))
    assert caught.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_the_plan_says_what_was_asked(fake, tmp_path):
    run(tmp_path / "out", listed(tmp_path, 2), guidance=3.0)
    _, settings = read_plan(tmp_path / "out")
    assert settings["model"] == "moving-digits"
    assert settings["call"]["guidance_scale"] == 3
    assert settings["call"]["num_frames"] == 5


def test_scores_prints_ones_own_row_above_published_ones(main, tmp_path, capsys):
    lines = [{"tag": "counting", "correct": True}, {"tag": "counting", "correct": False}]
    (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, lines)))
    main("scores", "geneval", str(tmp_path / "results.jsonl"), "--name", "mine")
    printed = capsys.readouterr().out.splitlines()
    assert printed[2].startswith("| mine | –")
    assert "| 50.00 |" in printed[2]
    with pytest.raises(SystemExit, match="contar: suite: got 'gen'"):
        main("scores", "gen", str(tmp_path))
