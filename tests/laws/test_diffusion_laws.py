"""The laws of noising and of samplers: diffusers is the oracle, and so is a known Gaussian."""

import functools
import inspect
import math
from typing import Any

import diffusers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from contar.diffusion import NoiseProcess, SamplerTable, draw_times

# What diffusers does with numpy 2 in a few solvers; it is theirs to mend.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

# 250 denoising steps of many values take 0.2 s: the short profile draws few.
few = settings(max_examples=15 if settings().max_examples < 1000 else 1000)

# Of the largest term that a step may add up: some solvers round to float32 on their way, at 6e-8,
# at most 60 times in a row. Near noise 0 and signal 0 they have coefficients of up to 20000.
ROUNDING = 1e-5
# FlowMatchHeun divides a difference of states by a sigma as small as 1e-3: 6e-8 / 1e-3 = 6e-5.
ROUNDING_OF_FLOW_HEUN = 1e-4

# Old versions draw a flow's fresh noise from torch's global generator, which no table can tell.
FLOW_STEP = inspect.getsource(diffusers.FlowMatchEulerDiscreteScheduler.step)  # type: ignore[attr-defined]
DRAWS_FROM_ITS_GENERATOR = "generator=generator" in FLOW_STEP

seeds = st.integers(0, 2**32 - 1)
step_counts = st.integers(1, 30)
betas = st.sampled_from(["linear", "scaled_linear", "squaredcos_cap_v2"])
spacings = st.sampled_from(["leading", "trailing", "linspace"])
predictions = st.sampled_from(["epsilon", "v_prediction", "sample"])

Config = dict[str, Any]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def configs(name: str, **options: st.SearchStrategy[Any]) -> st.SearchStrategy[Config]:
    return st.fixed_dictionaries({"_class_name": st.just(name), **options})


def scheduler_of(config: Config) -> Any:
    """The scheduler itself, made by diffusers alone."""
    options = {key: value for key, value in config.items() if key != "_class_name"}
    return getattr(diffusers, config["_class_name"])(**options)


def check_trajectory(config: Config, steps: int, seed: int, tokens: int = 2, c: int = 3) -> None:
    """Step the scheduler and the table with one prediction, which bends and depends on time."""
    # In float64, because some solvers take differences of terms that are nearly equal.
    draws, double = generator(seed), torch.float64
    start = torch.randn(tokens, c, generator=draws, dtype=double)
    scheduler = scheduler_of(config)
    learned = scheduler.config.get("variance_type") == "learned_range"
    weight = torch.randn(c, 2 * c if learned else c, generator=draws, dtype=double) / math.sqrt(c)

    def predict(x: Tensor, timestep: float) -> Tensor:
        return torch.tanh(x.to(double) @ weight + timestep / 1000)

    scheduler.set_timesteps(steps)
    stochastic = "generator" in inspect.signature(scheduler.step).parameters
    arguments = {"generator": generator(seed)} if stochastic else {}
    # Of samples [n, c, 1] diffusers takes c for the channels, which it halves for the variance.
    x = start[..., None] * getattr(scheduler, "init_noise_sigma", 1.0)
    largest = x.abs().max()
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        output = predict(scaled[..., 0], float(t))[..., None]
        x = scheduler.step(output, t, x, **arguments).prev_sample
        largest = torch.maximum(largest, x.abs().max())
    if not x.isfinite().all():  # EulerAncestral from noise 20000: the root of -1e-7
        with pytest.raises(ValueError, match="finite"):
            SamplerTable.from_config(config, steps)
        return

    table = SamplerTable.from_config(config, steps)
    replay = generator(seed)
    drawn = torch.float32 if config["_class_name"].startswith("FlowMatch") else double
    y = table.sample(
        predict,
        start,
        lambda: torch.randn(tokens, c, 1, generator=replay, dtype=drawn)[..., 0].to(double),
    )
    coefficient = max(abs(c) for row in (*table.state, *table.prediction) for c in row)
    is_flow_heun = config["_class_name"] == "FlowMatchHeunDiscreteScheduler"
    rounding = ROUNDING_OF_FLOW_HEUN if is_flow_heun else ROUNDING
    assert (y - x[..., 0]).abs().max() <= rounding * max(1, coefficient) * largest


@given(
    config=configs(
        "DDPMScheduler",
        clip_sample=st.just(False),
        prediction_type=predictions,
        variance_type=st.sampled_from(["fixed_small", "fixed_large", "fixed_small_log"]),
        timestep_spacing=spacings,
        beta_schedule=st.one_of(betas, st.sampled_from(["sigmoid", "laplace"])),
    ),
    steps=step_counts,
    seed=seeds,
)
def test_a_table_equals_the_ddpm_scheduler_it_came_from(
    config: Config, steps: int, seed: int
) -> None:
    check_trajectory(config, steps, seed)


@given(
    config=configs(
        "DDPMScheduler",
        clip_sample=st.just(False),
        prediction_type=predictions,
        variance_type=st.just("learned_range"),
        timestep_spacing=spacings,
        beta_schedule=betas,
    ),
    steps=step_counts,
    seed=seeds,
)
def test_a_table_with_learned_variance_equals_the_scheduler_it_came_from(
    config: Config, steps: int, seed: int
) -> None:
    check_trajectory(config, steps, seed)


@given(
    config=st.one_of(
        configs(
            "FlowMatchEulerDiscreteScheduler",
            shift=st.floats(0.5, 10),
            stochastic_sampling=st.sampled_from([False, True][: 1 + DRAWS_FROM_ITS_GENERATOR]),
        ),
        configs("FlowMatchHeunDiscreteScheduler", shift=st.floats(0.5, 10)),
    ),
    steps=step_counts,
    seed=seeds,
)
def test_a_table_equals_the_flow_scheduler_it_came_from(
    config: Config, steps: int, seed: int
) -> None:
    check_trajectory(config, steps, seed)


@given(
    config=st.one_of(
        configs(
            "DDIMScheduler",
            clip_sample=st.just(False),
            prediction_type=predictions,
            timestep_spacing=spacings,
            beta_schedule=betas,
        ),
        configs(
            "EulerDiscreteScheduler",
            prediction_type=st.sampled_from(["epsilon", "v_prediction"]),
            timestep_spacing=spacings,
            beta_schedule=betas,
        ),
        configs(
            "EulerAncestralDiscreteScheduler",
            prediction_type=st.sampled_from(["epsilon", "v_prediction"]),
            timestep_spacing=spacings,
            beta_schedule=betas,
        ),
        configs(
            "HeunDiscreteScheduler",
            prediction_type=st.sampled_from(["epsilon", "v_prediction"]),
            timestep_spacing=spacings,
            beta_schedule=betas,
        ),
    ),
    steps=step_counts,
    seed=seeds,
)
def test_a_table_equals_the_one_step_solver_it_came_from(
    config: Config, steps: int, seed: int
) -> None:
    check_trajectory(config, steps, seed)


@given(
    config=st.one_of(
        configs(
            "DPMSolverMultistepScheduler",
            algorithm_type=st.sampled_from(["dpmsolver++", "sde-dpmsolver++"]),
            solver_order=st.integers(1, 2),
            solver_type=st.sampled_from(["midpoint", "heun"]),
            prediction_type=predictions,
            timestep_spacing=spacings,
            beta_schedule=betas,
        ),
        configs(
            "DPMSolverMultistepScheduler",
            solver_order=st.just(3),
            prediction_type=predictions,
            beta_schedule=betas,
        ),
        configs(
            "UniPCMultistepScheduler",
            solver_order=st.integers(1, 3),
            solver_type=st.just("bh2"),
            prediction_type=predictions,
            timestep_spacing=spacings,
            beta_schedule=betas,
        ),
        configs(
            "UniPCMultistepScheduler",
            solver_order=st.integers(1, 2),
            solver_type=st.just("bh1"),
            final_sigmas_type=st.just("sigma_min"),
            prediction_type=predictions,
        ),
        configs(  # of a flow, as `fast_changes` takes it
            "UniPCMultistepScheduler",
            use_flow_sigmas=st.just(True),
            prediction_type=st.just("flow_prediction"),
            flow_shift=st.floats(0.5, 10),
        ),
        configs(
            "DPMSolverMultistepScheduler",
            use_flow_sigmas=st.just(True),
            prediction_type=st.just("flow_prediction"),
            flow_shift=st.floats(0.5, 10),
        ),
        configs(
            "DEISMultistepScheduler",
            solver_order=st.integers(1, 3),
            prediction_type=predictions,
            timestep_spacing=spacings,
            beta_schedule=betas,
        ),
    ),
    steps=step_counts,
    seed=seeds,
)
def test_a_table_equals_the_multistep_solver_it_came_from(
    config: Config, steps: int, seed: int
) -> None:
    check_trajectory(config, steps, seed)


@given(
    config=st.one_of(
        configs("DDPMScheduler", clip_sample=st.just(True)),
        configs("DDIMScheduler", clip_sample=st.just(True)),
        configs("DDPMScheduler", clip_sample=st.just(False), thresholding=st.just(True)),
        configs("DPMSolverMultistepScheduler", thresholding=st.just(True)),
    ),
    steps=step_counts,
)
def test_a_solver_that_cuts_samples_off_is_refused(config: Config, steps: int) -> None:
    with pytest.raises(ValueError, match="tokens of a latent have no fixed range"):
        SamplerTable.from_config(config, steps)


@given(
    config=configs("SASolverScheduler", beta_schedule=betas, prediction_type=predictions),
    steps=st.integers(3, 30),  # in 2 it draws nothing that it would use again
)
def test_a_solver_that_uses_a_steps_noise_again_in_the_next_is_refused(
    config: Config, steps: int
) -> None:
    with pytest.raises(ValueError, match="a solver that is linear in its input"):
        SamplerTable.from_config(config, steps)


@given(steps=step_counts)
def test_a_solver_that_divides_infinities_is_refused(steps: int) -> None:
    """Order "bh1" in UniPC takes a step to noise 0 for one of infinite length."""
    config = {"_class_name": "UniPCMultistepScheduler", "solver_type": "bh1"}
    with pytest.raises(ValueError, match="scheduler: got"):
        SamplerTable.from_config(config, steps)


def ddpm(prediction: str, beta: str, variance: str = "fixed_small", **options: Any) -> Config:
    return {
        "_class_name": "DDPMScheduler",
        "clip_sample": False,
        "prediction_type": prediction,
        "beta_schedule": beta,
        "variance_type": variance,
        **options,
    }


def flow(shift: float) -> Config:
    return {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": shift}


@functools.cache
def long_table(kind: str, option: str | float) -> tuple[SamplerTable, NoiseProcess | None]:
    """A table with enough steps to be exact to some percent, and the process of a DDPM."""
    if kind == "flow":
        assert isinstance(option, float)
        return SamplerTable.from_config(flow(option), 250), None
    beta, variance = str(option).split("/")
    config = ddpm(kind, beta, variance)
    return SamplerTable.from_config(config, 250), NoiseProcess.from_config(config)


@few
@given(
    case=st.one_of(
        st.tuples(
            predictions,
            st.sampled_from(
                ["linear/fixed_small", "linear/fixed_large", "squaredcos_cap_v2/fixed_small"]
            ),
        ),
        st.tuples(st.just("flow"), st.sampled_from([1.0, 3.0])),
    ),
    mean=st.floats(-2, 2),
    deviation=st.floats(0.5, 2),
)
def test_with_the_exact_denoiser_of_a_gaussian_the_samples_have_its_mean_and_variance(
    case: tuple[str, str | float], mean: float, deviation: float
) -> None:
    kind = case[0]
    table, process = long_table(*case)

    def predict(x: Tensor, timestep: float) -> Tensor:
        """The expectation of what the network has to predict, given x = a * clean + b * noise."""
        if process is None:
            a, b = 1 - timestep / 1000, timestep / 1000
        else:
            a, b = float(process.alpha[int(timestep)]), float(process.sigma[int(timestep)])
        share = (x - a * mean) / (a**2 * deviation**2 + b**2)
        noise, clean = b * share, mean + a * deviation**2 * share
        wanted = {"epsilon": noise, "sample": clean, "v_prediction": a * noise - b * clean}
        return noise - clean if kind == "flow" else wanted[kind]

    draws = generator(0)
    start = torch.randn(5000, 2, generator=draws)
    x = table.sample(predict, start, lambda: torch.randn(5000, 2, generator=draws))
    # 10000 values have a mean within 1 % of a deviation and a variance within 1.4 % (one sigma).
    # 250 steps themselves miss the variance by up to 5.5 % (it falls as 1 / steps).
    assert abs(float(x.mean()) - mean) <= 0.04 * deviation
    assert abs(float(x.var()) / deviation**2 - 1) <= 0.1


processes = st.one_of(
    st.builds(ddpm, predictions, betas),
    st.builds(flow, st.floats(0.5, 10)),
)


def noised(process: NoiseProcess, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, noise and indices, among them the first and the last."""
    draws = generator(seed)
    x, noise = torch.randn(2, 8, 3, generator=draws)
    index = torch.randint(len(process), (8,), generator=draws)
    index[0], index[1] = 0, len(process) - 1
    return x, noise, index


@given(prediction=predictions, beta=betas, seed=seeds)
def test_noising_and_its_target_are_those_of_diffusers(
    prediction: str, beta: str, seed: int
) -> None:
    config = ddpm(prediction, beta)
    process, scheduler = NoiseProcess.from_config(config), scheduler_of(config)
    x, noise, index = noised(process, seed)
    wanted = {
        "epsilon": noise,
        "sample": x,
        "v_prediction": scheduler.get_velocity(x, noise, index),
    }
    # One rounding of two products and a sum.
    close = functools.partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)
    close(process.add_noise(x, noise, index), scheduler.add_noise(x, noise, index))
    close(process.target(x, noise, index), wanted[prediction])
    assert torch.equal(process.timestep(index), index.float())


@given(shift=st.floats(0.5, 10), seed=seeds)
def test_noising_of_a_flow_and_its_target_are_those_of_diffusers(shift: float, seed: int) -> None:
    process, scheduler = NoiseProcess.from_config(flow(shift)), scheduler_of(flow(shift))
    x, noise, index = noised(process, seed)
    timestep = scheduler.timesteps[index]
    # One rounding of two products and a sum.
    close = functools.partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)
    close(process.add_noise(x, noise, index), scheduler.scale_noise(x, timestep, noise))
    close(process.target(x, noise, index), noise - x)
    close(process.timestep(index), timestep)


@given(config=processes, seed=seeds)
def test_the_clean_token_follows_from_the_noisy_one_and_the_target(
    config: Config, seed: int
) -> None:
    process = NoiseProcess.from_config(config)
    x, noise, index = noised(process, seed)
    noisy, target = process.add_noise(x, noise, index), process.target(x, noise, index)
    a, b = process.alpha[index][:, None], process.sigma[index][:, None]
    recovered = {
        "epsilon": noisy - b * target,  # a * x, for a may be 0
        "v_prediction": a * noisy - b * target,
        "sample": target,
        "flow": noisy - b * target,
    }[process.prediction]
    wanted = a * x if process.prediction == "epsilon" else x
    torch.testing.assert_close(recovered, wanted, rtol=1e-5, atol=2e-6)  # three roundings at 4


@given(config=processes)
def test_noise_grows_and_the_signal_fades_along_the_timesteps(config: Config) -> None:
    process = NoiseProcess.from_config(config)
    order = process.timesteps.argsort()
    assert (process.sigma[order].diff() >= 0).all()
    assert (process.alpha[order].diff() <= 0).all()
    total = process.alpha + process.sigma
    if process.prediction != "flow":
        total = process.alpha**2 + process.sigma**2
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)


@given(
    config=processes,
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    distribution=st.sampled_from(["uniform", "logit_normal", None]),
    seed=seeds,
)
def test_drawn_indices_have_the_shape_and_range_asked_for_and_follow_their_generator(
    config: Config, shape: list[int], distribution: Any, seed: int
) -> None:
    process = NoiseProcess.from_config({**config, "num_train_timesteps": 1 + seed % 5})
    index, again = (
        process.draw_indices(*shape, generator=generator(seed), distribution=distribution)
        for _ in range(2)
    )
    assert list(index.shape) == shape
    assert 0 <= index.min() <= index.max() < len(process)
    assert torch.equal(index, again)
    each = [generator(seed + i) for i in range(shape[0])]
    rows = process.draw_indices(*shape, generator=each, distribution=distribution)
    last = generator(seed + shape[0] - 1)
    alone = process.draw_indices(1, *shape[1:], generator=last, distribution=distribution)
    assert torch.equal(rows[-1:], alone)


@pytest.mark.parametrize("distribution", ["uniform", "logit_normal", None])
@pytest.mark.parametrize("config", [ddpm("epsilon", "linear"), flow(1.0)])
def test_drawn_indices_follow_the_distribution_asked_for(config: Config, distribution: Any) -> None:
    process = NoiseProcess.from_config(config)
    count = 100000
    index = process.draw_indices(count, generator=generator(0), distribution=distribution)
    shares = torch.bincount(index, minlength=1000).double().cumsum(0)[:-1] / count
    edges = torch.arange(1, 1000, dtype=torch.float64) / 1000
    if distribution == "logit_normal" or (distribution is None and process.prediction == "flow"):
        edges = torch.special.ndtr(torch.logit(edges))
    # Kolmogorov-Smirnov: a distance of 1.95 / sqrt(n) is exceeded once in a thousand times.
    assert (shares - edges).abs().max() <= 1.95 / math.sqrt(count)


MANY = 100000


def even_shares() -> Tensor:
    return (torch.arange(MANY, dtype=torch.float64) + 0.5) / MANY


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (0.8, 1.0), (-0.4, 0.5)])
def test_logit_normal_times_have_the_mean_and_deviation_asked_for(
    mean: float, deviation: float
) -> None:
    times = draw_times(MANY, law="logit_normal", logit=(mean, deviation), generator=generator(0))
    times = times.double().sort().values
    below = torch.special.ndtr((torch.logit(times) - mean) / deviation)
    assert (even_shares() - below).abs().max() <= 1.95 / math.sqrt(MANY)


@pytest.mark.parametrize(
    ("law", "below"),
    [
        ("uniform", lambda t: t),
        ("cosine", lambda t: (t / (1 - t)).atan() * (2 / math.pi)),  # tan(pi u / 2) = t / (1 - t)
    ],
)
def test_times_of_the_other_laws_are_distributed_by_them(law: Any, below: Any) -> None:
    times = draw_times(MANY, law=law, generator=generator(0)).double().sort().values
    assert (even_shares() - below(times)).abs().max() <= 1.95 / math.sqrt(MANY)


@given(
    config=st.one_of(
        st.builds(ddpm, predictions, betas),
        st.just({"_class_name": "EulerAncestralDiscreteScheduler"}),
    ),
    steps=st.integers(2, 12),
    seed=seeds,
)
def test_temperature_0_makes_a_stochastic_sampler_deterministic_and_1_does_not(
    config: Config, steps: int, seed: int
) -> None:
    table = SamplerTable.from_config(config, steps)
    start = torch.randn(3, 2, generator=generator(seed))

    def sample(temperature: float, noise_seed: int) -> Tensor:
        draws = generator(noise_seed)
        return table.sample(
            lambda x, _: x.tanh(),
            start,
            lambda: torch.randn(3, 2, generator=draws),
            temperature=temperature,
        )

    assert torch.equal(sample(0.0, seed), sample(0.0, seed + 1))
    assert torch.equal(sample(1.0, seed), sample(1.0, seed))
    assert not torch.equal(sample(1.0, seed), sample(1.0, seed + 1))


@given(
    config=st.one_of(
        st.builds(flow, st.floats(0.5, 10)),
        st.just({"_class_name": "DDIMScheduler", "clip_sample": False}),
        st.just({"_class_name": "DPMSolverMultistepScheduler"}),
    ),
    steps=step_counts,
    temperature=st.floats(0, 4).filter(lambda value: value != 1),
)
def test_a_solver_without_noise_refuses_every_temperature_but_1(
    config: Config, steps: int, temperature: float
) -> None:
    table = SamplerTable.from_config(config, steps)
    x = torch.ones(1, 2)
    with pytest.raises(ValueError, match=r"temperature: got .*, allowed: 1"):
        table.sample(lambda x, _: x, x, lambda: x, temperature=temperature)
    assert table.sample(lambda x, _: x, x, lambda: x, temperature=1.0).isfinite().all()


@given(
    config=st.one_of(
        st.builds(ddpm, predictions, betas), st.builds(flow, st.floats(0.5, 10)),
        st.just({"_class_name": "UniPCMultistepScheduler"}),
    ),
    steps=st.integers(1, 8),
)  # fmt: skip
def test_reading_a_table_leaves_the_scheduler_as_it_was(config: Config, steps: int) -> None:
    scheduler = scheduler_of(config)
    scheduler.set_timesteps(5)
    before = {key: str(value) for key, value in vars(scheduler).items()}
    assert SamplerTable.from_config(scheduler, steps) == SamplerTable.from_config(config, steps)
    NoiseProcess.from_config(scheduler)
    assert {key: str(value) for key, value in vars(scheduler).items()} == before
