"""Which of several processes this is."""

from datetime import timedelta
from typing import Any

import torch


def processes() -> Any:
    """Return accelerate's `PartialState`: `is_main_process`, `main_process_first()` and the like.

    The first call decides how long processes wait for one another: half a day, in which the main
    one may make a cache or samples.

    Raises:
        ImportError: accelerate is not installed.
    """
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise ImportError('accelerate is not installed (pip install "contar[train]")') from error
    return PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(hours=12))
