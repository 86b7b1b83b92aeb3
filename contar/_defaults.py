"""What others have set, set aside: torch's defaults, progress bars of transformers."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


@contextmanager
def fixed_defaults(device: torch.device | str = "cpu") -> Iterator[None]:
    """Make float32 on `device` where code, others' above all, says neither dtype nor device."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    there = torch.get_default_device() == torch.device(device)
    try:
        with nullcontext() if there else torch.device(device), warnings.catch_warnings():
            # Of numpy's, where it reads a tensor and a default device watches torch's calls.
            warnings.filterwarnings("ignore", "__array_", DeprecationWarning)
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextmanager
def without_bars() -> Iterator[None]:
    """Have transformers show no progress bar, which counts what nobody asked; then as before."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
