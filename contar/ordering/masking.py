"""Training masks: which tokens a model sees and which it has to predict."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from contar._errors import (
    bad,
    check_choice,
    check_number,
    check_shape,
    check_tensor,
)
from contar._random import Generators, check_generator, uniform
from contar._typing import Bool, Float, Int, Tensor
from contar.ordering.orders import check_batch, check_order, random_order
from contar.ordering.sizes import Rounding


@dataclass(frozen=True)
class TrainingMask:
    """Hidden and visible tokens of a batch.

    Attributes:
        hidden: [b, n], True where a token has to be predicted.
        visible_ids: [b, v], the positions of the visible tokens; where samples differ in number,
            shorter rows are filled up with hidden positions.
        padding_mask: [b, v], True where `visible_ids` is such filling; None where there is none.

    Raises:
        ValueError: shapes that do not fit, or other dtypes. What the ids say is not looked at.
    """

    hidden: Bool[Tensor, "b n"]
    visible_ids: Int[Tensor, "b v"]
    padding_mask: Bool[Tensor, "b v"] | None = None

    def __post_init__(self) -> None:
        check_tensor("hidden", self.hidden, (None, None), "[b, n]", kind="bool")
        ids, batch = self.visible_ids, len(self.hidden)
        check_tensor("visible_ids", ids, (batch, None), "[b, v]", kind="int")
        if self.padding_mask is not None:
            check_tensor("padding_mask", self.padding_mask, ids.shape, "[b, v]", kind="bool")

    def hidden_ids(self) -> Int[Tensor, "b m"] | None:
        """Return the hidden positions, each row rising; None where rows differ in number."""
        if self.padding_mask is not None:
            return None
        count = self.hidden.shape[1] - self.visible_ids.shape[1]
        return self.hidden.byte().argsort(dim=1, descending=True, stable=True)[:, :count]

    def check(self, rows: int, tokens: int, device: torch.device) -> None:
        """Raise a ValueError unless each of so many positions is either hidden or visible.

        Some have to be hidden, and all of it has to be on `device`. Which positions are named is
        seen on the CPU only: a look would make a GPU wait.
        """
        hidden, ids, padding_mask = self.hidden, self.visible_ids, self.padding_mask
        check_shape("mask.hidden", hidden.shape, (rows, tokens), "[rows, tokens]")
        if hidden.device != device or ids.device != device:
            raise bad("mask", f"one on {hidden.device} and {ids.device}", f"one on {device}")
        if device.type != "cpu":
            return
        if ((ids < 0) | (ids >= tokens)).any():
            raise bad("mask.visible_ids", "positions outside", f"integers from 0 to {tokens - 1}")
        shown = torch.ones_like(ids) if padding_mask is None else (~padding_mask).to(ids.dtype)
        counts = torch.zeros_like(hidden, dtype=ids.dtype).scatter_add(1, ids.long(), shown)
        if (counts != (~hidden)).any():
            allowed = "those that mask.hidden shows, each once"
            raise bad("mask.visible_ids", "other positions", allowed)
        if not hidden.any():
            raise bad("mask.hidden", "no hidden token", "at least one")


def mask_by_order(order: Int[Tensor, "b n"], visible: Int[Tensor, " b"]) -> TrainingMask:
    """Return the mask under which the first `visible` tokens of each order are seen.

    Args:
        visible: [b], how many tokens each sample shows, from 0 to n - 1.

    Raises:
        ValueError: rows that are no permutations, a number outside its range, or another number
            of them.
    """
    check_order(order)
    check_tensor("visible", visible, (max(1, len(order)),), "[b]", kind="int")
    return _mask_by_order(order, visible)


def _mask_by_order(order: Tensor, visible: Tensor) -> TrainingMask:
    tokens = order.shape[1]
    counts = visible.tolist()
    if not all(0 <= count < tokens for count in counts):
        raise bad("visible", counts, f"integers from 0 to {tokens - 1}")
    shown = torch.arange(tokens, device=order.device) < visible[:, None]
    hidden = torch.ones_like(shown).scatter(1, order, ~shown)
    most = max(counts)
    filling = None if min(counts) == most else ~shown[:, :most]
    return TrainingMask(hidden, order[:, :most], filling)


def full_mask(batch: int, tokens: int, *, device: torch.device | str = "cpu") -> TrainingMask:
    """Return the mask that hides everything; a ValueError for a size below 1."""
    check_batch(batch, tokens, device)
    hidden = torch.ones(batch, tokens, dtype=torch.bool, device=device)
    return TrainingMask(hidden, hidden[:, :0].long())


def truncated_normal_mask(
    batch: int,
    tokens: int,
    *,
    low: float = 0.7,
    high: float = 1.0,
    mean: float = 1.0,
    std: float = 0.25,
    ratio: Literal["batch", "sample"] = "batch",
    rounding: Rounding = "nearest",
    generator: Generators | None = None,
    device: torch.device | str = "cpu",
) -> TrainingMask:
    """Hide a random share of each sample's tokens, drawn from a truncated normal distribution.

    The hidden number is what remains when the visible share is rounded to whole tokens; at least
    one is hidden. Source: shares in [0.7, 1], MAR (arXiv 2406.11838, section 4.2) and NOVA (arXiv
    2412.14169, section 4.1); mean 1 and std 0.25 of both official codes.

    Args:
        batch: samples (NOVA: each frame of each sample is one).
        mean: of the distribution before it is cut.
        std: of the distribution before it is cut, above 0.
        ratio: one share for the whole "batch", as in the papers, or one for each "sample".
        rounding: of the visible tokens: "nearest" (NOVA) or "floor" (MAR).
        generator: draws the share (or shares), then the order. With a list, "batch" takes the
            share from the first.

    Raises:
        ValueError: a number outside its range, or generators that do not fit.
    """
    check_batch(batch, tokens, device)
    low = check_number("low", low, 0, 1)
    high = check_number("high", high, low, 1)
    mean, std = check_number("mean", mean), check_number("std", std)
    if std <= 0:
        raise bad("std", std, "a number above 0")
    check_choice("ratio", ratio, ("batch", "sample"))
    check_choice("rounding", rounding, get_args(Rounding))
    generator = check_generator(generator, batch, device)
    u = uniform(batch, 1, generator=generator).squeeze(1)
    u = u if ratio == "sample" else u[:1].expand(batch)
    shares = _truncated_normal(u, low, high, mean, std)
    visible = (1 - shares) * tokens
    visible = visible.round() if rounding == "nearest" else visible.floor()
    visible = visible.clamp(max=tokens - 1).long()
    order = random_order(batch, tokens, generator=generator, device=device)
    return _mask_by_order(order, visible.to(device))


def _truncated_normal(
    u: Float[Tensor, " b"], low: float, high: float, mean: float, std: float
) -> Float[Tensor, " b"]:
    """Map uniform draws through the inverse of the cut distribution's cumulative function."""
    a, b = (low - mean) / std, (high - mean) / std
    sign = 1.0
    if a + b > 0:  # the upper tail has no digits left; work in the lower one
        a, b, sign = -b, -a, -1.0
    start, stop = (0.5 * math.erfc(-x / math.sqrt(2)) for x in (a, b))
    quantile = start + u.double() * (stop - start)
    x = torch.where(quantile > 0, torch.special.ndtri(quantile), b)  # beyond 37 deviations: the end
    return (mean + sign * std * x).clamp(low, high)
