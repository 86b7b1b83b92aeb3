"""Runs of two processes that share weights out, or whose parts of a batch count unlike."""

import sys
from pathlib import Path

import tiny_run
import torch
from torch import nn

from contar import cpu
from contar._random import seeded_weights
from contar.backbones import Block
from contar.cpu import speed_up
from contar.training import RunConfig, processes, train
from recipes import cli


def options(out: Path, *more: str) -> list[str]:
    few = ("--steps", "3", "--save_every", "2", "--validate_every", "2", "--clip", "1e9")
    return [str(out), *few, *more]


class Tokens(nn.Module):
    """A mean over as many values of a sample as its number says."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        kept = x.repeat_interleave((8 * x).long() % 4 + 1)
        return {
            "loss": (self.a[0] * kept - 2 * kept + self.a[1]).square().mean(),
            "tokens": torch.tensor(kept.numel()),
        }


def weigh(out: Path, **more) -> None:
    config = RunConfig(steps=2, batch=8, warmup=0, log_every=1, validate_every=1, **more)
    held = [range(3), range(3, 4), range(4, 9)]

    def load(indices, step):
        return (torch.tensor(list(indices)).float() / 8,)

    options: dict = {"validate": held, "load_validation": load}
    train(Tokens(), load, config, out, count=16, **options)


class Wide(nn.Module):
    """A block wide enough for the layers of `contar.cpu`; a hook sees whether they act."""

    def __init__(self) -> None:
        super().__init__()
        with seeded_weights(0):
            self.block = speed_up(Block(512, 8, mlp_ratio=1.0))
        self.seen: list[bool] = []
        self.block.attn.qkv.register_forward_hook(self._see)

    def _see(self, layer: nn.Module, given: tuple[torch.Tensor], made: torch.Tensor) -> None:
        self.seen.append(cpu._at_hand(given[0], layer.weight))  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.block(x) - 2 * x).square().mean()}


def widen(out: Path, **more) -> None:
    config = RunConfig(steps=2, batch=2, warmup=0, log_every=1, **more)

    def load(indices, step):
        waves = [torch.sin(torch.arange(1024) * (index + 1.0)) for index in indices]
        return (torch.stack(waves).view(-1, 2, 512),)

    objective = Wide()
    train(objective, load, config, out, count=4)
    assert objective.seen == [True, True]


def in_two(folder: Path) -> None:
    """What two processes do, to begin them once."""
    tiny_run.main(options(folder / "shared", "--shard", "1", "--gradients", f"{folder}/shared.pt"))
    tiny_run.main(options(folder / "whole", "--shard", "1", "--resume"))
    weigh(folder / "weighed")
    weigh(folder / "weighed-shared", shard=True, parts=2)
    widen(folder / "wide-shared", shard=True)
    sys.argv = ["contar", "train", "cached", "--cache", "nowhere", "--out", str(folder / "none")]
    try:
        cli.main()
    except SystemExit as stop:
        (folder / f"said-{processes().process_index}.txt").write_text(str(stop.code))
