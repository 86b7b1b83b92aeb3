"""The command line of measuring: what a token head of one's own size costs."""

from functools import partial
from itertools import product
from typing import Annotated, Any, Literal

import tyro


def bench(
    part: Annotated[
        Literal["heads"], tyro.conf.Positional, tyro.conf.arg(metavar="PART")
    ] = "heads",
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
    """Print how long a diffusion MLP of one's own size, with random weights, takes to draw a set.

    Args:
        part: what is measured: heads.
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
    counted = {"tokens": tokens, "steps": steps, "batch": (batch,), "rounds": (rounds,)}
    for name, counts in counted.items():
        if not counts:
            raise bad(name, "none", "one or more")
        for count in counts:
            check_count(name, count)
    head: Any = make_head({"name": "flow", "width": width, "depth": depth}, values, cond_width)
    head = speed_up(head.to(device, getattr(torch, dtype)).eval())
    parameters = sum(p.numel() for p in head.parameters())
    print(f"{depth} x {width}, {parameters / 1e6:.1f} million parameters, batch {batch},")
    print(f"{'guided' if guided else 'not guided'}, {dtype}, {device}, torch {torch.__version__}\n")
    print("| tokens | steps | how | p50, ms | p20 to p80 | ms a token |\n|---|---|---|---|---|---|")
    for count, number in product(tokens, steps):
        pair = torch.randn(2, batch, count, cond_width).to(head.network.token.weight)
        for how, (low, middle, high) in _timed(head, pair, number, guided, rounds).items():
            each = middle / count / batch
            times = f"{middle:.3g} | {low:.3g} to {high:.3g} | {each:.3g}"
            print(f"| {count} | {number} | {how} | {times} |", flush=True)


def _timed(
    head: Any, pair: Any, steps: int, guided: bool, rounds: int
) -> dict[str, tuple[float, ...]]:
    """Return milliseconds of a draw, at 20, 50 and 80 percent of the rounds, by the way to draw.

    The pair [2, batch, tokens, cond_width] are conditions, and those that guidance leads away from.
    """
    import torch

    from contar._timing import in_turn, quantile
    from contar.conditioning import Guidance
    from contar.generation import Graphs
    from contar.heads import Noise

    def draw(noise: Any, pair: Any) -> Any:
        more = {"uncond": pair[1], "guidance": Guidance(5.0)} if guided else {}
        return head.sample(pair[0], noise=noise, steps=steps, **more)

    noise, device = Noise(torch.Generator().manual_seed(0), pair.device), str(pair.device)
    runs: dict[str, Any] = {"one by one": partial(draw, noise, pair)}
    if pair.is_cuda:
        graphs = Graphs()
        graphs.bind(head)
        runs["graph"] = partial(graphs, "draw", draw, noise, pair)
    with torch.no_grad():
        in_turn(runs, device=device, rounds=2)  # the first captures, the second replays
        seconds = in_turn(runs, device=device, rounds=rounds)
    return {
        how: tuple(1e3 * quantile(took, share) for share in (0.2, 0.5, 0.8))
        for how, took in seconds.items()
    }
