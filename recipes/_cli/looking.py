"""The command line of looking at a model: what it is made of, and how good it is."""

from pathlib import Path
from typing import Annotated

import tyro

from recipes._cli.pipes import Loading


def info(
    model: Annotated[
        str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")
    ] = "nova-d48w1024-osp480",
    frames: int | None = None,
    heads: tuple[int, int] | None = None,
) -> None:
    """Print what a model is made of and what memory it needs; no weights are read.

    Args:
        model: "moving-digits", folder of a pipeline, ours or in the released layout, or a preset's
            name.
        frames: that memory is stated for; the model's own default if left out.
        heads: as in `generate`.
    """
    from recipes._nova import info

    print(info.describe(model, frames=frames, num_heads=heads))


def evaluate(
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = "moving-digits",
    out: Path = Path("scores"),
    count: int = 200,
    seed: int = 1000,
    fast: bool = False,
    lengths: tuple[int, ...] = (),
) -> None:
    """Judge a pipeline of moving digits on prompts that training never saw; print a table.

    With `--lengths 1 2 3 6` it is judged how far videos drift that are so many times as long as
    what it learned, segment by segment, by each way of making them.

    Args:
        model: "moving-digits", or folder of the pipeline.
        out: folder for the scores as JSON, their picture, and a line for each clip.
        count: clips asked for, in each task.
        seed: of the clips.
        fast: in a quarter of the sets, but four if there are so many, and few steps of each.
        lengths: of the videos, in clips of the learned length, rising.
    """
    from contar._errors import bad, check_count, check_size
    from recipes.moving_digits import evaluate_pipeline, measure_drift
    from recipes.moving_digits.evaluation.drift import check_lengths

    check_size("count", count, 2)
    check_count("seed", seed, 0)
    if lengths:
        check_lengths(lengths)
        if fast:
            raise bad("fast", True, "False beside lengths")
    pipe = Loading(model, dtype="float32").load()
    if lengths:
        print(measure_drift(pipe, out, lengths=lengths, count=count, seed=seed).table())
        print(f"drift.json, drift.md and drift.png: {out}")
        return
    print(evaluate_pipeline(pipe, out, count=count, seed=seed, fast=fast).table())
    print(f"scores.json and scores.png: {out}")
