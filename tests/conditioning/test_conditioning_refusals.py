"""Every public name of `contar.conditioning` refuses bad input by the argument's name."""

import pytest
import torch

from contar.conditioning import (
    AdaptiveLayerNorm,
    FrameTimes,
    Guidance,
    MotionTokens,
    ScalarEmbedding,
    ScaleShiftAdapter,
    TextProjection,
    frame_times,
    text_package,
)

NAN, INF = float("nan"), float("inf")
NO_COUNTS = [0, 8.0]  # test_errors.py has all
TEXT = {"text_width": 4, "width": 8, "length": 3, "rows": 5}


@pytest.mark.parametrize("value", NO_COUNTS)
@pytest.mark.parametrize(
    ("argument", "make"),
    [
        ("width", AdaptiveLayerNorm),
        ("width", MotionTokens),
        ("width", ScalarEmbedding),
        ("width", ScaleShiftAdapter),
        ("width", lambda width: FrameTimes(width, base=4)),
        ("base", lambda base: FrameTimes(8, base=base)),
        ("outputs", lambda outputs: AdaptiveLayerNorm(8, outputs=outputs)),
        ("frames", FrameTimes(8, base=4)),
        ("batch", TextProjection(**TEXT).empty),
        *((name, lambda size, name=name: TextProjection(**{**TEXT, name: size})) for name in TEXT),
    ],
)
def test_sizes_below_one_are_refused(argument, make, value, refuses):
    with refuses(argument, repr(value)):
        make(value)


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("numbers", "(2, 3)", {"numbers": torch.zeros(2, 3)}),
        ("frames", "0", {"frames": 0}),
        ("base", "0", {"base": 0}),
        ("law", "'window'", {"law": "window"}),
    ],
)
def test_frame_times_refuse_other_numbers_and_laws(argument, came, changes, refuses):
    good = {"numbers": torch.zeros(3), "frames": 3, "base": 4, "law": "stretch"}
    with refuses(argument, came):
        frame_times(**{**good, **changes})
    with refuses("law", "'window'"):
        FrameTimes(8, base=4)(3, law="window")


@pytest.mark.parametrize("rank", [0, 2.0, "full"])
def test_an_adapter_refuses_a_rank_that_is_none(rank, refuses):
    with refuses("rank", repr(rank)):
        ScaleShiftAdapter(8, rank=rank)


def test_one_output_of_an_adaptive_norm_is_too_few(refuses):
    with refuses("outputs", "1"):
        AdaptiveLayerNorm(8, outputs=1)


@pytest.mark.parametrize("eps", [-1e-6, "0"])
def test_an_adaptive_norm_refuses_an_eps_below_zero(eps, refuses):
    with refuses("eps", repr(eps)):
        AdaptiveLayerNorm(8, eps=eps)


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_an_adaptive_norm_has_weights_of_its_own_or_not(value, refuses):
    with refuses("affine", type(value).__name__):
        AdaptiveLayerNorm(8, affine=value)


def test_fewer_rows_than_the_length_are_refused(refuses):
    with refuses("length", "6", "5"):
        TextProjection(**{**TEXT, "length": 6})


@pytest.mark.parametrize("argument", ["scale", "start", "truncation", "renorm"])
@pytest.mark.parametrize("value", [-0.1, NAN])
def test_guidance_refuses_what_is_no_number_in_its_range(argument, value, refuses):
    with refuses(f"guidance.{argument}", repr(value)):
        Guidance(**{argument: value})


@pytest.mark.parametrize(
    ("argument", "changes"),
    [
        ("scale", {"scale": None}),
        ("renorm", {"renorm": 1.01}),
        ("truncation", {"truncation": None}),
        ("ceiling", {"ceiling": NAN}),
        ("ceiling", {"ceiling": 1.0, "truncation": 2.0}),
        ("interval", {"interval": None}),
        ("interval", {"interval": (0.0, 0.5, 1.0)}),
        ("renorm_over", {"renorm_over": "set"}),
        ("renorm_over", {"renorm_over": None}),
    ],
)
def test_guidance_refuses_other_values(argument, changes, refuses):
    with refuses(f"guidance.{argument}", repr(changes[argument])):
        Guidance(**changes)


@pytest.mark.parametrize("interval", [(-0.1, 1.0), (0.0, 1.1), (0.6, 0.5), (NAN, 1.0)])
def test_guidance_refuses_sets_that_are_no_interval_of_shares(interval, refuses):
    with refuses("guidance.interval"):
        Guidance(interval=interval)


@pytest.mark.parametrize("scale", [0, 0.5, 1, 1.0])
def test_a_guidance_of_zero_to_one_is_none(scale):
    assert not Guidance(scale).active
    assert not Guidance(scale).applies(0)


@pytest.mark.parametrize("done", [-0.1, 1.1, NAN])
def test_guidance_refuses_a_share_outside_zero_and_one(done, refuses):
    with refuses("done", repr(done)):
        Guidance(3.0, start=1.0).at(done)


@pytest.mark.parametrize(
    ("argument", "came", "anchor", "features"),
    [
        ("anchor", "NoneType", None, torch.zeros(2, 3, 8)),
        ("anchor", "(2, 3, 4)", torch.zeros(2, 3, 4), torch.zeros(2, 3, 8)),
        ("anchor", "(3, 3, 8)", torch.zeros(3, 3, 8), torch.zeros(2, 3, 8)),
        ("anchor", "(4, 2, 3, 8)", torch.zeros(4, 2, 3, 8), torch.zeros(2, 3, 8)),
        ("anchor", "torch.bfloat16", torch.zeros(3, 8, dtype=torch.bfloat16), torch.zeros(3, 8)),
        ("features", "list", torch.zeros(2, 3, 8), [0.0]),
        ("features", "(8,)", torch.zeros(2, 3, 8), torch.zeros(8)),
        ("features", "(2, 3, 9)", torch.zeros(2, 3, 8), torch.zeros(2, 3, 9)),
        ("features", "meta", torch.zeros(2, 3, 8), torch.zeros(2, 3, 8, device="meta")),
        ("features", "torch.int64", torch.zeros(3, 8), torch.zeros(3, 8, dtype=torch.int64)),
    ],
)
def test_an_adapter_refuses_what_does_not_fit(argument, came, anchor, features, refuses):
    with refuses(argument, came):
        ScaleShiftAdapter(8, rank=2)(anchor, features)


@pytest.mark.parametrize(
    ("argument", "came", "x", "condition"),
    [
        ("x", "NoneType", None, torch.zeros(2, 8)),
        ("x", "(2, 7)", torch.zeros(2, 7), torch.zeros(2, 8)),
        ("x", "()", torch.tensor(0.0), torch.zeros(8)),
        ("x", "torch.int64", torch.zeros(2, 8, dtype=torch.int64), torch.zeros(2, 8)),
        ("condition", "str", torch.zeros(2, 8), "text"),
        ("condition", "(2, 4)", torch.zeros(2, 8), torch.zeros(2, 4)),
        ("condition", "(3, 8)", torch.zeros(2, 8), torch.zeros(3, 8)),
        ("condition", "torch.float64", torch.zeros(2, 8), torch.zeros(8, dtype=torch.float64)),
    ],
)
def test_an_adaptive_norm_refuses_what_does_not_fit(argument, came, x, condition, refuses):
    with refuses(argument, came):
        AdaptiveLayerNorm(8)(x, condition)


@pytest.mark.parametrize(
    ("argument", "came", "flow", "fps"),
    [
        ("flow", "float", 5.0, torch.zeros(2)),
        ("flow", "(2, 1)", torch.zeros(2, 1), torch.zeros(2)),
        ("flow", "torch.int64", torch.zeros(2, dtype=torch.int64), torch.zeros(2)),
        ("fps", "NoneType", torch.zeros(2), None),
        ("fps", "(1,)", torch.zeros(2), torch.zeros(1)),
        ("fps", "()", torch.zeros(2), torch.tensor(12.0)),
    ],
)
def test_motion_tokens_refuse_what_is_no_number_a_sample(argument, came, flow, fps, refuses):
    with refuses(argument, came):
        MotionTokens(8)(flow, fps)


@pytest.mark.parametrize(
    ("came", "states"),
    [
        ("NoneType", None),
        ("int", 3),
        ("str", "a dog"),
        ("str", ["a dog"]),
        ("NoneType", [None]),
        ("no texts", []),
        ("no texts", torch.zeros(0, 3, 4)),
        ("(3, 4)", torch.zeros(3, 4)),
        ("(4,)", [torch.zeros(4)]),
        ("(3, 5)", torch.zeros(2, 3, 5)),
        ("(2, 5)", [torch.zeros(3, 4), torch.zeros(2, 5)]),
        ("4 tokens", torch.zeros(1, 4, 4)),
        ("4 tokens", [torch.zeros(1, 4), torch.zeros(4, 4)]),
        ("torch.int64", torch.zeros(1, 3, 4, dtype=torch.int64)),
        ("dict", {"a": torch.zeros(3, 4)}),
    ],
)
def test_padding_refuses_what_are_no_texts(came, states, refuses):
    projection = TextProjection(**TEXT)
    with refuses("states", came):
        projection.pad(states)
    with refuses("prompts", came):
        projection.check("prompts", states)


@pytest.mark.parametrize(
    ("came", "states"),
    [
        ("list", [torch.zeros(3, 4)]),
        ("(3, 4)", torch.zeros(3, 4)),
        ("(1, 3, 5)", torch.zeros(1, 3, 5)),
        ("torch.float64", torch.zeros(1, 3, 4, dtype=torch.float64)),
        ("meta", torch.zeros(1, 3, 4, device="meta")),
    ],
)
def test_a_projection_refuses_what_does_not_fit(came, states, refuses):
    with refuses("states", came):
        TextProjection(**TEXT)(states)


@pytest.mark.parametrize(
    "reference", ["", "os.path/x", "/x", "torch//etc", "torch/../etc", "torch/nn/../../etc"]
)
def test_a_folder_outside_its_package_is_no_text_encoders(reference, refuses):
    with refuses("text_package"):
        text_package(reference)


def test_padding_rows_are_those_of_the_released_checkpoints_by_default():
    assert TextProjection(4, 8, length=3).padding.shape == (512, 4)
