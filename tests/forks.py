"""A function in a process of its own, that is killed or ends, without the wait for imports.

It is forked from a server that has imported what takes long and has done nothing else: torch cannot
compute gradients in a fork of a process that has.
"""

import gc
import multiprocessing
import os
import signal
import sys
import traceback
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
        code = self.process.exitcode
        if code is None:  # or it would be waited for when all tests have ended
            self.process.kill()
            self.process.join()
        assert code is not None, f"not at its end after {timeout} seconds"
        return code, self.printed.read_text()


def begin(work: Callable[[], object], *, killed_after: float | None = None) -> int:
    """Fork this process for some work; return the child, whose code is 0, or 3 after an error.

    `killed_after` are seconds by a timer of its own, which a busy parent does not delay.
    """
    child = os.fork()
    if child:
        return child
    code = 3
    try:
        if killed_after is not None:
            kill_in(killed_after)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def end(child: int) -> int:
    """Wait for a child; return its code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_in(seconds: float) -> None:
    """Have the system end this process after some seconds, whatever it does then."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-4))


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
