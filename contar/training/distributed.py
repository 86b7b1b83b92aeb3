"""Which of several processes this is, and what they do together."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from contar._errors import bad
from contar._lock import locked

# Variables by which accelerate would train in another way than the loop's arguments say.
_OTHER_WAYS = ("USE_DEEPSPEED", "USE_FSDP", "USE_MEGATRON_LM", "USE_PARALLELISM_CONFIG")
_BACKENDS = ("DYNAMO_BACKEND", "FP8_BACKEND")
_TRUE = ("1", "true", "yes", "y", "t", "on")


def processes() -> Any:
    """Return accelerate's `PartialState`: `is_main_process`, `main_process_first()` and the like.

    The first call decides how long processes wait for one another: half a day, in which the main
    one may make a cache or samples.

    Raises:
        ValueError: a variable of the environment that asks accelerate for another way to train.
        ImportError: accelerate is not installed.
    """
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise ImportError('accelerate is not installed (pip install "contar[train]")') from error
    for name in (*_OTHER_WAYS, *_BACKENDS):
        value = os.environ.get(f"ACCELERATE_{name}", "")
        word = value.strip().lower()
        if (name in _BACKENDS and word not in ("", "no")) or word in _TRUE:
            raise bad(f"ACCELERATE_{name}", value, "no, or no such variable")
    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(hours=12))


def together(act: Callable[[], object]) -> None:
    """Let the main process act while the others wait; what it raises is raised in each."""
    each(act if processes().is_main_process else lambda: None)


def each(act: Callable[[], object]) -> None:
    """Let all processes act; what one raises, the first by number, is raised in each."""
    error = None
    try:
        act()
    except Exception as raised:
        error = raised
    if processes().num_processes > 1:
        from accelerate.utils import gather_object

        error = next((e for e in gather_object([error]) if e is not None), None)
    if error is not None:
        raise error


@contextmanager
def one_run(out: Path) -> Iterator[None]:
    """Keep other runs out of a folder; they are refused with a ValueError that names `out`."""
    with ExitStack() as held:
        together(lambda: held.enter_context(locked(out)))
        yield
