"""Is anything lost or changed when `contar sample` is killed: of a suite, by the shipped model.

    python -m benchmarks.kills SUITE PROMPTS [--frames N] [--kills 10] [--write FILE]

A run that nothing disturbs, of one task and of three, is what runs must come to that SIGKILL ends
at random moments and the same command goes on with. After each kill every file that is there must
be one of the undisturbed run, to the byte.
"""

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any


def begin(words: Sequence[str], out: Path, tasks: int) -> subprocess.Popen[bytes]:
    """Begin the command, in a process group of its own."""
    command = [sys.executable, "-m", "recipes.cli", "sample", *words]
    command += ["--out", str(out), "--tasks", str(tasks)]
    return subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def whole_run(words: Sequence[str], out: Path, tasks: int) -> float:
    """Go through the command; return its seconds."""
    begun = time.perf_counter()
    if begin(words, out, tasks).wait():
        raise SystemExit(f"contar sample {' '.join(words)} failed")
    return time.perf_counter() - begun


def files(out: Path, suite: str) -> dict[str, bytes]:
    """Return what lies in the evaluator's folder."""
    place = out / suite
    found = (file for file in place.rglob("*") if file.is_file())
    return {str(file.relative_to(place)): file.read_bytes() for file in found}


def killed_run(
    words: Sequence[str], out: Path, tasks: int, kills: int, whole: dict[str, bytes], most: float
) -> dict[str, Any]:
    """Kill a run so many times; return the moments, and the files after each.

    Half of the kills come within `most` seconds of a run's begin, while it loads; half as soon
    after its first new file.
    """
    draws, told = random.Random(tasks), []
    for _ in range(kills):
        begun, before = time.perf_counter(), len(files(out, words[0]))
        process = begin(words, out, tasks)
        loaded = draws.random() < 0.5
        while loaded and process.poll() is None and len(files(out, words[0])) <= before:
            time.sleep(0.02)
        time.sleep(draws.uniform(0, most))
        ended = process.poll() is not None
        if not ended:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        left = files(out, words[0])
        changed = sorted(name for name, content in left.items() if whole.get(name) != content)
        seconds = round(time.perf_counter() - begun, 2)
        told.append({
            "seconds": seconds, "files": len(left), "changed": changed, "had ended": ended,
        })  # fmt: skip
    whole_run(words, out, tasks)
    parts = len(list((out / "run").glob("parts/*")))
    return {"kills": told, "equal": files(out, words[0]) == whole, "parts": parts}


def main() -> None:
    """Run it, print what came out, and end with 1 if a byte differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite")
    parser.add_argument("prompts")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    words = [given.suite, "--prompts", given.prompts]
    words += [] if given.frames is None else ["--frames", str(given.frames)]
    results: dict[str, Any] = {
        "command": " ".join(["contar sample", *words]),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "date": date.today().isoformat(),
    }
    right = True
    with tempfile.TemporaryDirectory() as folder:
        whole: dict[str, bytes] = {}
        for tasks in (1, 3):
            seconds = whole_run(words, Path(folder) / f"whole{tasks}", tasks)
            made = files(Path(folder) / f"whole{tasks}", given.suite)
            whole = whole or made
            place = Path(folder) / f"killed{tasks}"
            killed = killed_run(words, place, tasks, given.kills, whole, seconds / given.kills)
            results[f"{tasks} tasks"] = {
                "files": len(made), "seconds": round(seconds, 2), "as of 1 task": made == whole,
                **killed,
            }  # fmt: skip
            changed = any(kill["changed"] for kill in killed["kills"])
            right = right and made == whole and killed["equal"] and not changed
            right = right and not killed["parts"]
    print(json.dumps(results, indent=1))
    if given.write:
        given.write.write_text(json.dumps(results, indent=1) + "\n")
    if not right:
        raise SystemExit("bytes differ, or parts are left")


if __name__ == "__main__":
    main()
