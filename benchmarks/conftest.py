"""What each row of a benchmark tells: time, operations, share of the machine's peak, memory."""

import datetime
import importlib.metadata
import json
import platform
import re
import statistics
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import machine
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

ROWS: list[dict[str, Any]] = []
NEAR = 0.03  # ratios within this of 1 are told as near ties


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--results", type=Path, help="folder for tables, as <theme>_<hardware>_<date>")


@pytest.fixture(params=["cpu", "cuda"])
def device(request: Any) -> str:
    """Each device; where there is no GPU the table says so."""
    if request.param == "cuda" and not torch.cuda.is_available():
        ROWS.append({"theme": theme(request), "row": title(request)})
        pytest.skip("not measured: no GPU")
    return request.param


@pytest.fixture(scope="session")
def peak() -> Callable[[str, str], float]:
    """The machine's operations a second, measured once."""
    return cache(machine.peak)


@pytest.fixture
def row(request: Any, benchmark: Any, peak: Any) -> Callable[..., None]:
    """Return the function that measures one row.

    It checks a result first; if that fails, the row says so and tells no time. What a check
    returns is the largest relative error. A `baseline` is timed before each round, so A B A B.
    """

    def measure(
        run: Callable[[], Any],
        check: Callable[[Any], object],
        *,
        device: str = "cpu",
        dtype: str = "float32",
        rounds: int = 7,
        baseline: Callable[[], Any] | None = None,
    ) -> None:
        told = {"theme": theme(request), "row": title(request), "device": device, "dtype": dtype}
        try:
            error = check(run())
        except AssertionError:
            ROWS.append({**told, "failed": True})
            raise
        with FlopCounterMode(display=False) as counter:
            memory = most_memory(run, device)

        def timed() -> None:
            run()
            if device == "cuda":
                torch.cuda.synchronize()

        before: list[float] = []

        def other() -> None:
            if baseline is not None:
                start = machine.now(device)
                baseline()
                before.append(machine.now(device) - start)

        other()  # warm
        before.clear()
        benchmark.pedantic(timed, setup=other, rounds=rounds)
        data = list(benchmark.stats.stats.data)
        low, seconds, high = quantiles(data)
        operations = counter.get_total_flops()
        if baseline is not None:
            ratio = statistics.median(a / b for a, b in zip(before, data, strict=True))
            told |= {"baseline_ms": 1e3 * statistics.median(before), "times_as_fast": ratio}
        ROWS.append(
            {
                **told,
                "ms": 1e3 * seconds,
                "p20_ms": 1e3 * low,
                "p80_ms": 1e3 * high,
                "error": error if isinstance(error, float) else None,
                "gflop": operations / 1e9,
                "share_of_peak": operations / seconds / peak(device, dtype),
                "memory_mib": memory / 2**20,
            }
        )

    return measure


def quantiles(values: list[float]) -> list[float]:
    """Return p20, p50 and p80."""
    shares = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    return torch.tensor(values, dtype=torch.float64).quantile(shares).tolist()


def theme(request: Any) -> str:
    return request.node.path.stem.removeprefix("bench_")


def title(request: Any) -> str:
    name, _, case = request.node.name.removeprefix("test_").partition("[")
    return name.replace("_", " ") + (f", {case[:-1].replace('-', ', ')}" if case else "")


def most_memory(run: Callable[[], Any], device: str) -> int:
    """Return the bytes that a run takes beyond those that are taken before it, at its height.

    As the allocator tells it, gradients and kernels' own memory included, which
    `contar._memory.peak_bytes` (made for tensors without data) does not see.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    activities = [torch.profiler.ProfilerActivity.CPU]
    options: Any = {"profile_memory": True, "acc_events": True}  # torch below 2.13 warns without
    with torch.profiler.profile(activities=activities, **options) as profile:
        run()
    held = highest = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda e: e.start_ns()):  # type: ignore[union-attr]
        if event.name() == "[memory]" and event.device_type() == torch.profiler.DeviceType.CPU:
            held += event.nbytes()  # type: ignore[attr-defined]
            highest = max(highest, held)
    return highest


def hardware() -> str:
    """Return the processor's name and cores, and the GPU's name if there is one."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = {line.split(":")[1].strip() for line in lines if line.startswith("model name")}
    name = " ".join(sorted(names)) or platform.processor() or platform.machine()
    gpu = f"{torch.cuda.get_device_name()} beside " if torch.cuda.is_available() else ""
    return f"{gpu}{name}, {torch.get_num_threads()} cores"


def pytest_sessionfinish(session: Any) -> None:
    folder = session.config.getoption("--results")
    if folder is None or not ROWS:
        return
    folder.mkdir(parents=True, exist_ok=True)
    root = Path(__file__).parents[1]
    git = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    date = datetime.date.today().isoformat()
    told = {
        "hardware": hardware(), "date": date, "commit": commit, "torch": torch.__version__,
        "diffusers": importlib.metadata.version("diffusers"), "python": platform.python_version(),
    }  # fmt: skip
    slug = re.sub(r"[^a-z0-9]+", "-", told["hardware"].lower()).strip("-")
    for name in dict.fromkeys(row["theme"] for row in ROWS):
        rows = [row for row in ROWS if row["theme"] == name]
        stem = f"{name}_{slug}_{date}"
        told_and_rows = json.dumps({**told, "rows": rows}, indent=1) + "\n"
        (folder / f"{stem}.json").write_text(told_and_rows)
        (folder / f"{stem}.md").write_text(table(name, told, rows))


def table(name: str, told: dict[str, str], rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    lines = [f"# {name}", "", ", ".join(f"{key} {value}" for key, value in told.items()), ""]
    columns = ["row", "dtype", "p50, ms", "p20 to p80", "GFLOP", "of peak", "memory, MiB"]
    columns += ["error", "baseline, ms", "times as fast"]
    lines += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        if "ms" not in row:
            said = "DOES NOT HOLD, not timed" if row.get("failed") else "not measured"
            cells = [row["row"], row.get("dtype", ""), said]
        else:
            cells = [row["row"], row["dtype"], f"{row['ms']:.3g}"]
            cells += [f"{row['p20_ms']:.3g} to {row['p80_ms']:.3g}", f"{row['gflop']:.3g}"]
            cells += [f"{row['share_of_peak']:.0%}", f"{row['memory_mib']:.1f}"]
            cells.append("" if row["error"] is None else f"{row['error']:.0e}")
            if "times_as_fast" in row:
                near = " (near tie)" if abs(row["times_as_fast"] - 1) < NEAR else ""
                cells += [f"{row['baseline_ms']:.3g}", f"{row['times_as_fast']:.2f}{near}"]
        cells += [""] * (len(columns) - len(cells))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
