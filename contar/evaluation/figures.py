"""A figure with its interval, and the scores of a model: figures by name."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import torch

from contar._defaults import fixed_defaults
from contar._errors import bad, check_count, check_number
from contar.evaluation.distances import require_torchmetrics

_Z = 1.959964  # of the normal distribution's middle 95%


@dataclass(frozen=True)
class Figure:
    """A number and how sure it is.

    Attributes:
        value: None where nothing defines it, or where it is infinite (the PSNR of equal frames).
        count: of the clips that it was measured on; for the tokenizer of the frames.
        low: of the 95% interval; None where there is none.
        high: likewise.
    """

    value: float | None
    count: int
    low: float | None = None
    high: float | None = None

    def text(self, form: str = "{:.3f}", *, scale: float = 1.0, interval: bool = True) -> str:
        """Return it as text, `scale` times, with its interval if there is one; "–" for no value."""
        if self.value is None:
            return "–"
        text = form.format(scale * self.value)
        if not interval or self.low is None or self.high is None:
            return text
        return f"{text} ({form.format(scale * self.low)} to {form.format(scale * self.high)})"


@dataclass(frozen=True)
class Scores:
    """What came out, and all that it takes to repeat it.

    Attributes:
        figures: by name.
        settings: data set, seeds, counts, judges, versions, and the notes of the caller.
        outcomes: clip by clip, each a dataclass.
    """

    figures: Mapping[str, Figure]
    settings: Mapping[str, Any]
    outcomes: tuple[Any, ...] = ()


def share(hits: int, count: int) -> Figure:
    """Return hits / count with its Wilson 95% interval; no value for a count of 0.

    Raises:
        ValueError: negative numbers, or more hits than counted.

    Source: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927.
    """
    if check_count("hits", hits, 0) > check_count("count", count, 0):
        raise bad("hits", hits, f"at most the count, {count}")
    if not count:
        return Figure(None, 0)
    p, weight = hits / count, _Z**2 / count
    middle = (p + weight / 2) / (1 + weight)
    reach = math.sqrt(p * (1 - p) * weight + weight**2 / 4) / (1 + weight)
    return Figure(p, count, max(0.0, middle - reach), min(1.0, middle + reach))


def mean(values: Sequence[float]) -> Figure:
    """Return the mean with the normal distribution's 95% interval, from 2 values on."""
    if len(values) < 2:
        return Figure(values[0] if values else None, len(values))
    reach = _Z * stdev(values) / math.sqrt(len(values))
    middle = fmean(values)
    return Figure(middle, len(values), middle - reach, middle + reach)


@fixed_defaults()
def rank_correlation(asked: Sequence[float], measured: Sequence[float]) -> Figure:
    """Return Spearman's correlation with an approximate 95% interval, from 4 pairs on.

    Equal values share their mean rank. There is no value where either list holds one number only,
    over and over.

    Raises:
        ValueError: lists of other lengths, or numbers that are not finite.
        ImportError: torchmetrics is not installed.

    Source: Bonett and Wright, "Sample Size Requirements for Estimating Pearson, Kendall and
    Spearman Correlations", 2000: Fisher's transform with variance (1 + r²/2) / (n - 3).
    """
    count = len(asked)
    if len(measured) != count:
        raise bad("measured", f"{len(measured)} numbers", f"{count}, as many as asked")
    pairs = {"asked": asked, "measured": measured}
    lists = [[check_number(name, x) for x in numbers] for name, numbers in pairs.items()]
    if any(len(set(numbers)) < 2 for numbers in lists):
        return Figure(None, count)
    ranked = (torch.tensor(numbers, dtype=torch.float64) for numbers in lists)
    found = require_torchmetrics().functional.regression.spearman_corrcoef(*ranked)
    value = max(-1.0, min(1.0, float(torch.as_tensor(found))))
    if count < 4:
        return Figure(value, count)
    if abs(value) > 1 - 1e-5:  # Fisher's transform of 1 is infinite
        return Figure(value, count, value, value)
    reach = _Z * math.sqrt((1 + value**2 / 2) / (count - 3))
    low, high = (math.tanh(math.atanh(value) + sign * reach) for sign in (-1, 1))
    return Figure(value, count, low, high)
