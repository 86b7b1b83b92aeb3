"""Every public name of `contar.training` refuses bad input by the argument's name."""

import pytest
import torch
from torch import nn

from contar.training import frame_losses, freeze


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("came", "parts"),
    [
        ("'0'", "0"),
        ("''", ""),
        ("None", None),
        ("3", 3),
        ("'head', allowed: names of parts with parameters: 0, 2", ["0", "head"]),
        ("'0.bia'", ["0.bia"]),
        ("''", [""]),
        ("None", [None]),
        ("'1'", ["1"]),
    ],
)
def test_a_part_that_the_model_does_not_have_freezes_nothing(came, parts, refuses):
    network = model()
    with refuses("parts", came):
        freeze(network, parts)
    assert all(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("value", [None, "model", {"0.weight": torch.zeros(1)}])
def test_what_is_no_model_cannot_be_frozen(value, refuses):
    with refuses("model", type(value).__name__):
        freeze(value, ["0"])


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("tokens", "NoneType", {"tokens": None}),
        ("tokens", "(3,)", {"tokens": torch.zeros(3)}),
        ("tokens", "torch.int64", {"tokens": torch.zeros(2, 3, dtype=torch.int64)}),
        ("frame", "list", {"frame": [0, 1, 1]}),
        ("frame", "(2,)", {"frame": torch.tensor([0, 1])}),
        ("frame", "(2, 3)", {"frame": torch.zeros(2, 3, dtype=torch.int64)}),
        ("frame", "torch.float32", {"frame": torch.zeros(3)}),
        ("frame", "torch.bool", {"frame": torch.ones(3, dtype=torch.bool)}),
        ("frame", "to 2", {"frame": torch.tensor([0, 1, 2])}),
        ("frame", "from -1", {"frame": torch.tensor([0, 1, -1])}),
        ("frames", "0", {"frames": 0}),
        ("frames", "-2", {"frames": -2}),
        ("frames", "2.0", {"frames": 2.0}),
        ("frames", "None", {"frames": None}),
        ("frames", "True", {"frames": True}),
    ],
)
def test_losses_refuse_what_does_not_fit(argument, came, changes, refuses):
    good = {"tokens": torch.zeros(2, 3), "frame": torch.tensor([0, 1, 1]), "frames": 2}
    with refuses(argument, came):
        frame_losses(**{**good, **changes})
