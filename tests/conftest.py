"""What every test runs under: shapes enforced by jaxtyping, Hypothesis profiles, --slow."""

import contextlib
import gc
import logging
import os
import resource
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import typechecking
from hypothesis import HealthCheck, settings
from jaxtyping import config as jaxtyping_config

logging.getLogger("xformers").setLevel(logging.ERROR)  # says that it has no kernels for the CPU
# Health checks of time are off: what is slow here is the first call into torch, not the law.
_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", max_examples=25, derandomize=True, **_common)
settings.register_profile("thorough", max_examples=1000, **_common)
settings.load_profile("ci")  # another one: pytest --hypothesis-profile=thorough

# Files that begin first, so that no worker is left with one of them when the others have ended.
LONGEST = ("test_docs.py", "test_benchmarks.py", "test_compiled.py", "test_digits_road.py")

DEVICE = Path(__file__).parent / "device"

# The models are tiny: a second thread costs more than it brings, in processes of tests as well.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run tests marked slow")
    parser.addoption(
        "--scale", action="store_true", help="also run tests of a Ray cluster or many processes"
    )
    parser.addoption("--device", help="run tests/device on it, and nothing else by default")


def pytest_configure(config: pytest.Config) -> None:
    named = (Path(word.partition("::")[0]).resolve() for word in config.args)
    if not config.option.device and any(DEVICE in (path, *path.parents) for path in named):
        config.option.device = "cuda" if torch.cuda.is_available() else "cpu"
    # Checking every shape costs ten times the tiny models of the tests, and breaks compiled graphs;
    # the profile of 1,000 examples a law and a GPU's run leave it to the short one.
    thorough = config.getoption("--hypothesis-profile") == "thorough"
    if not thorough and not config.getoption("--device"):
        typechecking.install(["contar", "recipes"])


def pytest_collection_finish() -> None:
    # What is imported by now stays: to look through it for garbage takes longer than most tests.
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()  # else libraries take it for a leak


def pytest_runtest_setup() -> None:
    typechecking.seen.clear()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out tests/device, whose laws others prove for the CPU, unless it or one is named."""
    left_out = collection_path.name == "device" and not config.getoption("--device")
    return True if left_out else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    for mark in ("slow", "scale"):
        if not config.getoption(f"--{mark}"):
            for item in items:
                if mark in item.keywords:
                    item.add_marker(pytest.mark.skip(reason=f"needs --{mark}"))


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Have torch's own draws be the same in any order of the tests."""
    torch.manual_seed(0)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """The device of `--device`."""
    return str(request.config.getoption("--device"))


@contextlib.contextmanager
def _largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # Python ignores the signal
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def largest_file():
    """`with largest_file(1000):` makes writes beyond so many bytes fail, as a full disk does."""
    return _largest_file


@pytest.fixture
def main(monkeypatch):
    """`main("info", ...)` is the command in this process, which spares the imports."""
    from recipes import cli

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["contar", *arguments])
        cli.main()

    return run


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Stand-ins for Slurm's commands, which take a job and do nothing."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, line in {"sbatch": "echo Submitted batch job 7", "scontrol": "echo node1"}.items():
        (tools / name).write_text(f"#!/bin/bash\n{line}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_NODELIST", "node1")


@pytest.fixture(scope="session")
def ray_cluster():
    """Options of a Ray cluster on this machine, with 2 workers, which ends with the tests."""
    ray = pytest.importorskip("ray")
    config = {"worker_niceness": 0}  # workers are nice otherwise, and wait for all else here
    ray.init(
        num_cpus=2, include_dashboard=False, object_store_memory=80 << 20, _system_config=config
    )
    yield ("mem_per_cpu_gb=1",)
    ray.shutdown()


@contextlib.contextmanager
def _refuses(argument: str, *fragments: str) -> Iterator[None]:
    jaxtyping_config.update("jaxtyping_disable", True)  # users run without the hook
    try:
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is checked below
            yield
    finally:
        jaxtyping_config.update("jaxtyping_disable", False)
    message = str(caught.value)
    assert message.startswith(argument), message
    assert "got" in message, message
    assert "allowed" in message, message
    for fragment in fragments:
        assert fragment in message, message


@pytest.fixture
def refuses():
    """`with refuses("steps", "0"):` expects a ValueError for that argument with those words."""
    return _refuses


@pytest.fixture
def bomb() -> bytes:
    """Return a PNG that says that it has 20000 x 20000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    begin = b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + struct.pack(">I", zlib.crc32(header))
    return begin + b"\0\0\0\x10IDAT" + bytes(20)


@pytest.fixture
def postscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Return a PostScript file named as a PNG, and a file that is there once `gs` was called."""
    tools, traces = tmp_path / "tools", tmp_path / "called"
    tools.mkdir()
    (tools / "gs").write_text(f'#!/bin/sh\n[ "$1" = --version ] || touch {traces}\n')
    (tools / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # it is looked for once a process
    file = tmp_path / "evil.png"
    file.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    return file, traces


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Leave types unchecked: of a list, the element to check is drawn; numpy's numbers are none."""
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", False)
