"""Classifier-free guidance as one immutable value."""

from dataclasses import dataclass, replace
from typing import Literal

from contar._errors import bad, check_choice, check_number, check_timestep, keep_plain
from contar._typing import Float, Tensor


@dataclass(frozen=True)
class Guidance:
    """How far a prediction is pushed from the unconditional to the conditional one, and when.

        guided = uncond + scale * (cond - uncond)        (Ho & Salimans 2022, arXiv 2207.12598)

    Args:
        scale: at least 0; from 0 to 1 there is no guidance at all.
        start: scale where nothing is done; it rises linearly with the share of generation that is
            done, up to `scale` at the end. None is constant.
        truncation: below this timestep there is no guidance; they go to the scheduler's last, 1000
            as a rule.
        renorm: least factor, in [0, 1], by which a guided prediction longer than the conditional
            one is shortened back to its length; 1 is off.
        renorm_over: whose length is meant, for each sample: that of the predicted "tokens", or of
            the whole "frame", where NOVA's code counts each other token's noise as its prediction.
        ceiling: above this timestep there is no guidance; None is no ceiling. Guidance in an
            interval: Kynkäänniemi et al. 2024, arXiv 2404.07724.
        interval: shares of generation between which there is guidance, both included, the same
            over sets; a set without it takes one pass of the spatial tower instead of two.

    Raises:
        ValueError: NaN, infinity or a number outside its range.
    """

    scale: float = 1.0
    start: float | None = None
    truncation: float = 0.0
    renorm: float = 1.0
    renorm_over: Literal["tokens", "frame"] = "tokens"
    ceiling: float | None = None
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        keep_plain(self)
        check_number("guidance.scale", self.scale, 0)
        if self.start is not None:
            check_number("guidance.start", self.start, 0)
        check_number("guidance.truncation", self.truncation, 0)
        if self.ceiling is not None:
            check_number("guidance.ceiling", self.ceiling, self.truncation)
        if not isinstance(self.interval, tuple) or len(self.interval) != 2:
            raise bad("guidance.interval", self.interval, "(first, last), shares in [0, 1]")
        check_number("guidance.interval", self.interval[0], 0, 1)
        check_number("guidance.interval", self.interval[1], self.interval[0], 1)
        check_number("guidance.renorm", self.renorm, 0, 1)
        check_choice("guidance.renorm_over", self.renorm_over, ("tokens", "frame"))

    @property
    def active(self) -> bool:
        """Whether any set may be guided, so that unconditional states are needed."""
        return max(self.scale, self.start or 0) > 1

    def at(self, done: float) -> "Guidance":
        """Return the guidance, constant, when a share `done` in [0, 1] of generation is done.

        What is drawn counts as done: NOVA counts sets, k / K for the k-th of K, so that none has
        the scale `start`; MAR counts tokens.

        Raises:
            ValueError: a share outside [0, 1].
        """
        if not 0 <= done <= 1:
            raise bad("done", done, "a share in [0, 1]")
        scale = self.scale
        if not self.interval[0] <= done <= self.interval[1]:
            scale = 1.0
        elif self.start is not None:
            scale = self.start + (self.scale - self.start) * done
        elif self.interval == (0, 1):
            return self
        return replace(self, scale=scale, start=None, interval=(0.0, 1.0))

    @property
    def constant(self) -> bool:
        """Whether it is the same in all sets."""
        return self.start is None and self.interval == (0, 1)

    def check_constant(self) -> None:
        """Raise a ValueError for a guidance that changes from set to set."""
        for name, constant in (("start", None), ("interval", (0, 1))):
            if (value := getattr(self, name)) != constant:
                raise bad(f"guidance.{name}", value, f"{constant}: take guidance.at(share done)")

    def check_timesteps(self, last: int) -> None:
        """Raise a ValueError unless truncation and ceiling are 0, or timesteps from 1 to `last`."""
        check_timestep("guidance.truncation", self.truncation, last)
        if self.ceiling is not None:
            check_timestep("guidance.ceiling", self.ceiling, last)

    def applies(self, timestep: float) -> bool:
        """Whether a constant guidance acts at this timestep."""
        below = self.ceiling is None or timestep <= self.ceiling
        return self.scale > 1 and below and timestep >= self.truncation

    def combine(
        self, cond: Float[Tensor, "b n c"], uncond: Float[Tensor, "b n c"]
    ) -> Float[Tensor, "b n c"]:
        """Return the guided prediction; renormalised over the tokens that are given."""
        guided = uncond + self.scale * (cond - uncond)
        if self.renorm >= 1:
            return guided
        lengths = [x.flatten(1).norm(dim=1)[:, None, None] for x in (cond, guided)]
        return guided * (lengths[0] / lengths[1].clamp_min(1e-12)).clamp(self.renorm, 1)
