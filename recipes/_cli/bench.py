"""The command line of measuring: what a token head of one's own size costs."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any, Literal


def heads(
    width: int = 1280,
    depth: int = 3,
    values: int = 16,
    cond_width: int = 1024,
    tokens: tuple[int, ...] = (1, 16, 256),
    steps: tuple[int, ...] = (1, 4, 25),
    batch: int = 1,
    guided: bool = True,
    device: str = "cpu",
    dtype: Literal["float32", "bfloat16"] = "float32",
    rounds: int = 7,
) -> None:
    """Print how long a diffusion MLP of this size, with random weights, takes to draw a set.

    Args:
        width: of the head.
        depth: its blocks.
        values: of a token.
        cond_width: of the condition.
        tokens: of a set, each a row.
        steps: of diffusion, likewise.
        batch: samples.
        guided: whether each token is drawn with guidance.
        device: as torch names it, such as "cuda"; there a set is also replayed as a graph.
        dtype: of the weights.
        rounds: each run is timed so often, all in turn.
    """
    import torch

    from contar._errors import bad, check_count, check_device
    from contar.cpu import speed_up
    from contar.heads import make_head

    check_device("device", device)
    for name, counts in {"tokens": tokens, "steps": steps, "batch": (batch,)}.items():
        if not counts:
            raise bad(name, "none", "one or more")
        for count in counts:
            check_count(name, count)
    check_count("rounds", rounds)
    head: Any = make_head({"name": "flow", "width": width, "depth": depth}, values, cond_width)
    head = speed_up(head.to(device, getattr(torch, dtype)).eval())
    parameters = sum(p.numel() for p in head.parameters())
    print(f"{depth} x {width}, {parameters / 1e6:.1f} million parameters, batch {batch},")
    print(f"{'guided' if guided else 'not guided'}, {dtype}, {device}, torch {torch.__version__}\n")
    print("| tokens | steps | how | p50, ms | p20 to p80 | ms a token |\n|---|---|---|---|---|---|")
    for row in _timed(
        head, tokens, steps, batch=batch, guided=guided, device=device, rounds=rounds
    ):
        print("| " + " | ".join(row) + " |", flush=True)


def _timed(
    head: Any,
    tokens: Sequence[int],
    steps: Sequence[int],
    *,
    batch: int,
    guided: bool,
    device: str,
    rounds: int,
) -> Iterator[list[str]]:
    """Yield the cells of a row for each number of tokens and of steps, and each way to draw."""
    import torch

    from contar._timing import in_turn, quantile
    from contar.conditioning import Guidance
    from contar.generation import Graphs
    from contar.heads import Noise

    def draw(number: int, noise: Any, pair: Any) -> Any:
        more = {"uncond": pair[1], "guidance": Guidance(5.0)} if guided else {}
        return head.sample(pair[0], noise=noise, steps=number, **more)

    graphs, noise = Graphs(), Noise(torch.Generator().manual_seed(0), device)
    graphs.bind(head)
    for count, number in product(tokens, steps):
        pair = torch.randn(2, batch, count, head.cond_dim).to(head.network.token.weight)
        step = partial(draw, number)
        runs: dict[str, Callable[[], Any]] = {"one by one": partial(step, noise, pair)}
        if torch.device(device).type == "cuda":
            runs["graph"] = partial(graphs, (number, guided), step, noise, pair)
        with torch.no_grad():
            in_turn(runs, device=device, rounds=2)  # the first captures, the second replays
            seconds = in_turn(runs, device=device, rounds=rounds)
        for how, took in seconds.items():
            low, middle, high = (1e3 * quantile(took, share) for share in (0.2, 0.5, 0.8))
            times = [f"{middle:.3g}", f"{low:.3g} to {high:.3g}", f"{middle / count / batch:.3g}"]
            yield [str(count), str(number), how, *times]
