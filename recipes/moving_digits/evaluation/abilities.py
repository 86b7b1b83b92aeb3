"""What a model can do, as functions: all that evaluation knows of a model."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

import torch

from contar._errors import check_callable
from contar._typing import Tensor
from recipes.moving_digits.data.moving import MovingDigit

GIVEN = 9  # frames that a continuation goes on from


@runtime_checkable
class Clips(Protocol):
    """A data set that asks: `MovingDigits`, or any list of its samples."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> MovingDigit: ...


@dataclass(frozen=True)
class Abilities:
    """What a model can do, each a function, or None where it cannot.

    Clips are uint8 [b, t, h, w, 3]. A call makes as many as it has captions, and clip i of a call
    is drawn from `seed + i`: so that no clip depends on the others of its batch.

    Attributes:
        text_to_video: (captions, seed, motion) to clips, where motion is None or a motion score
            for each caption.
        image_to_video: (first frames [b, h, w, 3], captions, seed) to clips, the first included.
        continuation: (first frames [b, 9, h, w, 3], captions, seed) to clips, those 9 included.
        longer: (captions, seed) to clips of three times the length that the model learned.
        reconstruct: clips to clips, through the tokenizer.

    Raises:
        ValueError: something that cannot be called.
    """

    text_to_video: Callable[[list[str], int, list[float] | None], Tensor] | None = None
    image_to_video: Callable[[Tensor, list[str], int], Tensor] | None = None
    continuation: Callable[[Tensor, list[str], int], Tensor] | None = None
    longer: Callable[[list[str], int], Tensor] | None = None
    reconstruct: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) is not None:
                check_callable(field.name, getattr(self, field.name))


TASKS = {
    "text": "text_to_video",
    "motion": "text_to_video",
    "image": "image_to_video",
    "continuation": "continuation",
    "longer": "longer",
    "tokenizer": "reconstruct",
}
"""Which ability each task needs."""


def real(dataset: Clips, *, seed: int = 0, longer: Clips | None = None) -> Abilities:
    """Return the abilities of a model that knows the clips of a data set and shows them.

    Args:
        dataset: the one to be evaluated on.
        seed: the one to be evaluated with, which tells the first index of a call.
        longer: the same courses, three times as long; None leaves the ability out.
    """

    def show(captions: list[str], first: int, clips: Clips = dataset) -> Tensor:
        return torch.stack([clips[first - seed + i].frames for i in range(len(captions))])

    return Abilities(
        text_to_video=lambda captions, first, motion: show(captions, first),
        image_to_video=lambda frames, captions, first: show(captions, first),
        continuation=lambda frames, captions, first: show(captions, first),
        longer=None if longer is None else lambda captions, first: show(captions, first, longer),
        reconstruct=lambda clips: clips,
    )
