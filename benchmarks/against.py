"""Time another commit and this folder's code by the same benchmarks, in processes A B A B.

    python -m benchmarks.against REV [--pairs 3] [--out FOLDER] [ARGUMENTS OF PYTEST]

as in `python -m benchmarks.against HEAD~1 -k set_loop`. The other commit's contar and recipes come
from a git worktree that is removed in the end; the benchmarks are those of this folder.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.gpu_rows import table, timed_rows

ROOT = Path(__file__).parents[1]


def run(root: Path, out: Path, arguments: list[str]) -> dict[str, float]:
    """Return the p50 of each row, in seconds, by the code in `root`."""
    command = [sys.executable, "-P", "-m", "pytest", "-q", str(ROOT / "benchmarks")]
    command += ["-o", "python_files=bench_*.py", "--benchmark-only", "--results", str(out)]
    env = {**os.environ, "PYTHONPATH": str(root)}
    told = subprocess.run([*command, *arguments], cwd=root, env=env, capture_output=True, text=True)
    files = list(out.glob("*.json"))
    if not files:
        sys.exit(f"no row of {root} was measured:\n{told.stdout}{told.stderr}")
    rows = [row for file in files for row in json.loads(file.read_text())["rows"] if "ms" in row]
    return {f"{row['row']}, {row['dtype']}": row["ms"] / 1e3 for row in rows}


def compare(rev: str, pairs: int, out: Path, arguments: list[str]) -> str:
    """Return a table of the rows that both have; a row that one side could not check is left out.

    Raises:
        subprocess.CalledProcessError: no such commit.
    """
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "other"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(other), rev], check=True)
        try:
            sides = {rev: other, "this": ROOT}
            seconds: dict[str, dict[str, list[float]]] = {}
            for pair in range(pairs):
                for side, root in sides.items():
                    told = run(
                        root, out / f"{pair}-{'other' if root == other else 'this'}", arguments
                    )
                    for name, took in told.items():
                        seconds.setdefault(name, {}).setdefault(side, []).append(took)
        finally:
            subprocess.run([*git, "remove", "--force", str(other)], check=True)
    rows = []
    for name, both in seconds.items():
        if [len(both.get(side, [])) for side in sides] == [pairs, pairs]:
            ordered = {side: both[side] for side in sides}
            rows += timed_rows(name, ordered)
    return table(rows)


if __name__ == "__main__":
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("rev")
    reader.add_argument("--pairs", type=int, default=3)
    reader.add_argument("--out", type=Path)
    given, rest = reader.parse_known_args()
    with tempfile.TemporaryDirectory() as made:
        print(compare(given.rev, given.pairs, (given.out or Path(made)).resolve(), rest))
