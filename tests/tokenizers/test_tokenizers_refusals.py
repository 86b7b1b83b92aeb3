"""Every public name of `contar.tokenizers` refuses bad input by the argument's name."""

import pytest
import torch

from contar.tokenizers import patchify, unpatchify

NAN = float("nan")


@pytest.mark.parametrize("patch", [0, -2, 2.0, NAN, True, None, "2", (2, 2)])
def test_a_patch_that_is_no_count_is_refused(patch, refuses):
    with refuses("patch", repr(patch)):
        patchify(torch.zeros(1, 4, 4, 4), patch)
    with refuses("patch", repr(patch)):
        unpatchify(torch.zeros(1, 4, 16), (2, 2), patch)


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_channel_first_is_true_or_false(value, refuses):
    with refuses("channel_first", type(value).__name__):
        patchify(torch.zeros(1, 4, 4, 4), 2, channel_first=value)
    with refuses("channel_first", type(value).__name__):
        unpatchify(torch.zeros(1, 4, 16), (2, 2), 2, channel_first=value)


@pytest.mark.parametrize(
    ("came", "latents"),
    [
        ("NoneType", None),
        ("list", [[[0.0]]]),
        ("(4, 4)", torch.zeros(4, 4)),
        ("(5, 4)", torch.zeros(1, 4, 5, 4)),
        ("(4, 7)", torch.zeros(1, 4, 4, 7)),
        ("(1, 2)", torch.zeros(1, 4, 1, 2)),
        ("(0, 4)", torch.zeros(1, 4, 0, 4)),
        ("torch.int64", torch.zeros(1, 4, 4, 4, dtype=torch.int64)),
    ],
)
def test_a_grid_that_the_patch_does_not_divide_is_refused(came, latents, refuses):
    with refuses("latents", came):
        patchify(latents, 2)


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("tokens", "NoneType", {"tokens": None}),
        ("tokens", "(4,)", {"tokens": torch.zeros(4)}),
        ("tokens", "6 values", {"tokens": torch.zeros(1, 4, 6)}),
        ("tokens", "torch.bool", {"tokens": torch.zeros(1, 4, 8, dtype=torch.bool)}),
        ("grid", "4", {"grid": 4}),
        ("grid", "(4,)", {"grid": (4,)}),
        ("grid", "(2, 3)", {"grid": (2, 3)}),
        ("grid", "(1, 2, 2)", {"grid": (1, 2, 2)}),
        ("grid", "-2", {"grid": (-2, -2)}),
        ("grid", "2.0", {"grid": (2.0, 2.0)}),
        ("grid", "None", {"grid": None}),
        ("grid", "'22'", {"grid": "22"}),
    ],
)
def test_tokens_of_another_grid_are_refused(argument, came, changes, refuses):
    with refuses(argument, came):
        unpatchify(**{"tokens": torch.zeros(1, 4, 8), "grid": (2, 2), "patch": 2, **changes})
