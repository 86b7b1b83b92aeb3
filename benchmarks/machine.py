"""What the machine can do: its clock, and the rate of its fastest product of large matrices."""

import time

import torch
from torch import nn

from contar.cpu import speed_up

SIDE = {"cpu": 2048, "cuda": 8192}  # of the matrices
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# Heads that are in use: width, depth, values of a token, width of the condition.
HEADS = {
    "NOVA": (1280, 3, 16, 1024),
    "MAR-B": (1024, 6, 16, 768),
    "MAR-L": (1280, 8, 16, 1024),
    "MAR-H": (1536, 12, 16, 1280),
    "Pocket TTS": (512, 6, 32, 1024),
    "VibeVoice": (1536, 4, 64, 1536),
}


def now(device: str) -> float:
    """Return the time at which all that was asked of the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak(device: str, dtype: str) -> float:
    """Return operations a second, of the fastest of several products."""
    layer = nn.Linear(SIDE[device], SIDE[device], bias=False, device=device, dtype=DTYPES[dtype])
    layer, x = speed_up(layer), torch.randn(layer.weight.shape, device=device).to(layer.weight)
    times = []
    for _ in range(8):
        start = now(device)
        with torch.no_grad():  # as fast as the library takes it
            layer(x)
        times.append(now(device) - start)
    return 2 * SIDE[device] ** 3 / min(times[1:])
