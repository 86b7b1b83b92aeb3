"""Every public name of `contar.diffusion` refuses bad input by the argument's name."""

from typing import Any

import pytest
import torch
from diffusers.schedulers.scheduling_ddim_inverse import DDIMInverseScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)

from contar.diffusion import (
    NoiseProcess,
    SamplerTable,
    draw_times,
    iddpm_table,
    load_scheduler,
    variance_bound,
)

NAN, INF = float("nan"), float("inf")
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
LCM = {"_class_name": "FlowMatchLCMScheduler"}
DDPM = {"_class_name": "DDPMScheduler", "clip_sample": False}
INVERSE = {**DDPM, "_class_name": "DDIMInverseScheduler"}


class OnCuda(torch.Generator):
    device: Any = torch.device("cuda")


@pytest.mark.parametrize(
    "read",
    [load_scheduler, NoiseProcess.from_config, lambda config: SamplerTable.from_config(config, 2)],
)
@pytest.mark.parametrize(
    ("argument", "came", "config"),
    [
        ("scheduler", "NoneType", None),
        ("scheduler", "str", "DDPMScheduler"),
        ("scheduler", "int", 3),
        ("scheduler", "list", [DDPM]),
        ("scheduler", "None", {}),
        ("scheduler", "None", {"beta_schedule": "linear"}),
        ("scheduler", "None", {"_class_name": None}),
        ("scheduler", "3", {"_class_name": 3}),
        ("scheduler", "'DDPM'", {"_class_name": "DDPM"}),
        ("scheduler", "'os.system'", {"_class_name": "os.system"}),
        ("scheduler", "'__file__'", {"_class_name": "__file__"}),
        ("scheduler", "'ConfigMixin'", {"_class_name": "ConfigMixin"}),
        ("scheduler", "'cubic'", {**DDPM, "beta_schedule": "cubic"}),
        ("scheduler", "'many'", {**DDPM, "num_train_timesteps": "many"}),
        ("scheduler", "-5", {**DDPM, "num_train_timesteps": -5}),
        ("scheduler.clip_sample", "True", {**DDPM, "clip_sample": True}),
        ("scheduler.clip_sample", "True", {"_class_name": "DDPMScheduler"}),
        ("scheduler.thresholding", "True", {**DDPM, "thresholding": True}),
        ("scheduler.invert_sigmas", "True", {**FLOW, "invert_sigmas": True}),
        ("scheduler.invert_sigmas", "True", {**LCM, "invert_sigmas": True}),
        ("scheduler.invert_sigmas", "True", FlowMatchEulerDiscreteScheduler(invert_sigmas=True)),
        ("scheduler", "'DDIMInverseScheduler'", INVERSE),
        ("scheduler", "'DDIMInverseScheduler'", {"_class_name": "DDIMInverseScheduler"}),
        ("scheduler", "'DDIMInverseScheduler'", DDIMInverseScheduler(clip_sample=False)),
        (
            "scheduler",
            "'DPMSolverMultistepInverseScheduler'",
            {"_class_name": "DPMSolverMultistepInverseScheduler"},
        ),
    ],
)
def test_a_scheduler_that_diffusers_does_not_have_is_refused(read, argument, came, config, refuses):
    with refuses(argument, came):
        read(config)


@pytest.mark.parametrize("steps", [0, -1, 2.0, NAN, INF, True, None, "25", [25]])
def test_fewer_than_one_step_is_refused(steps, refuses):
    with refuses("steps", repr(steps)):
        SamplerTable.from_config(FLOW, steps)
    with refuses("steps", repr(steps)):
        iddpm_table(steps)


@pytest.mark.parametrize("config", [FLOW, DDPM])
def test_more_steps_than_trained_are_refused(config, refuses):
    with refuses("steps", "1001", "1000"):
        SamplerTable.from_config(config, 1001)
    with refuses("steps", "1001", "1000"):
        iddpm_table(1001)


@pytest.mark.parametrize(
    ("came", "config"),
    [
        ("DDPMScheduler", {**DDPM, "timestep_spacing": "random"}),
        ("RePaintScheduler", {"_class_name": "RePaintScheduler", "clip_sample": False}),
        ("FlowMatchEulerDiscreteScheduler", {**FLOW, "use_dynamic_shifting": True}),
        ("UnCLIPScheduler", {"_class_name": "UnCLIPScheduler", "clip_sample": False}),
        ("EntropyBoundScheduler", {"_class_name": "EntropyBoundScheduler"}),
    ],
)
def test_a_solver_that_cannot_run_on_its_own_is_refused(came, config, refuses):
    with refuses("scheduler", came):
        SamplerTable.from_config(config, 1)


@pytest.mark.parametrize(
    ("argument", "came", "config"),
    [
        ("prediction_type", "'score'", {**DDPM, "prediction_type": "score"}),
        ("scheduler", "'EDMEulerScheduler'", {"_class_name": "EDMEulerScheduler"}),
    ],
)
def test_a_process_that_is_not_known_is_refused(argument, came, config, refuses):
    with refuses(argument, came):
        NoiseProcess.from_config(config)


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("alpha", "list", {"alpha": [1.0]}),
        ("alpha", "(2, 1)", {"alpha": torch.ones(2, 1)}),
        ("alpha", "torch.int64", {"alpha": torch.ones(2, dtype=torch.int64)}),
        ("sigma", "(3,)", {"sigma": torch.ones(3)}),
        ("timesteps", "NoneType", {"timesteps": None}),
        ("timesteps", "(1,)", {"timesteps": torch.ones(1)}),
        ("prediction", "'score'", {"prediction": "score"}),
        ("prediction", "None", {"prediction": None}),
        ("betas", "str", {"betas": "learned"}),
        ("betas", "(3,)", {"betas": torch.ones(3)}),
        ("prediction", "'flow'", {"betas": torch.ones(2)}),
    ],
)
def test_a_process_refuses_tables_that_do_not_fit(argument, came, changes, refuses):
    tables = {name: torch.ones(2) for name in ("alpha", "sigma", "timesteps")}
    with refuses(argument, came):
        NoiseProcess(**{**tables, "prediction": "flow", **changes})


@pytest.mark.parametrize(
    ("argument", "came", "shape", "changes"),
    [
        ("shape", "()", (), {}),
        ("shape", "-1", (-1,), {}),
        ("shape", "2.0", (2, 2.0), {}),
        ("shape", "(2, 2)", ((2, 2),), {}),
        ("generator", "a list of 1", (2,), {"generator": [torch.Generator()]}),
        ("generator", "0", (2,), {"generator": 0}),
        ("generator", "cuda", (2,), {"generator": OnCuda()}),
        ("distribution", "'normal'", (2,), {"distribution": "normal"}),
        ("distribution", "1", (2,), {"distribution": 1}),
        ("device", "'gpu'", (2,), {"device": "gpu"}),
    ],
)
def test_a_draw_of_timesteps_refuses_what_does_not_fit(argument, came, shape, changes, refuses):
    process = NoiseProcess.from_config(FLOW)
    with refuses(argument, came):
        process.draw_indices(*shape, **{"generator": torch.Generator(), **changes})


@pytest.mark.parametrize("logit", [0.5, (1.0,), (float("nan"), 1.0), (0.0, -1.0), (0.0, "1")])
def test_a_draw_of_times_refuses_what_is_no_mean_and_deviation(logit, refuses):
    with refuses("logit"):
        draw_times(2, law="logit_normal", logit=logit, generator=torch.Generator())


@pytest.mark.parametrize("method", ["add_noise", "target"])
@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("x_0", "NoneType", {"x_0": None}),
        ("x_0", "()", {"x_0": torch.tensor(1.0)}),
        ("x_0", "torch.int64", {"x_0": torch.ones(2, 3, dtype=torch.int64)}),
        ("eps", "list", {"eps": [[0.0]]}),
        ("eps", "(2, 1)", {"eps": torch.ones(2, 1)}),
        ("eps", "(3,)", {"eps": torch.ones(3)}),
        ("index", "int", {"index": 5}),
        ("index", "(1,)", {"index": torch.tensor([1])}),
        ("index", "(2, 3)", {"index": torch.ones(2, 3, dtype=torch.int64)}),
        ("index", "torch.float32", {"index": torch.ones(2)}),
        ("index", "torch.bool", {"index": torch.ones(2, dtype=torch.bool)}),
        ("index", "1000", {"index": torch.tensor([0, 1000])}),
        ("index", "-1", {"index": torch.tensor([-1, 0])}),
    ],
)
def test_noising_refuses_what_does_not_fit(method, argument, came, changes, refuses):
    good = {"x_0": torch.ones(2, 3), "eps": torch.ones(2, 3), "index": torch.tensor([0, 1])}
    process = NoiseProcess.from_config(DDPM)
    with refuses(argument, came):
        getattr(process, method)(**{**good, **changes})


@pytest.mark.parametrize(
    ("came", "index"),
    [
        ("int", 3),
        ("torch.float32", torch.ones(2)),
        ("torch.bool", torch.ones(2, dtype=torch.bool)),
        ("1000", torch.tensor([1000])),
        ("-1", torch.tensor([-1])),
    ],
)
def test_a_timestep_that_was_not_trained_is_refused(came, index, refuses):
    with refuses("index", came):
        NoiseProcess.from_config(DDPM).timestep(index)


def run(table: SamplerTable, **changes: Any) -> torch.Tensor:
    good = {
        "predict": lambda x, t: x,
        "x": torch.ones(2, 3),
        "draw_noise": lambda: torch.ones(2, 3),
    }
    return table.sample(**{**good, **changes})


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("predict", "NoneType", {"predict": None}),
        ("predict", "(2, 1)", {"predict": lambda x, t: x[:, :1]}),
        ("predict", "(2, 6)", {"predict": lambda x, t: torch.cat([x, x], dim=-1)}),
        ("x", "list", {"x": [0.0]}),
        ("x", "()", {"x": torch.tensor(0.0)}),
        ("x", "torch.int64", {"x": torch.ones(2, 3, dtype=torch.int64)}),
        ("draw_noise", "Tensor", {"draw_noise": torch.ones(2, 3)}),
        ("draw_noise", "(2, 1)", {"draw_noise": lambda: torch.ones(2, 1)}),
        ("temperature", "-1", {"temperature": -1}),
        ("temperature", "nan", {"temperature": NAN}),
        ("temperature", "inf", {"temperature": INF}),
        ("temperature", "None", {"temperature": None}),
        ("temperature", "'1'", {"temperature": "1"}),
    ],
)
def test_sampling_refuses_what_does_not_fit(argument, came, changes, refuses):
    table = SamplerTable.from_config(DDPM, 3)
    assert run(table).shape == (2, 3)
    with refuses(argument, came):
        run(table, **changes)


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("timestep", "()", {"timestep": ()}),
        ("input_scale", "2 rows", {"input_scale": (1.0, 1.0)}),
        ("state", "0 rows", {"state": ()}),
        ("prediction", "2 rows", {"prediction": ((1.0,), (1.0,))}),
        ("noise", "0 rows", {"noise": ()}),
        ("noise_high", "2 rows", {"noise_high": (1.0, 1.0)}),
    ],
)
def test_a_table_refuses_columns_of_different_lengths(argument, came, changes, refuses):
    good = {
        "timestep": (1.0,),
        "input_scale": (1.0,),
        "state": ((1.0,),),
        "prediction": ((1.0,),),
        "noise": (0.0,),
    }
    with refuses(argument, came):
        SamplerTable(**{**good, **changes})


@pytest.mark.parametrize(
    ("argument", "came", "changes"),
    [
        ("x_0", "NoneType", {"x_0": None}),
        ("x_0", "()", {"x_0": torch.tensor(0.0)}),
        ("x_t", "(2, 1)", {"x_t": torch.zeros(2, 1)}),
        ("eps", "(3,)", {"eps": torch.zeros(3)}),
        ("log_variance", "torch.int64", {"log_variance": torch.zeros(2, 3, dtype=torch.int64)}),
        ("index", "(1,)", {"index": torch.tensor([1])}),
        ("index", "torch.float32", {"index": torch.zeros(2)}),
        ("index", "to 4", {"index": torch.tensor([1, 4])}),
        ("index", "from -1", {"index": torch.tensor([1, -1])}),
        ("betas", "list", {"betas": [0.1, 0.2]}),
        ("betas", "(4, 1)", {"betas": torch.full((4, 1), 0.1)}),
        ("betas", "(1,)", {"betas": torch.tensor([0.1])}),
    ],
)
def test_the_variance_bound_refuses_what_does_not_fit(argument, came, changes, refuses):
    good = {name: torch.zeros(2, 3) for name in ("x_0", "x_t", "eps", "log_variance")}
    good |= {"index": torch.tensor([0, 1]), "betas": torch.full((4,), 0.1)}
    assert variance_bound(**good).shape == (2, 3)
    with refuses(argument, came):
        variance_bound(**{**good, **changes})


def test_a_schedulers_timesteps_are_shifted_where_it_has_a_shift_and_refused_where_not(refuses):
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}
    solver = {
        "_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True,
        "prediction_type": "flow_prediction",
    }  # fmt: skip
    for config in (flow, solver):
        plain, shifted = (SamplerTable.from_config(config, 4, flow_shift=s) for s in (None, 3.0))
        times = [torch.tensor(table.timestep) for table in (plain, shifted)]
        assert (times[1] > times[0])[1:].all()
    assert shifted == SamplerTable.from_config({**solver, "flow_shift": 3.0}, 4)
    ddpm = {"_class_name": "DDPMScheduler", "clip_sample": False}
    with refuses("flow_shift", "3.0", "DDPMScheduler has no shift"):
        SamplerTable.from_config(ddpm, 4, flow_shift=3.0)
