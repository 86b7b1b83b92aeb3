"""The label of a clip, from the labels of its frames."""

from contar._errors import check_tensor
from contar._typing import Int, Tensor

NONE = -1  # the label of what shows no digit


def majority(labels: Int[Tensor, "b t"]) -> Int[Tensor, " b"]:
    """Return the label that more than half of a clip's frames have, -1 where none has.

    Args:
        labels: of the frames; -1 is a vote for no digit.

    Raises:
        ValueError: other labels.
    """
    check_tensor("labels", labels, (None, None), "[b, t]", kind="int")
    if not labels.numel():
        return labels.new_full((len(labels),), NONE)
    most = labels.mode(dim=1).values
    votes = (labels == most[:, None]).sum(1)
    return most.where(2 * votes > labels.shape[1], NONE)
