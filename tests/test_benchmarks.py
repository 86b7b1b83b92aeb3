"""Benchmarks measure what is right, refuse what is not, and their results can be compared."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from forks import Fork

from benchmarks import gpu

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
# A run of its own, whatever this one is: several workers measure nothing.
ENV = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}

ROWS = """
import torch


def test_a_product(row):
    a = torch.ones(64, 64)
    row(lambda: a @ a, lambda result: torch.testing.assert_close(result, 64 * a), rounds=3)


def test_a_wrong_product(row):
    def check(result):
        assert result.sum() == 0

    a = torch.ones(64, 64)
    row(lambda: a @ a, check, rounds=3)


def test_twice(row):
    a = torch.ones(512, 512)
    row(lambda: (a @ a, a @ a, a @ a), lambda _: 0.25, rounds=5, baseline=lambda: a @ a)


def test_on(row, device):
    a = torch.ones(8, 8, device=device)
    row(lambda: a + a, lambda result: None, device=device, rounds=3)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    (folder / "bench_made.py").write_text(ROWS)
    for name in ("conftest.py", "machine.py"):
        (folder / name).write_text((BENCHMARKS / name).read_text())
    command = [sys.executable, "-m", "pytest", "-q", "-o", "python_files=bench_*.py", "."]
    command += ["--benchmark-only", "--results", "out", "-c", "/dev/null", "--rootdir", "."]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=ENV)
    return run.stdout, folder / "out"


def test_a_row_tells_time_operations_share_of_peak_and_memory(results):
    output, folder = results
    (file,) = folder.glob("made_*.json")
    content = json.loads(file.read_text())
    assert {"hardware", "date", "commit", "torch", "python"} <= set(content)
    row = next(row for row in content["rows"] if row["row"] == "a product")
    assert row["gflop"] == 2 * 64**3 / 1e9
    assert row["ms"] > 0
    assert 0 < row["share_of_peak"] < 1.5  # the machine's peak is measured, so it has noise
    assert row["memory_mib"] == pytest.approx(64 * 64 * 4 / 2**20, rel=0.1)
    (table,) = folder.glob("made_*.md")
    assert "| a product | float32 |" in table.read_text()
    assert "1 failed" in output


def test_a_row_whose_check_fails_says_so_and_tells_no_time(results):
    (file,) = results[1].glob("made_*.json")
    rows = json.loads(file.read_text())["rows"]
    (wrong,) = [row for row in rows if "wrong" in row["row"]]
    assert wrong["failed"]
    assert "ms" not in wrong
    (table,) = results[1].glob("made_*.md")
    assert "| a wrong product | float32 | DOES NOT HOLD, not timed |" in table.read_text()


def test_a_row_tells_quantiles_error_and_how_fast_it_is_beside_its_baseline(results):
    (file,) = results[1].glob("made_*.json")
    row = next(r for r in json.loads(file.read_text())["rows"] if "twice" in r["row"])
    assert 0 < row["p20_ms"] <= row["ms"] <= row["p80_ms"]
    assert row["error"] == 0.25
    assert row["times_as_fast"] < 1  # it does the work of the baseline twice
    assert row["baseline_ms"] < row["ms"]


def test_what_needs_another_device_says_that_it_was_not_measured(results):
    import torch

    (table,) = results[1].glob("made_*.md")
    said = "| on, cuda |  | not measured |" in table.read_text()
    assert said == (not torch.cuda.is_available())


def test_two_results_are_compared_row_by_row(tmp_path):
    for name, factor in (("before", 2.0), ("after", 1.0)):
        rows = [{"row": "a product", "dtype": "float32", "ms": 3 * factor}]
        rows += [{"row": f"only {name}", "dtype": "float32", "ms": 1.0}, {"row": "on, cuda"}]
        told = {"commit": name, "hardware": "this", "date": "today", "rows": rows}
        (tmp_path / f"{name}.json").write_text(json.dumps(told))
    command = [sys.executable, str(BENCHMARKS / "compare.py")]
    files = [str(tmp_path / f"{name}.json") for name in ("before", "after")]
    run = subprocess.run([*command, *files], capture_output=True, text=True)
    assert "| a product | float32 | 6 | 3 | 2.00 |" in run.stdout
    assert "only" not in run.stdout
    assert subprocess.run(command, capture_output=True).returncode == 1


def test_what_a_gpu_has_to_tell_a_cpu_tells_in_little(tmp_path):
    arguments = ["--device", "cpu", "--tiny", "--out", str(tmp_path / "out")]
    code, printed = Fork(tmp_path / "printed.txt", gpu.main, arguments).finish(480)
    assert code == 0, printed
    steps = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {step["state"] for step in steps} == {"done"}
    rows = {step["name"]: step["rows"] for step in steps}
    assert all(rows[name] for name in rows if name != "NOVA 480p, compiled")
    assert "p20 to p80" in (tmp_path / "out" / "results.md").read_text()


def test_a_gpu_that_is_not_there_is_said_to_be_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit) as caught:
        gpu.main(["--out", str(tmp_path)])
    assert caught.value.code == 2
    assert "torch sees no GPU" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_projects_own_benchmarks_time_another_commit_in_turn_and_leave_nothing_behind(tmp_path):
    root = BENCHMARKS.parent
    if subprocess.run(["git", "-C", str(root), "rev-parse"], capture_output=True).returncode:
        pytest.skip("no git repository")
    head = "(samples_a_set and Pocket and cpu and float32 and not (16 or 25 or 4))"
    command = [sys.executable, "-m", "benchmarks.against", "HEAD", "--pairs", "1"]
    command += ["--out", str(tmp_path), "-k", f"set_loop or {head}"]
    where = {**ENV, "TMPDIR": str(tmp_path)}
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, env=where)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "times as fast as HEAD" in run.stdout
    kept = subprocess.run(["git", "worktree", "list"], cwd=root, capture_output=True, text=True)
    assert str(tmp_path) not in kept.stdout
    for side in ("0-this", "0-other"):
        tables = {file.name.split("_")[0] for file in (tmp_path / side).glob("*.md")}
        assert tables == {"nova", "heads"}


def test_benchmarks_import_one_another_by_their_package():
    files = [file for file in BENCHMARKS.glob("*.py") if file.stem != "conftest"]
    modules = {file.stem for file in BENCHMARKS.glob("*.py")}
    for file in files:
        if not file.stem.startswith("bench_"):  # which pytest runs, in a folder of their own
            nodes = ast.walk(ast.parse(file.read_text()))
            taken = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
            assert not taken & modules, file.name
