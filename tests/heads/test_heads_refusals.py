"""Every public name of `contar.heads` refuses bad input by the argument's name."""

from typing import Any

import pytest
import torch
from heads import Given

from contar.conditioning import Guidance
from contar.heads import (
    DiffusionHead,
    DiffusionMLP,
    MixtureHead,
    head_names,
    make_head,
    register_head,
    released_head,
)

NAN, INF = float("nan"), float("inf")
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
DDPM = {"_class_name": "DDPMScheduler", "clip_sample": False}
SIZES: dict[str, Any] = {"token_dim": 4, "cond_dim": 6, "width": 8, "depth": 1}


def head(scheduler: Any = FLOW) -> DiffusionHead:
    return DiffusionHead(DiffusionMLP(**SIZES), scheduler, steps=2)


class OnCuda(torch.Generator):
    device: Any = torch.device("cuda")


@pytest.mark.parametrize("argument", list(SIZES))
@pytest.mark.parametrize("value", [0, -3, 8.0, NAN, True, None, "8"])
def test_sizes_below_one_are_refused(argument, value, refuses):
    with refuses(argument, repr(value)):
        DiffusionMLP(**{**SIZES, argument: value})


@pytest.mark.parametrize("value", [None, 2, "learned"])
def test_a_learned_variance_is_yes_or_no(value, refuses):
    with refuses("learned_variance", type(value).__name__):
        DiffusionMLP(**SIZES, learned_variance=value)


@pytest.mark.parametrize("value", [None, 1, "pre"])
def test_the_place_of_a_norm_is_yes_or_no(value, refuses):
    with refuses("prenorm", type(value).__name__):
        DiffusionMLP(**SIZES, prenorm=value)


@pytest.mark.parametrize("value", [None, 1, "conv", ["mlp"]])
def test_an_unknown_projection_is_refused_and_the_known_ones_are_listed(value, refuses):
    with refuses("projection", repr(value), "mlp", "linear"):
        DiffusionMLP(**SIZES, projection=value)


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("x", "NoneType", {"x": None}),
        ("x", "(3, 5)", {"x": torch.zeros(3, 5)}),
        ("x", "torch.int64", {"x": torch.zeros(3, 4, dtype=torch.int64)}),
        ("timestep", "float", {"timestep": 1.0}),
        ("timestep", "(2,)", {"timestep": torch.zeros(2)}),
        ("timestep", "(1, 3)", {"timestep": torch.zeros(1, 3)}),
        ("timestep", "torch.int64", {"timestep": torch.zeros(3, dtype=torch.int64)}),
        ("condition", "(3, 6)", {"condition": torch.zeros(3, 6)}),
        ("condition", "(2, 8)", {"condition": torch.zeros(2, 8)}),
        ("condition", "torch.float64", {"condition": torch.zeros(3, 8, dtype=torch.float64)}),
    ],
)
def test_a_head_refuses_what_does_not_fit(argument, came, changes, refuses):
    good = {"x": torch.zeros(3, 4), "timestep": torch.zeros(3), "condition": torch.zeros(3, 8)}
    with refuses(argument, came):
        DiffusionMLP(**SIZES)(**{**good, **changes})


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("target", "NoneType", {"target": None}),
        ("target", "(1, 3, 4)", {"target": torch.zeros(1, 3, 4)}),
        ("target", "(3, 5)", {"target": torch.zeros(3, 5)}),
        ("target", "torch.int64", {"target": torch.zeros(3, 4, dtype=torch.int64)}),
        ("cond", "list", {"cond": [0.0]}),
        ("cond", "(2, 6)", {"cond": torch.zeros(2, 6)}),
        ("cond", "(3, 8)", {"cond": torch.zeros(3, 8)}),
        ("cond", "torch.bfloat16", {"cond": torch.zeros(3, 6, dtype=torch.bfloat16)}),
        ("repeats", "0", {"repeats": 0}),
        ("repeats", "-1", {"repeats": -1}),
        ("repeats", "1.0", {"repeats": 1.0}),
        ("repeats", "None", {"repeats": None}),
        ("generator", "int", {"generator": 0}),
        ("generator", "list", {"generator": [torch.Generator()] * 2}),
        ("generator", "cuda", {"generator": OnCuda()}),
        ("noise", "(3, 4)", {"noise": torch.zeros(3, 4)}),
        ("noise", "(2, 3, 4)", {"noise": torch.zeros(2, 3, 4)}),
        ("noise", "torch.int64", {"noise": torch.zeros(1, 3, 4, dtype=torch.int64)}),
        ("index", "list", {"index": [[0, 1, 2]]}),
        ("index", "(3,)", {"index": torch.zeros(3, dtype=torch.int64)}),
        ("index", "torch.float32", {"index": torch.zeros(1, 3)}),
        ("index", "to 1000", {"index": torch.tensor([[0, 1, 1000]])}),
        ("index", "from -1", {"index": torch.tensor([[0, 1, -1]])}),
    ],
)
def test_a_loss_refuses_what_does_not_fit(argument, came, changes, refuses):
    good = {"target": torch.zeros(3, 4), "cond": torch.zeros(3, 6)}
    with refuses(argument, came):
        head().loss(**{**good, **changes})


FRAME = Guidance(3.0, renorm=0.5, renorm_over="frame")


def test_a_renormalisation_of_1_changes_nothing_and_needs_no_frame():
    drawing, (cond, uncond) = head(), torch.randn(2, 2, 3, 6)

    def sample(**renorm: Any) -> torch.Tensor:
        noise = torch.Generator().manual_seed(0)
        return drawing.sample(cond, uncond=uncond, guidance=Guidance(3.0, **renorm), noise=noise)

    assert torch.equal(sample(renorm=1.0, renorm_over="frame"), sample())


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("cond", "NoneType", {"cond": None}),
        ("cond", "(3, 6)", {"cond": torch.zeros(3, 6)}),
        ("cond", "(2, 3, 7)", {"cond": torch.zeros(2, 3, 7)}),
        ("cond", "torch.int64", {"cond": torch.zeros(2, 3, 6, dtype=torch.int64)}),
        ("steps", "0", {"steps": 0}),
        ("steps", "2.0", {"steps": 2.0}),
        ("steps", "5000", {"steps": 5000}),
        ("frame", "2", {"frame": 2}),
        ("frame", "None", {"guidance": FRAME, "uncond": torch.zeros(2, 3, 6)}),
        ("uncond", "None", {"guidance": Guidance(2.0)}),
        ("uncond", "(2, 2, 6)", {"guidance": Guidance(2.0), "uncond": torch.zeros(2, 2, 6)}),
        ("uncond", "(1, 3, 6)", {"uncond": torch.zeros(1, 3, 6)}),
        ("uncond", "str", {"uncond": "nothing"}),
        ("guidance", "float", {"guidance": 2.0}),
        ("guidance", "float", {"guidance": 0.0}),
        ("guidance.start", "1.0", {"guidance": Guidance(2.0, start=1.0)}),
        ("guidance.truncation", "0.5", {"guidance": Guidance(truncation=0.5)}),
        ("guidance.ceiling", "1001", {"guidance": Guidance(ceiling=1001)}),
        ("guidance.interval", "0.5", {"guidance": Guidance(2.0, interval=(0.0, 0.5))}),
        ("temperature", "-1", {"temperature": -1}),
        ("temperature", "nan", {"temperature": NAN}),
        ("temperature", "inf", {"temperature": INF}),
        ("temperature", "None", {"temperature": None}),
        ("noise", "7", {"noise": 7}),
        ("noise", "a list of 1", {"noise": [torch.Generator()]}),
        ("noise", "a list of 0", {"noise": []}),
        ("noise", "cuda", {"noise": OnCuda()}),
        ("noise", "(1, 3, 4)", {"noise": Given(torch.zeros(1, 3, 4))}),
        ("noise", "(2, 2, 4)", {"noise": Given(torch.zeros(2, 2, 4))}),
        ("noise", "torch.int64", {"noise": Given(torch.zeros(2, 3, 4, dtype=torch.int64))}),
    ],
)
def test_sampling_refuses_what_does_not_fit(argument, came, changes, refuses):
    with refuses(argument, came):
        head().sample(**{"cond": torch.zeros(2, 3, 6), **changes})


def test_fresh_noise_of_another_shape_is_refused(refuses):
    with refuses("noise", "(2, 1, 4)"):
        head(DDPM).sample(
            torch.zeros(2, 3, 6), noise=Given(torch.zeros(2, 3, 4), torch.zeros(2, 1, 4))
        )


@pytest.mark.parametrize("learned", [False, True])
def test_a_scheduler_of_another_variance_than_the_network_is_refused(learned, refuses):
    config = {**DDPM, "variance_type": "fixed_small" if learned else "learned_range"}
    own = {**DDPM, "variance_type": "learned_range" if learned else "fixed_small"}
    network, other = DiffusionMLP(**SIZES, learned_variance=learned), ("learned", "fixed")[learned]
    with refuses("scheduler", other):
        DiffusionHead(network, config)
    with refuses("scheduler", other):
        DiffusionHead(network, own).with_scheduler(config)
    with refuses("scheduler", other):
        DiffusionHead(network, own).with_solver(config).sample(torch.zeros(2, 3, 6))


@pytest.mark.parametrize(
    ("argument", "came", "named"),
    [
        ("head", "NoneType", None),
        ("head", 'got \'energy\', allowed: a mapping, as {"name": "energy", ...}', "energy"),
        ("head['name']", "'gan'", {"name": "gan"}),
        ("head['name']", "None", {"width": 8}),
        ("head['depth']", "None", {"name": "flow", "width": 8}),
        ("head['components']", "3", {"name": "flow", "width": 8, "depth": 1, "components": 3}),
        ("width", "0", {"name": "energy", "width": 0, "depth": 1}),
        ("scheduler", "str", {"name": "flow", "width": 8, "depth": 1, "scheduler": "flow"}),
    ],
)
def test_a_head_by_name_refuses_what_is_unknown_or_missing(argument, came, named, refuses):
    with refuses(argument, came):
        make_head(named, 4, 6)


def test_a_head_is_registered_once_by_a_name_and_a_function(refuses):
    with refuses("name", "flow"):
        register_head("flow", MixtureHead)
    with refuses("make", "int"):
        register_head("three", 3)  # type: ignore[arg-type]
    assert "three" not in head_names()


@pytest.mark.parametrize(
    ("argument", "x", "cond"),
    [("x", (5, 1), (5, 6)), ("x", (5, 3), (5, 6)), ("cond", (5, 4), (6,)), ("cond", (4,), (5, 6))],
)
@pytest.mark.parametrize("name", ["mixture", "flow", "mean_flow", "flow_map"])
def test_densities_are_of_tokens_with_a_condition_each(name, argument, x, cond, refuses):
    sizes = {} if name == "mixture" else {"width": 8, "depth": 1}
    density: Any = make_head({"name": name, **sizes}, 4, 6)
    with refuses(argument):
        density.log_density(torch.zeros(x), torch.zeros(cond))


@pytest.mark.parametrize("steps", [0, 2.0, 8193])
@pytest.mark.parametrize("name", ["diffusion", "flow", "mean_flow", "flow_map"])
def test_a_head_of_steps_takes_a_number_of_them(name, steps, refuses):
    head: Any = make_head({"name": name, "width": 8, "depth": 1}, 4, 6)
    for draw in (lambda: head.sample(torch.zeros(1, 1, 6), steps=steps),
                 lambda: head.check_sample(Guidance(), 1.0, steps)):  # fmt: skip
        with refuses("steps", str(steps)):
            draw()


@pytest.mark.parametrize("kind", ["mixture", "energy"])
def test_a_head_of_one_pass_takes_no_steps(kind, refuses):
    sizes = {} if kind == "mixture" else {"width": 8, "depth": 1}
    with refuses("steps", "4"):
        make_head({"name": kind, **sizes}, 4, 6).sample(torch.zeros(1, 1, 6), steps=4)


@pytest.mark.parametrize(
    ("argument", "came", "options"),
    [
        ("norm", "'batch'", {"norm": "batch"}),
        ("eps", "-1", {"eps": -1}),
        ("gated", "int", {"gated": 1}),
        ("hidden", "0", {"hidden": 0}),
        ("bias", "NoneType", {"bias": None}),
        ("time_norm", "'layer'", {"time_norm": "layer"}),
        ("solver", "'euler'", {"solver": "euler"}),
        ("prediction", "'epsilon'", {"prediction": "epsilon"}),
        ("draws", "'beta'", {"draws": "beta"}),
        ("logit", "0.5", {"draws": "logit_normal", "logit": 0.5}),
        ("logit", "nan", {"draws": "logit_normal", "logit": (NAN, 1.0)}),
        ("logit", "-1.0", {"draws": "logit_normal", "logit": (0.0, -1.0)}),
        ("weights", "[1.0]", {"weights": [1.0]}),
        ("timesteps", "'both'", {"timesteps": "both"}),
        ("head['gate']", "True", {"gate": True}),
    ],
)
def test_options_that_are_not_listed_are_refused(argument, came, options, refuses):
    with refuses(argument, came):
        make_head({"name": "flow", "width": 8, "depth": 1, **options}, 4, 6)


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("prediction", {"prediction": "sample"}),
        ("timesteps", {"timesteps": "signal"}),
        ("solver", {"solver": "straight"}),
    ],
)
def test_what_only_a_flow_has_is_refused_beside_another_scheduler(argument, options, refuses):
    with refuses(argument):
        make_head({"name": "diffusion", "width": 8, "depth": 1, **options}, 4, 6)


@pytest.mark.parametrize(
    ("argument", "came", "name", "state"),
    [
        ("name", "'kokoro'", "kokoro", {}),
        ("state", "list", "sundial", []),
        ("state", "no network.token.weight", "sundial", {"embed.weight": torch.zeros(2, 2)}),
        ("state", "flow_loss.net.extra", "sundial", {"flow_loss.net.extra": torch.zeros(2)}),
    ],
)
def test_weights_of_no_known_head_are_refused(argument, came, name, state, refuses):
    with refuses(argument, came):
        released_head(name, state)


def test_weights_of_a_released_head_that_are_missing_or_of_another_shape_are_named(refuses):
    own: Any = make_head({"name": "flow", "width": 8, "depth": 1, "prenorm": True}, 4, 6)
    own = own.state_dict()
    state = {
        "input_proj.weight": own["network.token.weight"],
        "cond_embed.weight": torch.zeros(8, 6),
        "res_blocks.0.mlp.2.weight": torch.zeros(8, 8),
    }
    state = {f"flow_loss.net.{key}": value for key, value in state.items()}
    with refuses("state", "no network.token.bias"):
        released_head("sundial", state)


@pytest.mark.parametrize(
    "options", [{"prediction": "sample"}, {"prediction": "v_prediction"}, {"timesteps": "signal"}]
)
def test_a_head_with_options_of_a_flow_is_drawn_by_a_flows_scheduler(options, refuses):
    flow: Any = make_head({"name": "flow", "width": 8, "depth": 1, **options}, 4, 6)
    for other in (DDPM, {"_class_name": "UniPCMultistepScheduler"}):
        with refuses("scheduler", other["_class_name"], "a flow's"):
            flow.with_solver(other)
    solver = {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True,
              "prediction_type": "flow_prediction"}  # fmt: skip
    for other in (solver, {**FLOW, "shift": 3.0}):
        drawn = flow.with_solver(other).sample(torch.zeros(1, 2, 6), steps=3)
        assert drawn.isfinite().all()
