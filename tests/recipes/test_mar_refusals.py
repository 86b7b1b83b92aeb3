"""MAR refuses bad input at the call, by the argument's name, and is as it was afterwards."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_mar import PLAN, SIZES, TOKENS, VALUES, tiny_mar

from contar.ordering import TrainingMask, full_mask
from recipes import mar
from recipes._mar.keys import official_name, to_official

NAN, INF = float("nan"), float("inf")
NO_COUNTS = [0, 2.0]  # test_errors.py has all
LABELS = torch.tensor([2, 0])
LATENTS = torch.zeros(2, 2, 4, 8)


class OnCuda(torch.Generator):
    device: Any = torch.device("cuda")


def plan(**changes: Any) -> mar.GenerationPlan:
    return mar.GenerationPlan(**{"sets": 2, "diffusion_steps": 2, "rounding": "floor", **changes})


@pytest.fixture(scope="module")
def model() -> mar.Mar:
    return tiny_mar()


# Building.


@pytest.mark.parametrize("preset", ["mar_base", "", None, 3, {}, SIZES, []])
def test_an_unknown_preset_is_refused_with_the_list(preset, refuses):
    with refuses("preset", repr(preset), *mar.PRESETS):
        mar.build(preset)


@pytest.mark.parametrize("device", ["tpu5", "", 1.5, "cuda:99"])
def test_an_unknown_device_is_refused(device, refuses):
    with refuses("device", repr(device)):
        mar.build(device=device)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.int8, torch.bool, 16, float])
def test_a_dtype_without_fractions_is_refused(dtype, refuses):
    with refuses("dtype", repr(dtype)):
        mar.build(mar.MarConfig(**SIZES), dtype=dtype)


@pytest.mark.parametrize("argument", ["channels", "patch", "classes", "buffer"])
@pytest.mark.parametrize("value", NO_COUNTS)
def test_a_config_refuses_sizes_below_one(argument, value, refuses):
    with refuses(argument, repr(value)):
        mar.MarConfig(**{**SIZES, argument: value})


@pytest.mark.parametrize("tower", ["encoder", "decoder"])
@pytest.mark.parametrize(
    ("part", "came", "value"),
    [
        ("", "None", None),
        ("", "16", 16),
        ("", "(1, 16)", (1, 16)),
        ("", "'abc'", "abc"),
        (".depth", "0", (0, 16, 2)),
        (".width", "-16", (1, -16, 2)),
        (".heads", "True", (1, 16, True)),
        (".heads", "3", (1, 16, 3)),
    ],
)
def test_a_config_refuses_towers_that_cannot_be_built(tower, part, came, value, refuses):
    with refuses(tower + part, came):
        mar.MarConfig(**{**SIZES, tower: value})
    with refuses(tower + part, came):
        mar.Mar({**SIZES, tower: value})


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("latent", "8", {"latent": 8}),
        ("latent", "None", {"latent": None}),
        ("latent", "(8,)", {"latent": (8,)}),
        ("latent", "0", {"latent": (0, 8)}),
        ("latent", "8.0", {"latent": (8.0, 8.0)}),
        ("latent", "(4, 7)", {"latent": (4, 7)}),
        ("mlp_ratio", "0", {"mlp_ratio": 0}),
        ("mlp_ratio", "0.01", {"mlp_ratio": 0.01}),
        ("mlp_ratio", "nan", {"mlp_ratio": NAN}),
        ("mlp_ratio", "None", {"mlp_ratio": None}),
    ],
)
def test_a_mar_config_refuses_bad_values_by_name(argument, came, changes, refuses):
    with refuses(argument, came):
        mar.MarConfig(**{**SIZES, **changes})
    with refuses(argument, came):
        mar.Mar({**SIZES, **changes})


@pytest.mark.parametrize(
    ("came", "sizes"),
    [
        ("NoneType", None),
        ("str", "mar-base"),
        ("depth", {**SIZES, "depth": 3}),
        ("decoder", {name: size for name, size in SIZES.items() if name != "decoder"}),
        ("head", {}),
    ],
)
def test_a_network_refuses_sizes_that_are_unknown_or_missing(came, sizes, refuses):
    with refuses("sizes", came):
        mar.Mar(sizes)


OFFICIAL: dict[str, Any] = {
    "img_size": 64, "vae_stride": 16, "patch_size": 1, "vae_embed_dim": 2, "class_num": 3,
    "encoder_embed_dim": 16, "encoder_depth": 1, "encoder_num_heads": 2,
    "decoder_embed_dim": 24, "decoder_depth": 2, "decoder_num_heads": 2,
    "buffer_size": 2, "diffloss_d": 1, "diffloss_w": 16,
}  # fmt: skip


@pytest.mark.parametrize("key", OFFICIAL)
@pytest.mark.parametrize("value", [0, "16"])
def test_an_official_config_names_the_key_of_a_value_that_is_none(key, value, refuses):
    square = {**SIZES, "latent": (4, 4), "patch": 1}
    assert mar.MarConfig.from_official(OFFICIAL) == mar.MarConfig(**square)
    with refuses(f"config['{key}']", repr(value)):
        mar.MarConfig.from_official({**OFFICIAL, key: value})


@pytest.mark.parametrize("config", [None, "mar_base", [], 3])
def test_an_official_config_is_a_mapping(config, refuses):
    with refuses("config", type(config).__name__):
        mar.MarConfig.from_official(config)


@pytest.mark.parametrize("name", ["mar-base", "vit_base", 3, ["mar_base"]])
def test_an_architecture_that_was_not_released_is_refused_with_the_list(name, refuses):
    with refuses("config['model']", repr(name), "mar_base", "mar_large", "mar_huge"):
        mar.MarConfig.from_official({"model": name})


def test_an_official_patch_that_does_not_divide_the_latent_is_refused(refuses):
    with refuses("latent", "(4, 4)", "3"):
        mar.MarConfig.from_official({**OFFICIAL, "patch_size": 3})


# Weights.


def test_missing_extra_and_misshapen_weights_are_all_listed_and_nothing_is_loaded(model, refuses):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = {name: tensor + 1 for name, tensor in model.official_state_dict().items()}
    del state["fake_latent"]
    state["z_proj.weight"] = torch.zeros(17)
    state["diffloss.net.final_layer.adaLN_modulation.1.bias"] = None
    state["lora.weight"] = torch.zeros(1)
    with refuses(
        "state",
        "missing fake_latent",
        "unexpected lora.weight",
        "z_proj.weight is (17,), must be (16, 8)",
        "adaLN_modulation.1.bias is NoneType, must be (32,)",
    ):
        model.load_official_state_dict(state)
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())


@pytest.mark.parametrize("state", [None, "checkpoint.pth", [], 3])
def test_official_weights_that_are_no_mapping_are_refused(model, state, refuses):
    with refuses("state", type(state).__name__):
        model.load_official_state_dict(state)


@pytest.mark.parametrize("name", ["temporal.norm.weight", "", None, 3])
def test_a_parameter_that_official_checkpoints_do_not_have_is_refused(name, refuses):
    with refuses("name", repr(name)):
        official_name(name)
    with refuses("name", repr(name)):
        to_official({name: torch.zeros(1)})


# The network, generation and training.


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("tokens", "NoneType", {"tokens": None}),
        ("tokens", "(2, 8)", {"tokens": torch.zeros(2, TOKENS)}),
        ("tokens", "(2, 9, 8)", {"tokens": torch.zeros(2, 9, VALUES)}),
        ("tokens", "(2, 8, 7)", {"tokens": torch.zeros(2, TOKENS, 7)}),
        ("tokens", "torch.int64", {"tokens": torch.zeros(2, TOKENS, VALUES).long()}),
        ("labels", "list", {"labels": [0, 1]}),
        ("labels", "(3,)", {"labels": torch.zeros(3).long()}),
        ("labels", "torch.float32", {"labels": torch.zeros(2)}),
        ("labels", "from -1", {"labels": torch.tensor([0, -1])}),
        ("labels", "to 4", {"labels": torch.tensor([0, 4])}),
        ("visible_ids", "NoneType", {"visible_ids": None}),
        ("visible_ids", "(3, 1)", {"visible_ids": torch.zeros(3, 1).long()}),
        ("visible_ids", "to 8", {"visible_ids": torch.tensor([[0], [8]])}),
        ("padding_mask", "(2, 2)", {"padding_mask": torch.zeros(2, 2).bool()}),
        ("padding_mask", "torch.int64", {"padding_mask": torch.zeros(2, 1).long()}),
        ("backend", "'flash'", {"backend": "flash"}),
    ],
)
def test_the_network_refuses_what_does_not_fit(model, argument, came, changes, refuses):
    good = {
        "tokens": torch.zeros(2, TOKENS, VALUES),
        "labels": LABELS,
        "visible_ids": torch.tensor([[0], [3]]),
    }
    with refuses(argument, came):
        model(**{**good, **changes})


@pytest.mark.parametrize("call", ["generate", "training_losses"])
@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("model", "NoneType", {"model": None}),
        ("model", "str", {"model": "mar-base"}),
        ("model", "Linear", {"model": torch.nn.Linear(2, 2)}),
        ("labels", "NoneType", {"labels": None}),
        ("labels", "int", {"labels": 207}),
        ("labels", "list", {"labels": [0, 1]}),
        ("labels", "(2, 1)", {"labels": LABELS[:, None]}),
        ("labels", "torch.float32", {"labels": torch.zeros(2)}),
        ("labels", "to 4", {"labels": torch.tensor([0, 4])}),
        ("labels", "from -1", {"labels": torch.tensor([-1, 0])}),
        ("generator", "0", {"generator": 0}),
        ("generator", "Generator(PCG64)", {"generator": np.random.default_rng(0)}),
        ("generator", "cuda", {"generator": OnCuda()}),
        ("generator", "a list of 1", {"generator": [torch.Generator()]}),
        ("backend", "'flash'", {"backend": "flash"}),
        ("backend", "'xformers'", {"backend": "xformers"}),
    ],
)
def test_generation_and_training_refuse_at_the_call(model, call, argument, came, changes, refuses):
    good: dict[str, Any] = {"model": model, "labels": LABELS}
    good |= {"latents": LATENTS} if "train" in call else {"plan": PLAN}
    with refuses(argument, came):
        getattr(mar, call)(**{**good, **changes})


ORDER = torch.arange(TOKENS).expand(2, -1)
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
DDPM = {"_class_name": "DDPMScheduler", "clip_sample": False}


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("labels", "none", {"labels": LABELS[:0]}),
        ("plan", "dict", {"plan": {"sets": 2}}),
        ("plan.frames", "2", {"plan": plan(frames=2)}),
        ("plan.window", "1", {"plan": plan(window=1)}),
        ("plan.context_noise", "0.5", {"plan": plan(context_noise=0.5)}),
        ("plan.chunk", "2", {"plan": plan(chunk=2)}),
        ("plan.times", "continue", {"plan": plan(times="continue")}),
        ("plan.temperature", "0.5", {"plan": plan(temperature=(1.0, 0.5))}),
        ("plan.grid", "(8, 8)", {"plan": plan(grid=(8, 8))}),
        ("flow_shift", "3.0", {"plan": plan(flow_shift=3.0)}),
        (
            "plan.guidance.renorm_over",
            "'frame'",
            {"plan": plan(guidance=mar.Guidance(2.0, renorm=0.5, renorm_over="frame"))},
        ),
        ("sets", "9", {"plan": plan(sets=9)}),
        ("plan.diffusion_steps", "1001", {"plan": plan(diffusion_steps=1001)}),
        ("scheduler", "fixed", {"plan": plan(scheduler=FLOW)}),
        ("scheduler", "fixed", {"plan": plan(scheduler=DDPM)}),
        ("flow_shift", "3.0", {"plan": plan(scheduler=DDPM, flow_shift=3.0)}),
        ("scheduler", "'NoScheduler'", {"plan": plan(scheduler={"_class_name": "NoScheduler"})}),
        ("order", "list", {"order": [[0]]}),
        ("order", "(1, 8)", {"order": ORDER[:1]}),
        ("order", "(2, 7)", {"order": ORDER[:, :7]}),
        ("order", "torch.float32", {"order": ORDER.float()}),
        ("order", "repeated", {"order": torch.zeros_like(ORDER)}),
        ("progress", "NoneType", {"progress": None}),
        ("callback", "int", {"callback": 3}),
        ("cancel", "bool", {"cancel": True}),
    ],
)
def test_generation_refuses_what_does_not_fit(model, argument, came, changes, refuses):
    calls = []
    hook = model.register_forward_hook(lambda *_: calls.append(1))
    try:
        with refuses(argument, came):
            mar.generate(**{"model": model, "labels": LABELS, "plan": PLAN, **changes})
    finally:
        hook.remove()
    assert not calls


HIDDEN = full_mask(2, TOKENS)
ID = torch.zeros(2, 1, dtype=torch.int64)
GIVEN = {"mask": HIDDEN, "repeats": 1}


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("latents", "NoneType", {"latents": None}),
        ("latents", "(2, 4, 8)", {"latents": LATENTS[:, 0]}),
        ("latents", "(2, 3, 4, 8)", {"latents": torch.zeros(2, 3, 4, 8)}),
        ("latents", "(2, 2, 8, 4)", {"latents": torch.zeros(2, 2, 8, 4)}),
        ("latents", "torch.int64", {"latents": LATENTS.long()}),
        ("latents", "0 samples", {"latents": LATENTS[:0], "labels": LABELS[:0]}),
        ("latents", "meta", {"latents": LATENTS.to("meta")}),
        ("labels", "(1,)", {"labels": LABELS[:1]}),
        ("label_drop", "-0.1", {"label_drop": -0.1}),
        ("label_drop", "1.1", {"label_drop": 1.1}),
        ("label_drop", "None", {"label_drop": None}),
        ("label_drop", "True", {"label_drop": True}),
        ("generator", "a list of 2", {"generator": [torch.Generator()] * 2}),
        ("repeats", "0", {"repeats": 0}),
        ("repeats", "1.0", {"repeats": 1.0}),
        ("mask", "Tensor", {"mask": HIDDEN.hidden}),
        ("mask.hidden", "(1, 8)", {"mask": full_mask(1, TOKENS)}),
        ("mask.hidden", "(2, 9)", {"mask": full_mask(2, 9)}),
        ("mask.hidden", "no hidden", {"mask": TrainingMask(~HIDDEN.hidden, ORDER)}),
        ("mask.visible_ids", "other", {"mask": TrainingMask(HIDDEN.hidden, ID)}),
        ("mask.visible_ids", "outside", {"mask": TrainingMask(HIDDEN.hidden, ID + TOKENS)}),
        ("noise", "(2, 8)", {**GIVEN, "noise": torch.zeros(2, 8)}),
        ("noise", "(1, 15, 8)", {**GIVEN, "noise": torch.zeros(1, 15, 8)}),
        ("index", "(16,)", {**GIVEN, "index": torch.zeros(16).long()}),
        ("index", "to 1000", {**GIVEN, "index": torch.full((1, 16), 1000)}),
        ("index", "torch.float32", {**GIVEN, "index": torch.zeros(1, 16)}),
    ],
)
def test_training_refuses_what_does_not_fit(model, argument, came, changes, refuses):
    calls = []
    hook = model.register_forward_hook(lambda *_: calls.append(1))
    try:
        with refuses(argument, came):
            mar.training_losses(**{"model": model, "latents": LATENTS, "labels": LABELS, **changes})
    finally:
        hook.remove()
    assert not calls
