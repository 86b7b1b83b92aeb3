"""What the judges see in one generated clip, beside what was asked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from contar._typing import Tensor, UInt8
from recipes.moving_digits.data.moving import MovingDigit
from recipes.moving_digits.judges.judge import DigitJudge, majority
from recipes.moving_digits.judges.mass import sharpness
from recipes.moving_digits.judges.reader import Reader
from recipes.moving_digits.judges.tracking import bounced, direction_of, speed_of


@dataclass(frozen=True)
class Outcome:
    """One clip: what was asked, and what is seen in the frames that were generated.

    Attributes:
        task: what the model was given, as in `TASKS`.
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
        frames: what the judge sees in each frame, -1 for no digit.
        change: of the writing from the first frame to the last, as `DigitJudge.change`; None where
            one shows nothing.
        sharpness: of the edges of the last frame over that of the first, likewise.
        bounced: whether it was thrown back where its way met a wall; None where it met none.
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
    frames: tuple[int, ...] = ()
    change: float | None = None
    sharpness: float | None = None
    bounced: bool | None = None


def watch(
    task: str,
    indices: Sequence[int],
    samples: Sequence[MovingDigit],
    clips: UInt8[Tensor, "b t h w 3"],
    given: int,
    judge: DigitJudge,
    reader: Reader | None = None,
) -> list[Outcome]:
    """Return what is seen in each clip after its first `given` frames, which are not judged.

    The writing and the sharpness of the last frame are held against those of the clip's first.
    """
    made = clips[:, given:]
    labels = judge.digits(made.flatten(0, 1)).view(made.shape[:2]).cpu()
    seen = majority(labels).tolist()
    read = reader.majority(made).tolist() if reader else [None] * len(made)
    changes = judge.change(clips[:, 0], clips[:, -1])
    ratios = sharpness(clips[:, -1]) / sharpness(clips[:, 0])
    return [
        Outcome(
            task=task, index=index,
            digit=sample.digit, seen=seen[row], read=read[row],
            direction=sample.direction, moved=direction_of(made[row]),
            speed=sample.speed, pace=_number(speed_of(made[row])),
            frames=tuple(labels[row].tolist()),
            change=_number(float(changes[row])),
            sharpness=_number(float(ratios[row])),
            bounced=bounced(clips[row], len(sample.frames)) if task == "longer" else None,
        )
        for row, (index, sample) in enumerate(zip(indices, samples, strict=True))
    ]  # fmt: skip


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
