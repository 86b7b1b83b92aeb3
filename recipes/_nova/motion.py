"""The motion of a clip, as numbers: its optical flow score and frame rate."""

from collections.abc import Sequence

import torch

from contar._errors import bad, check_number, check_tensor, plain
from contar._typing import Float, Tensor
from recipes._nova.network import Nova

UNSET = -1.0
"""The motion score of clips whose score was not said, in training that leaves it out."""
MOTION = {"motion_flow": 5.0, "fps": 12.0}  # where nothing is said
Numbers = float | Sequence[float] | Float[Tensor, " b"] | None  # in training, perhaps on a GPU


def motion_numbers(
    model: Nova, batch: int, flow: Numbers, fps: Numbers
) -> tuple[Tensor | None, Tensor | None]:
    """Return flow scores and frame rates as [b] each, or None for a model of images.

    A tensor on a GPU, as training has it, is taken as it is: a look at its numbers would wait.

    Raises:
        ValueError: a number below 0, another number of them, or one given to a model of images.
    """
    if model.motion is None:
        for name, value in (("motion_flow", flow), ("fps", fps)):
            if value is not None:
                raise bad(name, value, "None: this model makes images")
        return None, None
    columns, device = [], model.begin.device
    for name, value in (("motion_flow", flow), ("fps", fps)):
        value = MOTION[name] if value is None else value
        if isinstance(value, Tensor) and value.device.type == "cuda":
            check_tensor(name, value, (batch,), "[b]")
            columns.append(value.float())
            continue
        values = list(value) if isinstance(value, Sequence) else [value] * batch
        if len(values) != batch:
            raise bad(name, f"{len(values)} numbers", f"one, or one for each of {batch} samples")
        for number in values:
            if name == "fps" or isinstance(number, Tensor) or plain(number) != UNSET:
                check_number(name, number, 0)
        numbers = [float(number) for number in values]
        columns.append(torch.tensor(numbers, dtype=torch.float32, device=device))
    return columns[0], columns[1]
