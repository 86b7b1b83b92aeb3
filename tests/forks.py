"""A function in a process of its own, that is killed or ends, without the wait for imports.

It is forked from a server that has imported what takes long and has done nothing else: torch cannot
compute gradients in a fork of a process that has.
"""

import gc
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
_TORCH = [f"torch.{name}" for name in ("distributed.launcher.api", "distributed.fsdp")]
_TORCH += ["torch.distributed.checkpoint", "torch.utils.tensorboard"]
_OTHERS = ["accelerate", "transformers.optimization", "safetensors.torch", "webdataset"]
SERVER.set_forkserver_preload([*_TORCH, *_OTHERS, "recipes._nova.training"])


class Fork:
    """`function(*arguments)` in one process, or in several that torch launches together.

    Args:
        printed: a file to be written: what they print.
        function: of a module, not of another function; what it returns is the exit code.
        arguments: that can be pickled.
        processes: how many.
    """

    def __init__(
        self, printed: Path, function: Callable[..., Any], *arguments: Any, processes: int = 1
    ) -> None:
        self.printed = printed
        self.process = SERVER.Process(target=_run, args=(printed, processes, function, arguments))
        self.process.start()

    def finish(self, timeout: float = 240) -> tuple[int, str]:
        """Wait for it; return its exit code and what it printed."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"not at its end after {timeout} seconds"
        return self.process.exitcode, self.printed.read_text()


def _run(printed: Path, processes: int, function: Callable[..., Any], arguments: Any) -> None:
    gc.freeze()  # as conftest.py does
    file = os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for standard in (sys.stdout, sys.stderr):
        standard.flush()
        os.dup2(file, standard.fileno())
    if processes == 1:
        sys.exit(function(*arguments))
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        1, 1, processes, rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork",
        run_id="test", max_restarts=0,
    )  # fmt: skip
    elastic_launch(config, function)(*arguments)
