"""Numbers of numpy and fractions are taken wherever counts and rates are, and become Python's."""

import dataclasses
import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from contar._errors import check_count, check_number, plain
from contar.attention import BlockLayout
from contar.conditioning import Guidance
from contar.generation import GenerationPlan
from contar.media import read_tail, read_video, write_video
from contar.ordering import truncated_normal_mask
from contar.tokenizers import CausalVAE
from contar.training import RunConfig, VaeStage
from recipes import mar, nova
from recipes._nova.training import NovaStage
from recipes.compare import Comparison
from recipes.moving_digits import MovingDigitsRecipe

RATES = [np.int64(8), np.uint8(8), np.float32(8), np.float64(8), np.float16(8), Fraction(8)]


@pytest.mark.parametrize("value", RATES)
def test_a_number_of_numpy_or_a_fraction_is_a_number(value):
    number = check_number("fps", value, 0.01, 50)
    assert (type(number), number) == (float, 8.0)


@pytest.mark.parametrize("value", [np.int64(8), np.int8(8), np.uint64(8), np.int32(8)])
def test_an_integer_of_numpy_is_a_count(value):
    count = check_count("frames", value)
    assert (type(count), count) == (int, 8)


@pytest.mark.parametrize(
    "value",
    [
        np.float32("nan"), np.float64("inf"), np.bool_(True), Fraction(10**400), np.float32(60),
        Fraction(1, 10**9), np.array([8.0, 9.0]), np.int64(-1), "8", torch.ones(1), 1j,
        np.complex64(8), 10**400, np.datetime64(8, "s"),
    ],
)  # fmt: skip
def test_what_is_no_such_number_is_refused(value, refuses):
    with refuses("fps", repr(value)):
        check_number("fps", value, 0.01, 50)


def test_numbers_become_plain_and_all_else_stays():
    tower = plain(nova.Tower(I(1), I(8), 2))
    assert tower == nova.Tower(1, 8, 2)
    assert isinstance(tower, nova.Tower)
    assert [type(size) for size in tower] == [int] * 3
    assert plain((np.float32(0.5), (Fraction(1, 2), True), "a")) == (0.5, (0.5, True), "a")
    assert plain(Fraction(10**400)) == math.inf
    assert json.dumps(plain([np.int64(1), [np.float32(0.5)]])) == "[1, [0.5]]"
    for same in (None, "full", torch.ones(1), True, np.ones(1)):
        assert plain(same) is same


I: Any = np.int64  # noqa: E741
F: Any = np.float32
HALF: Any = Fraction(1, 2)
TOWER = nova.Tower(I(1), I(16), I(2))


@pytest.mark.usefixtures("unchecked")
def test_configs_with_numbers_of_numpy_are_those_with_pythons_and_fit_in_json():
    sizes: dict[str, Any] = {"head": {"name": "flow", "width": 16, "depth": 1}, "latent": (8, 8)}
    head: dict[str, Any] = {"name": "flow", "width": I(16), "depth": I(1)}
    words: dict[str, Any] = {"text_width": 8, "text_length": 4, "frames": 3, "adapter": 2}
    towers: dict[str, Any] = {name: nova.Tower(1, 16, 2) for name in ("encoder", "decoder")}
    pairs = [
        (nova.NovaConfig(temporal=nova.Tower(1, 16, 2), **towers, **sizes, **words),
         nova.NovaConfig(TOWER, TOWER, TOWER, head, I(8), I(4), (I(8), I(8)), frames=I(3),
                         adapter=I(2), motion_scale=F(1))),
        (mar.MarConfig(**towers, **sizes, mlp_ratio=4.0),
         mar.MarConfig(TOWER, TOWER, head, (I(8), I(8)), mlp_ratio=8 * HALF)),
        (GenerationPlan(frames=2, sets=3, guidance=Guidance(2.0), flow_shift=3.0, window=2),
         GenerationPlan(frames=I(2), sets=I(3), guidance=Guidance(F(2)), flow_shift=6 * HALF,
                        window=I(2))),
        (RunConfig(steps=5, learning_rate=0.5, betas=(0.5, 0.25)),
         RunConfig(steps=I(5), learning_rate=F(0.5), betas=(F(0.5), HALF / 2))),
        (NovaStage(RunConfig(), repeats=2, shares=(0.5, 0.25)),
         NovaStage(RunConfig(), repeats=I(2), shares=(F(0.5), HALF / 2))),
        (VaeStage(widths=(8, 16, 16), kl=0.5), VaeStage(widths=(I(8), I(16), I(16)), kl=F(0.5))),
        (Comparison(seeds=(1, 2), minutes=0.5),
         Comparison(seeds=(I(1), I(2)), minutes=HALF)),
        (MovingDigitsRecipe(clips=20), MovingDigitsRecipe(clips=I(20))),
        (BlockLayout((6, 4), window=2), BlockLayout((I(6), I(4)), window=I(2))),
    ]  # fmt: skip
    for ours, numpys in pairs:
        assert numpys == ours
        written = [json.dumps(dataclasses.asdict(made)) for made in (ours, numpys)]
        assert written[0] == written[1]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("fps", RATES)
def test_a_video_is_written_and_read_at_any_kind_of_rate(tmp_path, fps):
    frames = torch.zeros(5, 16, 16, 3, dtype=torch.uint8)
    path = write_video(frames, tmp_path / "a.mp4", fps=fps)
    assert read_video(path, frames=I(2), start=I(1)) is not None
    assert read_video(path)[1] == 8
    assert len(read_tail(path, I(2), fps=fps)) == 2
    write_video(frames, tmp_path / "a.gif", fps=fps)


@pytest.mark.usefixtures("unchecked")
def test_a_rate_between_integers_is_held_exactly(tmp_path):
    frames, fps = torch.zeros(3, 16, 16, 3, dtype=torch.uint8), 48000 * HALF / 1001
    path = write_video(frames, tmp_path / "a.mp4", fps=fps)
    assert read_video(path)[1] == 24000 / 1001


@pytest.mark.usefixtures("unchecked")
def test_a_mask_of_numpys_numbers_is_the_same_mask():
    one, other = (
        truncated_normal_mask(
            kind(2), kind(16), low=share(0.5), generator=torch.Generator().manual_seed(0)
        )
        for kind, share in ((int, float), (I, F))
    )
    assert torch.equal(one.hidden, other.hidden)


@pytest.mark.usefixtures("unchecked")
def test_a_tokenizer_of_numpys_sizes_can_be_saved(tmp_path):
    CausalVAE(widths=(I(8), I(16), I(16)), depth=I(1)).save_pretrained(tmp_path)
    assert CausalVAE.from_pretrained(tmp_path).config["widths"] == [8, 16, 16]
