"""What the judges see in one generated clip, beside what was asked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from contar._typing import Int, Tensor, UInt8
from contar.data import MovingDigit
from contar.evaluation.tracking import direction_of, speed_of


@runtime_checkable
class ClipJudge(Protocol):
    """Names the digit of clips: a `DigitJudge`, a `Reader`."""

    def majority(self, clips: UInt8[Tensor, "b t h w 3"]) -> Int[Tensor, " b"]:
        """Return the digit of each clip, -1 for none."""
        ...


@dataclass(frozen=True)
class Outcome:
    """One clip: what was asked, and what is seen in the frames that were generated.

    Attributes:
        task: what the model was given, as in `contar.evaluation.TASKS`.
        index: of the clip in the data set that asks.
        digit: asked.
        seen: by the judge, -1 for none.
        read: by the reader, -1 for none; None without a reader.
        direction: asked; None stands still.
        moved: measured, "lost" where little is to be seen.
        speed: asked, pixels a frame.
        pace: measured; None where lost.
        asked_score: the motion score that was asked for, or None.
        score: the motion score of the clip; None unless one was asked for.
    """

    task: str
    index: int
    digit: int
    seen: int
    read: int | None
    direction: str | None
    moved: str | None
    speed: float
    pace: float | None
    asked_score: float | None = None
    score: float | None = None


def watch(
    task: str,
    indices: Sequence[int],
    samples: Sequence[MovingDigit],
    clips: UInt8[Tensor, "b t h w 3"],
    given: int,
    judge: ClipJudge,
    reader: ClipJudge | None = None,
) -> list[Outcome]:
    """Return what is seen in each clip after its first `given` frames, which are not judged."""
    made = clips[:, given:]
    seen = judge.majority(made).tolist()
    read = reader.majority(made).tolist() if reader else [None] * len(made)
    outcomes = []
    for row, (index, sample) in enumerate(zip(indices, samples, strict=True)):
        pace = speed_of(made[row])
        outcomes.append(
            Outcome(
                task,
                index,
                sample.digit,
                seen[row],
                read[row],
                sample.direction,
                direction_of(made[row]),
                sample.speed,
                None if math.isnan(pace) else pace,
            )
        )
    return outcomes
