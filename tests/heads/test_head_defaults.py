"""Heads do not depend on torch's defaults, and their own are those that saved configs count on."""

from typing import Any

import pytest
import torch
from heads import DDPM, FLOW, HEADS, make
from other_defaults import assert_independent, randn, seeded

from contar.conditioning import Guidance
from contar.heads import DiffusionHead, DiffusionMLP, make_head

NETWORK: dict[str, Any] = {
    "prenorm": False, "projection": "mlp", "norm": "layer", "eps": 1e-6, "gated": False,
    "hidden": None, "bias": True, "time_norm": None,
}  # fmt: skip
DIFFUSION: dict[str, Any] = {
    **NETWORK, "solver": "scheduler", "prediction": None, "draws": None,
    "logit": (0.0, 1.0), "weights": None, "timesteps": "noise",
}  # fmt: skip
SIZES: dict[str, Any] = {"width": 8, "depth": 1}
DEFAULTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # what a config says, and leaves out
    "diffusion": (SIZES, {**DIFFUSION, "scheduler": DDPM, "steps": 50}),
    "flow": (SIZES, {**DIFFUSION, "scheduler": FLOW, "steps": 25}),
    "mixture": ({}, {"components": 16, "width": 0, "least": 0.05, "candidates": 64}),
    "energy": (SIZES, {"noise": 64, "alpha": 1.0, "train_temperature": 1.0, "tempered": "noise"}),
    "mean_flow": (SIZES, {**NETWORK, "steps": 1, "spans": 0.25, "uniform": 0.5, "power": 0.0}),
    "flow_map": (
        SIZES,
        {**NETWORK, "steps": 1, "share": 0.25, "diagonal": 0.75,
         "draws": "logit_normal", "logit": (0.4, 1.0), "weighting": 32, "through_target": True,
         "time_scale": 1.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_heads_draw_and_learn_the_same_whatever_torchs_defaults_are(name: str) -> None:
    head = make(name, 3, 4)
    cond = randn(2, 3, 4)
    with torch.no_grad():
        assert_independent(lambda: head.sample(cond, noise=seeded()))
        assert_independent(
            lambda: head.loss(randn(6, 3), cond.flatten(0, 1), repeats=2, generator=seeded())
        )


@pytest.mark.parametrize("name", DEFAULTS)
def test_what_a_config_leaves_out_is_what_saved_configs_count_on(name: str) -> None:
    said, left_out = DEFAULTS[name]
    heads: list[Any] = []
    for config in (said, {**said, **left_out}):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            heads.append(make_head({"name": name, **config}, 3, 4))
    found = [list(head.state_dict().values()) for head in heads]
    x, cond, other = randn(2, 200, 3), randn(2, 200, 4), randn(2, 201, 4)[:, 1:]
    guided: Any = {"uncond": other, "guidance": Guidance(2.0)}
    calls: list[tuple[str, list[Any], dict[str, Any], dict[str, Any]]] = [
        ("loss", [x[0], cond[0]], {"generator": seeded}, {"repeats": 1}),
        ("sample", [cond], {"noise": seeded}, {"temperature": 1.0, "guidance": Guidance()}),
        ("sample", [cond], {"noise": seeded, **guided}, {"temperature": 1.0}),
    ]
    if name in ("flow", "mean_flow", "flow_map"):
        calls.append(("log_density", [x[0, :8], cond[0, :8]], {}, {"steps": 32, "probes": 0}))
    for method, given, options, defaults in calls:
        for head, made, more in zip(heads, found, ({}, defaults), strict=True):
            fresh = {key: y() if y is seeded else y for key, y in options.items()}
            made.append(getattr(head, method)(*given, **fresh, **more).detach())
    for short, whole in zip(*found, strict=True):
        assert torch.equal(short, whole)


def test_a_diffusion_heads_own_number_of_steps_is_25() -> None:
    assert len(DiffusionHead(DiffusionMLP(3, 4, width=8, depth=1), FLOW).table()) == 25
