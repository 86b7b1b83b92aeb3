"""How long things take: in turn, so that a machine whose pace changes treats all alike."""

import time
from collections.abc import Callable, Mapping

import torch


def now(device: str) -> float:
    """Return the time at which all that was asked of the device is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter()


def in_turn(
    runs: Mapping[str, Callable[[], object]], *, device: str, rounds: int, inner: int = 1
) -> dict[str, list[float]]:
    """Return each run's seconds, measured A B A B, each time the mean of `inner` calls."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = now(device)
            for _ in range(inner):
                run()
            seconds[name].append((now(device) - start) / inner)
    return seconds


def quantile(values: list[float], share: float) -> float:
    """Return a quantile, between the nearest two where it falls between."""
    return torch.tensor(values, dtype=torch.float64).quantile(share).item()
