"""NOVA refuses bad input at the call, by the argument's name, and is as it was afterwards."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch

from contar.ordering import TrainingMask, full_mask
from recipes import nova
from recipes._nova.keys import official_name

NAN, INF = float("nan"), float("inf")
NO_COUNTS = [0, 2.0]  # test_errors.py has all
SIZES: dict[str, Any] = {
    "temporal": nova.Tower(1, 16, 2),
    "encoder": nova.Tower(1, 16, 2),
    "decoder": nova.Tower(1, 16, 2),
    "head": {"name": "flow", "width": 8, "depth": 1},
    "text_width": 6,
    "text_length": 3,
    "text_rows": 4,
    "latent": (8, 8),
    "channels": 2,
    "frames": 3,
    "adapter": 2,
}
PLAN = nova.GenerationPlan(frames=2, sets=2, diffusion_steps=2)


class OnCuda(torch.Generator):
    device: Any = torch.device("cuda")


def tiny(**changes: Any) -> nova.Nova:
    return nova.build(nova.NovaConfig(**{**SIZES, **changes}))


def plan(**changes: Any) -> nova.GenerationPlan:
    return nova.GenerationPlan(**{"frames": 2, "sets": 2, "diffusion_steps": 2, **changes})


@pytest.fixture(scope="module")
def model() -> nova.Nova:
    return tiny()


@pytest.fixture(scope="module")
def image_model() -> nova.Nova:
    return tiny(frames=1, adapter=None)


# Building.


@pytest.mark.parametrize("preset", ["nova-d48w1024", None, SIZES, "__class__"])
def test_an_unknown_preset_is_refused_with_the_list(preset, refuses):
    with refuses("preset", repr(preset), *nova.PRESETS):
        nova.build(preset)


@pytest.mark.parametrize("device", ["cuda:99"])
def test_an_unknown_device_is_refused(device, refuses):
    with refuses("device", repr(device)):
        nova.build(device=device)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.int8])
def test_a_dtype_without_fractions_is_refused(dtype, refuses):
    with refuses("dtype", repr(dtype)):
        nova.build(nova.NovaConfig(**SIZES), dtype=dtype)


@pytest.mark.parametrize(
    "argument",
    [
        "text_width",
        "text_length",
        "text_rows",
        "channels",
        "patch",
        "frames",
    ],
)
@pytest.mark.parametrize("value", NO_COUNTS)
def test_a_config_refuses_sizes_below_one(argument, value, refuses):
    with refuses(argument, repr(value)):
        nova.NovaConfig(**{**SIZES, argument: value})


@pytest.mark.parametrize("tower", ["temporal", "encoder", "decoder"])
@pytest.mark.parametrize(
    ("part", "came", "value"),
    [
        ("", "None", None),
        ("", "16", 16),
        ("", "(1, 16)", (1, 16)),
        ("", "(1, 16, 2, 2)", (1, 16, 2, 2)),
        ("", "'abc'", "abc"),
        (".depth", "0", (0, 16, 2)),
        (".depth", "1.0", (1.0, 16, 2)),
        (".width", "-16", (1, -16, 2)),
        (".width", "18", (1, 18, 2)),
        (".heads", "0", (1, 16, 0)),
        (".heads", "True", (1, 16, True)),
        (".heads", "3", (1, 16, 3)),
    ],
)
def test_a_config_refuses_towers_that_cannot_be_built(tower, part, came, value, refuses):
    with refuses(tower + part, came):
        nova.NovaConfig(**{**SIZES, tower: value})


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("text_rows", "2", {"text_rows": 2}),
        ("adapter", "0", {"adapter": 0}),
        ("adapter", "-1", {"adapter": -1}),
        ("adapter", "True", {"adapter": True}),
        ("adapter", "False", {"adapter": False}),
        ("adapter", "2.0", {"adapter": 2.0}),
        ("adapter", "'none'", {"adapter": "none"}),
        ("positions", "'learned'", {"positions": "learned"}),
        ("positions", "None", {"positions": None}),
        ("latent", "8", {"latent": 8}),
        ("latent", "None", {"latent": None}),
        ("latent", "(8,)", {"latent": (8,)}),
        ("latent", "(8, 8, 8)", {"latent": (8, 8, 8)}),
        ("latent", "(8, 6)", {"latent": (8, 6)}),
        ("latent", "(8, 4)", {"latent": (8, 4), "patch": 4}),
        ("latent", "0", {"latent": (0, 8)}),
        ("latent", "8.0", {"latent": (8.0, 8.0)}),
        ("grid", "4", {"grid": 4}),
        ("grid", "0", {"grid": (4, 0)}),
        ("grid", "nan", {"grid": (4, NAN)}),
        ("frame_grid", "(2,)", {"frame_grid": (2,)}),
        ("frame_grid", "-2", {"frame_grid": (-2, 2)}),
        ("head", "NoneType", {"head": None}),
        ("head['name']", "None", {"head": {}}),
        ("head['name']", "'gan'", {"head": {"name": "gan"}}),
        ("head['depth']", "None", {"head": {"name": "flow", "width": 8}}),
        ("head['power']", "2", {"head": {"name": "flow", "width": 8, "depth": 1, "power": 2}}),
        ("temporal.width", "16 in 2 heads", {"positions": "rotary"}),
        ("decoder.width", "40 in 2 heads", {"positions": "rotary", "decoder": (1, 40, 2)}
         | {"temporal": (1, 64, 2), "encoder": (1, 64, 2)}),
    ],
)  # fmt: skip
def test_a_nova_config_refuses_bad_values_by_name(argument, came, changes, refuses):
    with refuses(argument, came):
        nova.NovaConfig(**{**SIZES, **changes})


@pytest.mark.parametrize(
    ("came", "sizes"),
    [
        ("NoneType", None),
        ("str", "nova"),
        ("adapter_rank", {**SIZES, "adapter_rank": 3}),
        ("latent", {name: size for name, size in SIZES.items() if name != "latent"}),
        ("temporal", {}),
    ],
)
def test_a_network_refuses_sizes_that_are_unknown_or_missing(came, sizes, refuses):
    with refuses("sizes", came):
        nova.Nova(sizes)


OFFICIAL: dict[str, Any] = {
    "image_dim": 2,
    "image_size": [64, 64],
    "image_stride": 8,
    "text_token_dim": 6,
    "text_token_len": 3,
    "rotary_pos_embed": False,
    "video_base_size": [3, 2, 2],
    "image_base_size": [4, 4],
    "video_mixer_rank": 2,
    "arch": ["vit_d1w16", "vit_d2w16", "mlp_d1w8"],
    "heads": {
        "video_encoder": {"depth": 1, "dim": 16, "heads": 2},
        "image_encoder": {"depth": 2, "dim": 16, "heads": 2},
        "image_decoder": {"depth": 1, "dim": 8},
    },
}


def with_heads(part: str, **changes: Any) -> dict[str, Any]:
    return {"heads": {**OFFICIAL["heads"], part: {**OFFICIAL["heads"][part], **changes}}}


NEEDED = [
    name for name in OFFICIAL if name not in ("rotary_pos_embed", "video_mixer_rank", "heads")
]


@pytest.mark.parametrize("key", NEEDED)
def test_an_official_config_without_a_key_is_refused_by_its_name(key, refuses):
    assert nova.NovaConfig.from_official(OFFICIAL) == nova.NovaConfig(**{**SIZES, "text_rows": 512})
    with refuses(f"config['{key}']", "None"):
        nova.NovaConfig.from_official({k: v for k, v in OFFICIAL.items() if k != key})


@pytest.mark.parametrize("config", [None, "config.json", [], 3])
def test_an_official_config_is_a_mapping(config, refuses):
    with refuses("config", type(config).__name__):
        nova.NovaConfig.from_official(config)


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("['image_dim']", "'4'", {"image_dim": "4"}),
        ("['image_dim']", "0", {"image_dim": 0}),
        ("['image_stride']", "0", {"image_stride": 0}),
        ("['image_stride']", "8.0", {"image_stride": 8.0}),
        ("['image_size']", "'64'", {"image_size": "64"}),
        ("['image_size']", "[64]", {"image_size": [64]}),
        ("['image_size']", "-64", {"image_size": [-64, 64]}),
        ("['image_size']", "[64, 60]", {"image_size": [64, 60]}),
        ("['text_token_dim']", "nan", {"text_token_dim": NAN}),
        ("['text_token_len']", "-3", {"text_token_len": -3}),
        ("['image_base_size']", "4", {"image_base_size": 4}),
        ("['image_base_size']", "[4, 4, 4]", {"image_base_size": [4, 4, 4]}),
        ("['video_base_size']", "[2, 2]", {"video_base_size": [2, 2]}),
        ("['video_base_size']", "0", {"video_base_size": [0, 2, 2]}),
        ("['video_mixer_rank']", "'2'", {"video_mixer_rank": "2"}),
        ("['video_mixer_rank']", "True", {"video_mixer_rank": True}),
        ("['arch']", "'vit_d1w16'", {"arch": "vit_d1w16", "heads": None}),
        ("['arch']", "['vit_d1w16']", {"arch": ["vit_d1w16"], "heads": None}),
        ("['arch']", "'unet'", {"arch": ["unet", "vit_d2w768", "mlp_d1w8"], "heads": None}),
        ("['arch']", "3", {"arch": [3, "vit_d2w768", "mlp_d1w8"], "heads": None}),
        ("['arch']", "'vit_d1w8'", {"arch": ["vit_d1w768"] * 2 + ["vit_d1w8"], "heads": None}),
        ("['heads']['video_encoder']['depth']", "None", {"heads": 2}),
        ("['heads']['video_encoder']['depth']", "None", {"heads": {}}),
        ("['heads']['video_encoder']['heads']", "0", with_heads("video_encoder", heads=0)),
        ("['heads']['image_encoder']['dim']", "'16'", with_heads("image_encoder", dim="16")),
        ("['heads']['image_decoder']['depth']", "None", with_heads("image_decoder", depth=None)),
    ],
)
def test_an_official_config_refuses_what_it_does_not_know(argument, came, changes, refuses):
    with refuses(f"config{argument}", came):
        nova.NovaConfig.from_official({**OFFICIAL, **changes})


def test_an_architecture_that_was_not_released_asks_for_its_heads(refuses):
    with refuses("num_heads", "None", "vit_d1w16"):
        nova.NovaConfig.from_official({**OFFICIAL, "heads": None})
    with refuses("num_heads", "(1, 2, 3)"):
        nova.NovaConfig.from_official({**OFFICIAL, "heads": None}, num_heads=(1, 2, 3))  # type: ignore[arg-type]


def test_official_heads_that_do_not_divide_the_width_are_refused(refuses):
    with refuses("temporal.heads", "3", "16"):
        nova.NovaConfig.from_official({**OFFICIAL, **with_heads("video_encoder", heads=3)})


# Weights.


def test_missing_extra_and_misshapen_weights_are_all_listed_and_nothing_is_loaded(model, refuses):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = {name: tensor + 1 for name, tensor in model.official_state_dict().items()}
    del state["mask_embed.bos_token"], state["text_embed.weight"]
    state["image_encoder.norm.weight"] = torch.zeros(17)
    state["image_decoder.head.bias"] = None
    state["lora.weight"] = torch.zeros(1)
    with refuses(
        "state",
        "missing mask_embed.bos_token",
        "missing text_embed.weight",
        "unexpected lora.weight",
        "image_encoder.norm.weight is (17,), must be (16,)",
        "image_decoder.head.bias is NoneType, must be (8,)",
    ):
        model.load_official_state_dict(state)
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())


@pytest.mark.parametrize("state", [None, "model.safetensors", [], 3])
def test_official_weights_that_are_no_mapping_are_refused(model, state, refuses):
    with refuses("state", type(state).__name__):
        model.load_official_state_dict(state)


def test_official_weights_without_any_parameter_are_refused_and_all_are_named(model, refuses):
    with refuses("state", *(f"missing {name}" for name in model.official_state_dict())):
        model.load_official_state_dict({})


@pytest.mark.parametrize("name", ["spatial.join.weight", "", "lora", None, 3])
def test_a_parameter_that_official_checkpoints_do_not_have_is_refused(name, refuses):
    with refuses("name", repr(name)):
        official_name(name, 1)


# Generation and training: what both refuse.


@pytest.mark.parametrize("call", ["stream", "generate", "training_losses"])
@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("model", "NoneType", {"model": None}),
        ("model", "str", {"model": "nova-d48w1024-osp480"}),
        ("model", "Linear", {"model": torch.nn.Linear(2, 2)}),
        ("prompt_embeds", "NoneType", {"prompt_embeds": None}),
        ("prompt_embeds", "str", {"prompt_embeds": "a dog"}),
        ("prompt_embeds", "str", {"prompt_embeds": ["a dog", "a cat"]}),
        ("prompt_embeds", "no texts", {"prompt_embeds": []}),
        ("prompt_embeds", "no texts", {"prompt_embeds": torch.zeros(0, 3, 6)}),
        ("prompt_embeds", "(3, 6)", {"prompt_embeds": torch.zeros(3, 6)}),
        ("prompt_embeds", "(3, 5)", {"prompt_embeds": torch.zeros(2, 3, 5)}),
        ("prompt_embeds", "4 tokens", {"prompt_embeds": torch.zeros(2, 4, 6)}),
        ("prompt_embeds", "torch.int64", {"prompt_embeds": torch.zeros(2, 3, 6).long()}),
        ("motion_flow", "-2", {"motion_flow": -2}),
        ("motion_flow", "nan", {"motion_flow": NAN}),
        ("motion_flow", "inf", {"motion_flow": [5.0, INF]}),
        ("motion_flow", "True", {"motion_flow": True}),
        ("motion_flow", "1 numbers", {"motion_flow": "5"}),
        ("motion_flow", "1 numbers", {"motion_flow": [5.0]}),
        ("motion_flow", "3 numbers", {"motion_flow": (5.0, 5.0, 5.0)}),
        ("motion_flow", "None", {"motion_flow": [5.0, None]}),
        ("motion_flow", "tensor", {"motion_flow": torch.ones(2)}),
        ("fps", "-12", {"fps": -12}),
        ("fps", "0 numbers", {"fps": []}),
        ("fps", "nan", {"fps": [12.0, NAN]}),
        ("generator", "0", {"generator": 0}),
        ("generator", "Generator(PCG64)", {"generator": np.random.default_rng(0)}),
        ("generator", "cuda", {"generator": OnCuda()}),
        ("generator", "a list of 1", {"generator": [torch.Generator()]}),
        ("backend", "'flash'", {"backend": "flash"}),
        ("backend", "'xformers'", {"backend": "xformers"}),
    ],
)
def test_generation_and_training_refuse_at_the_call(model, call, argument, came, changes, refuses):
    good: dict[str, Any] = {"model": model, "prompt_embeds": torch.zeros(2, 3, 6)}
    good |= {"latents": torch.zeros(2, 2, 2, 8, 8)} if "train" in call else {"plan": PLAN}
    with refuses(argument, came):
        getattr(nova, call)(**{**good, **changes})


@pytest.mark.parametrize("call", ["stream", "training_losses"])
@pytest.mark.parametrize("argument", ["motion_flow", "fps"])
def test_a_model_of_images_refuses_motion(image_model, call, argument, refuses):
    good: dict[str, Any] = {"model": image_model, "prompt_embeds": torch.zeros(1, 3, 6)}
    good |= {"latents": torch.zeros(1, 2, 1, 8, 8)} if "train" in call else {"plan": plan(frames=1)}
    with refuses(argument, "5.0", "images"):
        getattr(nova, call)(**good, **{argument: 5.0})


BAD_SCHEDULERS = [
    ("scheduler", "None", {}),
    ("scheduler", "str", "DDPMScheduler"),
    ("scheduler", "'NoScheduler'", {"_class_name": "NoScheduler"}),
    ("scheduler.clip_sample", "True", {"_class_name": "DDPMScheduler"}),
    ("scheduler", "'cubic'", {"_class_name": "DDPMScheduler", "beta_schedule": "cubic"}),
]


@pytest.mark.parametrize(("argument", "came", "scheduler"), BAD_SCHEDULERS)
def test_an_unknown_scheduler_is_refused(model, argument, came, scheduler, refuses):
    text = torch.zeros(1, 3, 6)
    with refuses(argument, came):
        nova.stream(model, text, plan(scheduler=scheduler))
    with refuses(argument, came):
        nova.training_losses(model, torch.zeros(1, 2, 1, 8, 8), text, scheduler=scheduler)


# Generation.


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("plan", "dict", {"plan": {}}),
        ("plan", "int", {"plan": 0}),
        ("plan", "str", {"plan": "fast"}),
        ("sets", "64", {"plan": None}),
        ("sets", "17", {"plan": plan(sets=17)}),
        ("plan.diffusion_steps", "1001", {"plan": plan(diffusion_steps=1001)}),
        ("plan.grid", "(8, 6)", {"plan": plan(grid=(8, 6))}),
        ("plan.grid", "(2, 2)", {"plan": plan(grid=(2, 2))}),
        ("negative_prompt_embeds", "str", {"negative_prompt_embeds": "blurry"}),
        ("negative_prompt_embeds", "no texts", {"negative_prompt_embeds": []}),
        ("negative_prompt_embeds", "1 texts", {"negative_prompt_embeds": torch.zeros(1, 3, 6)}),
        ("negative_prompt_embeds", "(3, 7)", {"negative_prompt_embeds": torch.zeros(2, 3, 7)}),
        ("negative_prompt_embeds", "9 tokens", {"negative_prompt_embeds": torch.zeros(2, 9, 6)}),
        ("context", "list", {"context": [torch.zeros(2, 8, 8)]}),
        ("context", "(2, 2, 8, 8)", {"context": torch.zeros(2, 2, 8, 8)}),
        ("context", "(1, 2, 1, 8, 8)", {"context": torch.zeros(1, 2, 1, 8, 8)}),
        ("context", "(2, 3, 1, 8, 8)", {"context": torch.zeros(2, 3, 1, 8, 8)}),
        ("context", "(2, 2, 1, 8, 4)", {"context": torch.zeros(2, 2, 1, 8, 4)}),
        ("context", "3 frames", {"context": torch.zeros(2, 2, 3, 8, 8)}),
        ("context", "torch.uint8", {"context": torch.zeros(2, 2, 1, 8, 8, dtype=torch.uint8)}),
        ("order", "list", {"order": [list(range(16))] * 2}),
        ("order", "(16,)", {"order": torch.arange(16)}),
        ("order", "(1, 16)", {"order": torch.arange(16)[None]}),
        ("order", "(2, 15)", {"order": torch.arange(15).expand(2, -1)}),
        ("order", "torch.float32", {"order": torch.rand(2, 16)}),
        ("order", "repeated", {"order": torch.zeros(2, 16, dtype=torch.int64)}),
        ("order", "repeated", {"order": torch.arange(1, 17).expand(2, -1)}),
        ("generator", "a list of 0", {"generator": []}),
        ("generator", "a list of 3", {"generator": [torch.Generator()] * 3}),
        ("generator", "None", {"generator": [torch.Generator(), None]}),
        ("generator", "cuda", {"generator": [torch.Generator(), OnCuda()]}),
        ("progress", "str", {"progress": "yes"}),
        ("callback", "str", {"callback": "print"}),
        ("cancel", "bool", {"cancel": True}),
    ],
)
@pytest.mark.parametrize("call", [nova.stream, nova.generate])
def test_generation_refuses_before_the_first_frame(model, call, argument, came, changes, refuses):
    good = {"model": model, "prompt_embeds": torch.zeros(2, 3, 6), "plan": PLAN}
    with refuses(argument, came):
        call(**{**good, **changes})


def test_a_scheduler_of_learned_variance_is_refused_by_a_head_of_fixed_variance(model, refuses):
    learned = {"_class_name": "DDPMScheduler", "clip_sample": False}
    learned["variance_type"] = "learned_range"
    with refuses("scheduler", "learned", "fixed"):
        nova.stream(model, torch.zeros(1, 3, 6), plan(scheduler=learned))
    with refuses("scheduler", "learned", "fixed"):
        latents = torch.zeros(1, 2, 1, 8, 8)
        nova.training_losses(model, latents, torch.zeros(1, 3, 6), scheduler=learned)


def test_a_cpu_generator_works_and_the_model_works_after_a_refusal(model, refuses):
    def run() -> torch.Tensor:
        seeded = torch.Generator().manual_seed(3)
        return nova.generate(model, torch.ones(1, 3, 6), PLAN, generator=seeded)

    before = run()
    with refuses("context"):
        nova.stream(model, torch.ones(1, 3, 6), PLAN, context=torch.zeros(1, 2, 3, 8, 8))
    with refuses("latents"):
        nova.training_losses(model, torch.zeros(1, 2, 1, 8, 6), torch.ones(1, 3, 6))
    assert torch.equal(run(), before)


# Training.

HIDDEN = torch.ones(4, 16, dtype=torch.bool)
MASK = full_mask(4, 16)
SHOWN = torch.zeros(4, 1, dtype=torch.int64)
ALL_BUT_FIRST = HIDDEN.clone()
ALL_BUT_FIRST[:, 0] = False


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("latents", "NoneType", {"latents": None}),
        ("latents", "list", {"latents": [0.0]}),
        ("latents", "(2, 2, 8, 8)", {"latents": torch.zeros(2, 2, 8, 8)}),
        ("latents", "(1, 2, 2, 8, 8)", {"latents": torch.zeros(1, 2, 2, 8, 8)}),
        ("latents", "(2, 3, 2, 8, 8)", {"latents": torch.zeros(2, 3, 2, 8, 8)}),
        ("latents", "(8, 6)", {"latents": torch.zeros(2, 2, 2, 8, 6)}),
        ("latents", "0", {"latents": torch.zeros(2, 2, 2, 0, 8)}),
        ("latents", "0 frames", {"latents": torch.zeros(2, 2, 0, 8, 8)}),
        ("latents", "torch.uint8", {"latents": torch.zeros(2, 2, 2, 8, 8, dtype=torch.uint8)}),
        ("latents", "meta", {"latents": torch.zeros(2, 2, 2, 8, 8, device="meta")}),
        ("generator", "a list of 2", {"generator": [torch.Generator()] * 2}),
        *(("repeats", repr(value), {"repeats": value}) for value in NO_COUNTS),
        ("mask", "Tensor", {"mask": HIDDEN}),
        ("mask", "str", {"mask": "all"}),
        ("mask.hidden", "(2, 16)", {"mask": full_mask(2, 16)}),
        ("mask.hidden", "(4, 15)", {"mask": full_mask(4, 15)}),
        ("mask", "meta", {"mask": full_mask(4, 16, device="meta")}),
        ("mask.visible_ids", "outside", {"mask": TrainingMask(ALL_BUT_FIRST, SHOWN + 16)}),
        ("mask.visible_ids", "outside", {"mask": TrainingMask(ALL_BUT_FIRST, SHOWN - 1)}),
        ("mask.visible_ids", "other", {"mask": TrainingMask(ALL_BUT_FIRST, SHOWN + 1)}),
        ("mask.visible_ids", "other", {"mask": TrainingMask(HIDDEN, SHOWN)}),
        ("mask.visible_ids", "other", {"mask": TrainingMask(ALL_BUT_FIRST, SHOWN[:, :0])}),
        ("mask.visible_ids", "other", {"mask": TrainingMask(ALL_BUT_FIRST, SHOWN.repeat(1, 2))}),
        ("mask.visible_ids", "other",
         {"mask": TrainingMask(ALL_BUT_FIRST, SHOWN, torch.ones(4, 1, dtype=torch.bool))}),
        ("mask.hidden", "no hidden",
         {"mask": TrainingMask(~HIDDEN, torch.arange(16).repeat(4, 1))}),
        ("noise", "list", {"mask": MASK, "noise": [0.0]}),
        ("noise", "(64, 8)", {"mask": MASK, "noise": torch.zeros(64, 8)}),
        ("noise", "(4, 63, 8)", {"mask": MASK, "noise": torch.zeros(4, 63, 8)}),
        ("noise", "(1, 64, 8)", {"mask": MASK, "noise": torch.zeros(1, 64, 8)}),
        ("index", "torch.float32", {"mask": MASK, "index": torch.zeros(4, 64)}),
        ("index", "(4, 63)", {"mask": MASK, "index": torch.zeros(4, 63, dtype=torch.int64)}),
        ("index", "to 1000", {"mask": MASK, "index": torch.full((4, 64), 1000)}),
        ("index", "from -1", {"mask": MASK, "index": torch.full((4, 64), -1)}),
    ],
)  # fmt: skip
def test_training_refuses_before_any_work(model, argument, came, changes, refuses):
    good = {"latents": torch.zeros(2, 2, 2, 8, 8), "prompt_embeds": torch.zeros(2, 3, 6)}
    ran = []
    hook = model.temporal.register_forward_pre_hook(lambda *_: ran.append(1))
    try:
        with refuses(argument, came):
            nova.training_losses(model, **{**good, **changes})
    finally:
        hook.remove()
    assert not ran


def test_a_config_survives_its_own_dictionary():
    config = nova.NovaConfig(**SIZES)
    assert nova.Nova(asdict(config)).sizes == config
