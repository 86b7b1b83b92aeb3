"""Where the time of a generation goes: each part's seconds, operations and floor.

    python benchmarks/parts.py [nova] [mar] [moving-digits]

The floor is the part's operations at the rate of this machine's fastest product of large matrices.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from recipes import mar, nova

SIDE, ROUNDS = 2048, 3
TOWER = nova.Tower(6, 384, 6)


def of_nova() -> tuple[Callable[[], Any], dict[str, tuple[Any, str]]]:
    """3 frames of 16 x 16 tokens in 16 sets, 25 diffusion steps, guidance 5."""
    model = nova.build(
        nova.NovaConfig(
            temporal=TOWER, encoder=TOWER, decoder=TOWER, head_depth=3, head_width=640,
            text_width=64, text_length=16, latent=(32, 32), frames=3, adapter=24,
        )
    ).eval()  # fmt: skip
    plan, text = nova.GenerationPlan(frames=3, sets=16), torch.randn(1, 16, 64)
    parts = {
        "temporal": (model.temporal, "forward"),
        "spatial": (model.spatial, "forward"),
        "head": (model.head, "sample"),
    }
    return lambda: nova.generate(model, text, plan, generator=seeded()), parts


def of_mar() -> tuple[Callable[[], Any], dict[str, tuple[Any, str]]]:
    """16 x 16 tokens in 16 sets, 25 diffusion steps, guidance 3."""
    model = mar.build(
        mar.MarConfig(
            encoder=TOWER, decoder=TOWER, head_depth=3, head_width=1024, latent=(16, 16),
            channels=16, patch=1, classes=1000, buffer=64,
        )
    ).eval()  # fmt: skip
    guided = mar.Guidance(3.0, start=1.0)
    plan = mar.GenerationPlan(sets=16, diffusion_steps=25, guidance=guided, rounding="floor")
    parts = {"spatial": (model, "forward"), "head": (model.head, "sample")}
    return lambda: mar.generate(model, torch.tensor([5]), plan, generator=seeded()), parts


def of_moving_digits() -> tuple[Callable[[], Any], dict[str, tuple[Any, str]]]:
    """A clip of the model that contar carries, by its defaults."""
    pipe = nova.from_pretrained("moving-digits", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    network = pipe.transformer
    parts = {
        "text": (pipe.text_encoder, "forward"),
        "temporal": (network.temporal, "forward"),
        "spatial": (network.spatial, "forward"),
        "head": (network.head, "sample"),
        "VAE": (pipe.vae, "decode"),
    }
    return lambda: pipe("a seven moves to the left", generator=seeded()), parts


MODELS = {"nova": of_nova, "mar": of_mar, "moving-digits": of_moving_digits}


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@contextlib.contextmanager
def metered(parts: dict[str, tuple[Any, str]], read: Callable[[], float]) -> Iterator[dict]:
    """Add up what each part's calls take off a meter."""
    sums = dict.fromkeys(parts, 0.0)

    def meter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            before = read()
            result = function(*arguments, **options)
            sums[name] += read() - before
            return result

        return call

    for name, (owner, method) in parts.items():
        setattr(owner, method, meter(name, getattr(owner, method)))
    try:
        yield sums
    finally:
        for owner, method in parts.values():
            delattr(owner, method)


def peak() -> float:
    """Return operations a second."""
    a, b = torch.randn(2, SIDE, SIDE)
    times = []
    for _ in range(8):
        start = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - start)
    return 2 * SIDE**3 / min(times[1:])


def table(name: str) -> str:
    """Return a model's parts as Markdown."""
    torch.manual_seed(0)
    run, parts = MODELS[name]()
    run()
    rounds = []
    for _ in range(ROUNDS):
        with metered(parts, time.perf_counter) as seconds:
            start = time.perf_counter()
            run()
            rounds.append((time.perf_counter() - start, seconds))
    whole, seconds = sorted(rounds, key=lambda taken: taken[0])[ROUNDS // 2]
    with (
        FlopCounterMode(display=False) as counter,
        metered(parts, counter.get_total_flops) as flops,
    ):
        run()
    rate, operations = peak(), counter.get_total_flops()
    rest = {"other": (whole - sum(seconds.values()), operations - sum(flops.values()))}
    rows = {part: (seconds[part], flops[part]) for part in parts} | rest
    lines = [f"{name}: {MODELS[name].__doc__} Peak {rate / 1e9:.0f} GFLOP/s.", ""]
    lines += ["| part | s | of all | GFLOP | floor, s |", "|---|---|---|---|---|"]
    for part, (took, count) in {**rows, "all": (whole, operations)}.items():
        cells = [part, f"{took:.3f}", f"{took / whole:.0%}", f"{count / 1e9:.1f}"]
        lines.append("| " + " | ".join([*cells, f"{count / rate:.3f}"]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    asked = sys.argv[1:] or list(MODELS)
    if unknown := set(asked) - set(MODELS):
        sys.exit(f"{sorted(unknown)}: none of {list(MODELS)}\n{__doc__}")
    for chosen in asked:
        print(table(chosen), flush=True)
