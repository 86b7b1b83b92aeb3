"""`contar cache` over shards, as a person runs it: engines, kills, failures, training after it."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contar._lock import locked
from contar.data import Cache, Sample, write_cache
from contar.media import write_video
from contar.training import Latents
from recipes import clips as own
from recipes import nova
from recipes._cli import caching
from recipes._cli.engines import Work

pytest.importorskip("datatrove")
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

FORKS = ("start_method=fork",)
CAPTIONS = ("a seven moves up", "a two stands still")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Captioned videos, as `contar cache` takes them beside shards."""
    place = tmp_path_factory.mktemp("files")
    for number in range(5):
        draws = np.random.default_rng(number)
        frames = draws.integers(0, 255, (5, 64, 64, 3), dtype=np.uint8)
        write_video(frames, place / f"{number}.mp4", fps=8, threads=1)
        (place / f"{number}.txt").write_text(CAPTIONS[number % 2])
    return place


@pytest.fixture(scope="module")
def shards(folder):
    """The same in three shards, of which the last is as `contar prepare` writes it."""
    place = folder.parent / f"{folder.name}-shards"
    place.mkdir()
    for shard in range(2):
        with tarfile.open(place / f"{shard}.tar", "w") as archive:
            for number in (2 * shard, 2 * shard + 1):
                for name in (f"{number}.mp4", f"{number}.txt"):
                    archive.add(folder / name, name)
    content = np.frombuffer((folder / "4.mp4").read_bytes(), np.uint8)
    facts = {"caption": CAPTIONS[0], "suffix": ".mp4", "motion": 3.5, "duplicate": False}
    prepared = folder.parent / f"{folder.name}-prepared"
    write_cache([Sample({"file": content}, facts)], prepared, made_with={})
    (prepared / "shard-00000.tar").rename(place / "2.tar")
    return place


def run(shards: Path, out: Path, **options: Any) -> None:
    how = {name: options.pop(name) for name in [*options] if name in Work.__annotations__}
    caching.cache(shards, out, frames=5, work=Work(**how), **options)


def contents(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()}


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "cache"
    run(shards, out)
    return out


def test_shards_make_what_a_folder_of_the_same_files_makes(folder, whole, tmp_path):
    caching.cache(folder, tmp_path / "files", frames=5)
    made, files = Cache(whole), Cache(tmp_path / "files")
    assert len(made) == len(files) == 5
    for index in range(5):
        of_shard, of_file = made[index], files[index]
        np.testing.assert_array_equal(of_shard.arrays["latents"], of_file.arrays["latents"])
        # There, captions are encoded together, which rounds otherwise.
        texts = of_shard.arrays["text"], of_file.arrays["text"]
        np.testing.assert_allclose(*texts, rtol=0, atol=2e-3)
        assert of_shard.facts.items() >= of_file.facts.items()
    assert made[4].facts["scores"] == {"motion": 3.5, "duplicate": False}
    names = ("tokenizer", "text_encoder")
    assert [made.made_with[n] for n in names] == [files.made_with[n] for n in names]


def test_training_takes_a_cache_of_shards(whole):
    pipe = nova.from_pretrained("moving-digits", dtype=torch.float32)
    clips = Latents.of(Cache(whole, made_with=own.made_with(pipe)))  # as train_cached does
    assert clips.moments.shape == (5, 8, 2, 8, 8)
    assert clips.fps.tolist() == [8] * 5


def test_workers_make_the_same_bytes(shards, whole, tmp_path):
    run(shards, tmp_path / "out", tasks=3, workers=2, engine_options=FORKS)
    assert contents(tmp_path / "out") == contents(whole)


def test_a_clip_that_fails_ends_with_its_name_and_retry_takes_it(
    shards, whole, tmp_path, main, capsys
):
    place = tmp_path / shards.name
    place.mkdir()
    for file in shards.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    broken = io.BytesIO()
    with tarfile.open(fileobj=broken, mode="w") as archive, tarfile.open(place / "1.tar") as old:
        for member in old:
            content = old.extractfile(member)
            assert content is not None
            data = content.read()
            cut = data[:-40] if member.name == "3.mp4" else data
            member.size = len(cut)
            archive.addfile(member, io.BytesIO(cut))
    (place / "1.tar").write_bytes(broken.getvalue())
    call = ("cache", str(place), "--out", str(tmp_path / "out"), "--frames", "5")
    for _ in range(2):  # the same once more says the same
        with pytest.raises(
            SystemExit, match=r"1 failed, the first is 1.tar: 3: ValueError: .*clip"
        ):
            main(*call)
        assert "4 clips" in capsys.readouterr().out
    (place / "1.tar").write_bytes((shards / "1.tar").read_bytes())
    main(*call, "--retry")
    assert "5 clips: contar train cached" in capsys.readouterr().out
    assert contents(tmp_path / "out") == contents(whole)


def test_slurm_gets_the_tasks_and_the_same_command_ends_it(shards, whole, tmp_path, slurm, capsys):
    import dill

    out = tmp_path / "out"
    how: dict[str, Any] = {
        "engine": "slurm", "tasks": 3, "workers": 2,
        "engine_options": ("time=24:00:00", "partition=gpu"),
    }  # fmt: skip
    run(shards, out, **how)
    assert "3 tasks are handed to Slurm" in capsys.readouterr().out
    script = (out / "run" / "tasks-3" / "launch_script.slurm").read_text()
    assert "#SBATCH --array=0-2%2\n" in script
    for rank in (2, 0, 1):  # what launch_pickled_pipeline does on a node, without its signals
        dill.loads((out / "run" / "tasks-3" / "executor.pik").read_bytes())._run_for_rank(rank)
    assert not (out / "cache.json").exists()
    run(shards, out, **how)
    assert "5 clips" in capsys.readouterr().out
    assert contents(out) == contents(whole)


def test_tasks_on_gpus_are_handed_over_from_where_there_is_none(
    shards, tmp_path, slurm, capsys, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    options = ("time=24:00:00", "partition=gpu", "gpus_per_task=1")
    run(shards, tmp_path / "out", engine="slurm", tasks=3, workers=2, engine_options=options)
    assert "3 tasks are handed to Slurm" in capsys.readouterr().out


def test_two_runs_at_once_another_number_of_tasks_and_other_folders_are_refused(
    shards, whole, folder, tmp_path, refuses
):
    with locked(tmp_path / "out" / "run"), refuses("out", "another run goes on"):
        run(shards, tmp_path / "out")
    with locked(tmp_path / "out" / "run" / "tasks" / "00001"), refuses("out", "another run"):
        run(shards, tmp_path / "out")
    with refuses("out", "tasks: 3 (was 1)"):
        run(shards, whole, tasks=3)
    with refuses("out", "begun otherwise: fps: 4.0"):
        run(shards, whole, fps=4.0)
    with refuses("folder", "without .tar files beside options of shards"):
        run(folder, tmp_path / "files", tasks=2)
    with refuses("workers", "2"):
        run(shards, tmp_path / "out", workers=2)


@pytest.mark.scale
@pytest.mark.filterwarnings("default")  # of Ray's own threads
def test_ray_makes_the_same_bytes_of_shards(shards, whole, tmp_path, ray_cluster):
    how: dict[str, Any] = {"engine": "ray", "engine_options": ray_cluster}
    run(shards, tmp_path / "out", tasks=3, workers=2, **how)
    assert contents(tmp_path / "out") == contents(whole)
