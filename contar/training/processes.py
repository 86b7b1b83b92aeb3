"""Which of several processes this is."""

from typing import Any

import torch


def processes() -> Any:
    """Return accelerate's `PartialState`: `is_main_process`, `main_process_first()` and the like.

    Raises:
        ImportError: accelerate is missing; "contar[train]" has it.
    """
    from accelerate import PartialState

    return PartialState(cpu=not torch.cuda.is_available())
