"""Where the time of a generation goes: each part's seconds, operations and floor.

    python -m benchmarks.parts [nova] [mar] [moving-digits] [nova-480p]
        [--device cuda] [--dtype bfloat16] [--batch 8]

The floor is the part's operations at the rate of this machine's fastest product of large matrices.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import DTYPES, SIDE, now, peak
from recipes import mar, nova

ROUNDS = 3
TOWER = nova.Tower(6, 384, 6)
Metered = tuple[Callable[[], Any], dict[str, tuple[Any, str]]]


def of_nova(device: str, dtype: torch.dtype, batch: int) -> Metered:
    """3 frames of 16 x 16 tokens in 16 sets, 25 diffusion steps, guidance 5."""
    config = nova.NovaConfig(
        temporal=TOWER, encoder=TOWER, decoder=TOWER,
        head={"name": "flow", "width": 640, "depth": 3},
        text_width=64, text_length=16, latent=(32, 32), frames=3, adapter=24,
    )  # fmt: skip
    return _of_nova(config, nova.GenerationPlan(frames=3, sets=16), device, dtype, batch)


def of_nova_480p(device: str, dtype: torch.dtype, batch: int) -> Metered:
    """The sizes of the released 480p model; 9 frames in 64 sets, 25 steps, guidance 5."""
    plan = nova.GenerationPlan(frames=9, sets=64)
    return _of_nova("nova-d48w1024-osp480", plan, device, dtype, batch)


def _of_nova(preset: Any, plan: Any, device: str, dtype: torch.dtype, batch: int) -> Metered:
    model = nova.build(preset, device=device, dtype=dtype).eval()
    sizes = model.sizes
    text = torch.randn(batch, sizes.text_length, sizes.text_width).to(device, dtype)
    parts = {
        "temporal": (model.temporal, "forward"),
        "spatial": (model.spatial, "forward"),
        "head": (model.head, "sample"),
    }
    return lambda: nova.generate(model, text, plan, generator=seeded()), parts


def of_mar(device: str, dtype: torch.dtype, batch: int) -> Metered:
    """16 x 16 tokens in 16 sets, 25 diffusion steps, guidance 3."""
    config = mar.MarConfig(
        encoder=TOWER, decoder=TOWER, head=mar.official_head(1024, 3), latent=(16, 16),
        channels=16, patch=1, classes=1000, buffer=64,
    )  # fmt: skip
    model = mar.build(config, device=device, dtype=dtype).eval()
    guided = mar.Guidance(3.0, start=1.0)
    plan = mar.GenerationPlan(sets=16, diffusion_steps=25, guidance=guided, rounding="floor")
    parts = {"spatial": (model, "forward"), "head": (model.head, "sample")}
    classes = torch.arange(batch, device=device)
    return lambda: mar.generate(model, classes, plan, generator=seeded()), parts


def of_moving_digits(device: str, dtype: torch.dtype, batch: int) -> Metered:
    """A clip of the model that contar carries, by its defaults."""
    pipe = nova.from_pretrained("moving-digits", dtype=dtype).to(device)
    pipe.set_progress_bar_config(disable=True)
    network = pipe.transformer
    parts = {
        "text": (pipe.text_encoder, "forward"),
        "temporal": (network.temporal, "forward"),
        "spatial": (network.spatial, "forward"),
        "head": (network.head, "sample"),
        "VAE": (pipe.vae, "decode"),
    }
    prompts = ["a seven moves to the left"] * batch
    return lambda: pipe(prompts, generator=seeded()), parts


MODELS = {
    "nova": of_nova, "mar": of_mar, "moving-digits": of_moving_digits, "nova-480p": of_nova_480p
}  # fmt: skip


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


def table(name: str, device: str, dtype: str, batch: int) -> str:
    """Return a model's parts as Markdown."""
    torch.manual_seed(0)
    run, parts = MODELS[name](device, DTYPES[dtype], batch)
    run()
    rounds = []
    for _ in range(ROUNDS):
        with metered(parts, lambda: now(device)) as seconds:
            start = now(device)
            run()
            rounds.append((now(device) - start, seconds))
    whole, seconds = sorted(rounds, key=lambda taken: taken[0])[ROUNDS // 2]
    with (
        FlopCounterMode(display=False) as counter,
        metered(parts, counter.get_total_flops) as flops,
    ):
        run()
    rate, operations = peak(device, dtype), counter.get_total_flops()
    rest = {"other": (whole - sum(seconds.values()), operations - sum(flops.values()))}
    rows = {part: (seconds[part], flops[part]) for part in parts} | rest
    told = f"{MODELS[name].__doc__} Batch {batch}, {device}, {dtype}"
    lines = [f"{name}: {told}, peak {rate / 1e9:.0f} GFLOP/s.", ""]
    lines += ["| part | s | of all | GFLOP | floor, s |", "|---|---|---|---|---|"]
    for part, (took, count) in {**rows, "all": (whole, operations)}.items():
        cells = [part, f"{took:.3f}", f"{took / whole:.0%}", f"{count / 1e9:.1f}"]
        lines.append("| " + " | ".join([*cells, f"{count / rate:.3f}"]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("models", nargs="*", help=f"of {', '.join(MODELS)}; the first three")
    reader.add_argument("--device", choices=SIDE, default="cpu")
    reader.add_argument("--dtype", choices=DTYPES, default="float32")
    reader.add_argument("--batch", type=int, default=1)
    asked = reader.parse_args()
    if unknown := set(asked.models) - set(MODELS):
        reader.error(f"{sorted(unknown)}: none of {list(MODELS)}")
    for chosen in asked.models or list(MODELS)[:3]:
        print(table(chosen, asked.device, asked.dtype, asked.batch), flush=True)
