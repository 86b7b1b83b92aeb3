"""Samplers as tables of coefficients: no scheduler object, no counter, no device sync in a loop.

Every solver of diffusers without clipping is linear: a step's result is a weighted sum of the
states and predictions so far and of fresh noise. So each solver is a table, read off the
scheduler by giving it basis vectors instead of samples.
"""

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch

from contar._defaults import fixed_defaults
from contar._errors import (
    bad,
    check_callable,
    check_number,
    check_numbers,
    check_shape,
    check_size,
    check_tensor,
)
from contar._typing import Float, Tensor
from contar.diffusion.config import SchedulerConfig, config_key, load_scheduler

_DRAWN = (torch.float64, torch.float32)  # types of the noise that solvers draw


@dataclass(frozen=True)
class SamplerTable:
    """One row of coefficients a step.

        x[i+1] = sum_j state[i, j] x[i-j] + sum_j prediction[i, j] p[i-j] + noise[i] * fresh noise

    where p[i] is the network's prediction from input_scale[i] * x[i] at timestep[i].

    Attributes:
        timestep: [steps], the value that the network is given.
        input_scale: [steps], factor of the state before the network sees it.
        state: `[steps][history]`, newest first.
        prediction: `[steps][history]`, newest first.
        noise: [steps], the standard deviation of fresh noise; 0 where none is drawn. With learned
            variance its lower bound.
        noise_high: [steps], the upper bound, None unless the variance is learned: then the second
            half of a prediction's channels says, from -1 to 1, where between the logarithms of
            the bounds a value's deviation lies (Nichol & Dhariwal 2021, arXiv 2102.09672, eq. 15).
        initial: standard deviation of the noise that sampling starts from.

    Raises:
        ValueError: no steps, or columns of different lengths.
    """

    timestep: tuple[float, ...]
    input_scale: tuple[float, ...]
    state: tuple[tuple[float, ...], ...]
    prediction: tuple[tuple[float, ...], ...]
    noise: tuple[float, ...]
    noise_high: tuple[float, ...] | None = None
    initial: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.timestep, Sequence) or not self.timestep:
            raise bad("timestep", self.timestep, "at least one step")
        for name in ("input_scale", "state", "prediction", "noise", "noise_high"):
            column = getattr(self, name)
            if column is None and name == "noise_high":
                continue
            if not isinstance(column, Sequence) or isinstance(column, str | bytes):
                raise bad(name, column, f"one for each of {len(self)} timesteps")
            if len(column) != len(self.timestep):
                raise bad(name, f"{len(column)} rows", f"one for each of {len(self)} timesteps")
            rows = column if name in ("state", "prediction") else [column]
            check_numbers(name, [value for row in rows for value in row])
        check_numbers("timestep", self.timestep)
        check_number("initial", self.initial, 0)

    @classmethod
    def from_config(
        cls, config: SchedulerConfig, steps: int, *, flow_shift: float | None = None
    ) -> "SamplerTable":
        """Read the table off a diffusers scheduler, or its config, for a number of steps.

        Args:
            flow_shift: of the timesteps of a flow, above 0, as its scheduler's `set_shift` sets it,
                or the `flow_shift` of one with `use_flow_sigmas`; None keeps the config's. (A
                shift in the config moves the last timestep as well.)

        Raises:
            ValueError: `steps` below 1 or more than the scheduler takes; a config that
                `load_scheduler` refuses; a scheduler that is not linear in what it is given, or
                that makes NaN or infinities of it (some do near noise 20000).
        """
        if flow_shift is not None:
            flow_shift = check_number("flow_shift", flow_shift, 1e-6)
        if type(steps) is not int:  # else once a table: a draw is asked for often
            steps = check_size("steps", steps)
        key = config_key(config)
        if key is None:
            return _make(config, steps, flow_shift)
        return _remembered(key, steps, flow_shift)

    def __len__(self) -> int:
        return len(self.timestep)

    def sample(
        self,
        predict: Callable[[Float[Tensor, "*m c"], float], Float[Tensor, "*m c2"]],
        x: Float[Tensor, "*m c"],
        draw_noise: Callable[[], Float[Tensor, "*m c"]],
        *,
        temperature: float = 1.0,
    ) -> Float[Tensor, "*m c"]:
        """Run all steps from noise to a sample.

        Args:
            predict: the network, from (state times input_scale, timestep).
            x: standard normal noise.
            draw_noise: returns fresh standard normal noise; called once for each step whose
                coefficient is not 0, in order.
            temperature: factor of the fresh noise, at least 0 (MAR's).

        Raises:
            ValueError: a temperature below 0, or other than 1 for a solver that draws no noise; a
                prediction or noise of another shape than `x`.
        """
        check_callable("predict", predict)
        check_callable("draw_noise", draw_noise)
        check_tensor("x", x, (..., None), "[..., c]")
        temperature = check_number("temperature", temperature, 0)
        if temperature != 1 and not any(self.noise):
            raise bad("temperature", temperature, "1: this solver draws no fresh noise")
        channels = x.shape[-1] * (1 if self.noise_high is None else 2)

        def predicted(state: Tensor, timestep: float) -> Tensor:
            output = predict(state, timestep)
            check_shape("predict", output.shape, (*x.shape[:-1], channels), "[..., c]")
            return output

        def drawn() -> Tensor:
            fresh = draw_noise()
            check_shape("draw_noise", fresh.shape, tuple(x.shape), "[..., c]")
            return fresh

        return self.run(predicted, x, drawn, temperature)

    def run(
        self,
        predict: Callable[[Tensor, float], Tensor],
        x: Tensor,
        draw_noise: Callable[[], Tensor],
        temperature: float,
    ) -> Tensor:
        """Return what `sample` does, of arguments that a head has checked."""
        states, predictions = [x * self.initial], []
        for i, timestep in enumerate(self.timestep):
            scale = self.input_scale[i]
            output = predict(states[0] if scale == 1 else states[0] * scale, timestep)
            log_variance = None
            if self.noise_high is not None:
                output, log_variance = output.chunk(2, dim=-1)
            predictions = [output, *predictions[: len(self.prediction[i]) - 1]]
            terms = [*zip(self.state[i], states, strict=False)]
            terms += zip(self.prediction[i], predictions, strict=False)
            first, *others = [c * value for c, value in terms if c] or [torch.zeros_like(x)]
            result = sum(others, start=first)
            if self.noise[i]:
                result = result + self._deviation(i, log_variance) * temperature * draw_noise()
            states = [result, *states[: len(self.state[i]) - 1]]
        return states[0]

    def _deviation(self, i: int, log_variance: Tensor | None) -> Tensor | float:
        if self.noise_high is None or log_variance is None:
            return self.noise[i]
        share = (log_variance + 1) / 2
        return self.noise_high[i] ** share * self.noise[i] ** (1 - share)


@lru_cache(maxsize=256, typed=True)  # a plan that anneals its steps makes tens of tables
def _remembered(key: str, steps: int, flow_shift: float | None) -> SamplerTable:
    return _make(json.loads(key), steps, flow_shift)


@fixed_defaults()
def _make(config: Any, steps: int, flow_shift: float | None) -> SamplerTable:
    """Return the table, checked against its scheduler."""
    check_size("steps", steps)
    scheduler = _fresh(config, flow_shift)
    trained = getattr(scheduler.config, "num_train_timesteps", None)
    if steps > (trained or steps):
        raise bad("steps", steps, f"at most the {trained} steps it was trained with")
    name = type(scheduler).__name__
    learned = getattr(scheduler.config, "variance_type", None) == "learned_range"
    try:
        table = _read(scheduler, steps, -1.0 if learned else None)
        high = _read(_fresh(config, flow_shift), steps, 1.0) if learned else None
    except Exception as error:  # of any kind: what a solver does with what it cannot take
        why = str(error) or type(error).__name__
        allowed = f"a solver that runs on its own for so many steps ({why})"
        raise bad("scheduler", f"{name} for {steps} steps", allowed) from error
    if learned:
        table = replace(table, noise_high=high.noise) if table and high else None
    # Solvers differ in the type they draw; the type changes the numbers drawn.
    if table is None or not any(
        _follows(table, _fresh(config, flow_shift), steps, dtype) for dtype in _DRAWN
    ):
        allowed = "a solver that is linear in its input and stays finite"
        raise bad("scheduler", f"{name} for {steps} steps", allowed)
    return table


def _fresh(config: Any, flow_shift: float | None) -> Any:
    """Return a new scheduler, its timesteps shifted if asked for."""
    scheduler = load_scheduler(config)
    if flow_shift is None:
        return scheduler
    if hasattr(scheduler, "set_shift"):
        scheduler.set_shift(flow_shift)
        return scheduler
    name = type(scheduler).__name__
    if not scheduler.config.get("use_flow_sigmas"):
        raise bad("flow_shift", flow_shift, f"None: {name} has no shift")
    own = {key: value for key, value in scheduler.config.items() if key[0] != "_"}
    return load_scheduler({**own, "_class_name": name, "flow_shift": flow_shift})


def _read(scheduler: Any, steps: int, learned: float | None) -> SamplerTable | None:
    """Run a scheduler on basis vectors and collect each step's coefficients; None if not linear."""
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps
    calls = len(timesteps)  # a solver of higher order calls the network more often
    # Component 2i of every vector stands for the state at call i, 2i + 1 for its prediction;
    # the last two stay 0, so that what appears there is noise.
    zero = torch.zeros(1, 1, 1, 2 * calls + 2, dtype=torch.float64)
    state, prediction, noise, scales = [], [], [], []
    for i, t in enumerate(timesteps):
        x, p = zero.clone(), zero.clone()
        x[..., 2 * i], p[..., 2 * i + 1] = 1, 1
        scales.append(float(_scaled(scheduler, x, t)[..., 2 * i]))
        if learned is not None:
            p = torch.cat([p, torch.full_like(p, learned)], dim=1)
        row, deviation = _step(scheduler, p, t, x, seed=i)
        if row is None or float(row[2 * i + 2 :].abs().max()) > 1e-5:
            return None
        state.append(row[0 : 2 * i + 1 : 2])
        prediction.append(row[1 : 2 * i + 2 : 2])
        noise.append(deviation)
    return SamplerTable(
        timestep=tuple(float(t) for t in timesteps),
        input_scale=tuple(scales),
        state=_histories(state),
        prediction=_histories(prediction),
        noise=tuple(noise),
        initial=float(getattr(scheduler, "init_noise_sigma", 1.0)),
    )


def _scaled(scheduler: Any, x: Tensor, t: Tensor) -> Tensor:
    return scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x


def _step(
    scheduler: Any, p: Tensor, t: Tensor, x: Tensor, *, seed: int
) -> tuple[Tensor | None, float]:
    """Return a step's weights of the basis and the deviation of its noise.

    The weights are None where one draw of unit noise does not explain the components left at 0.
    """
    out = scheduler.step(p, t, x, **_seed(scheduler, seed)).prev_sample.double().flatten()
    for dtype in _DRAWN:
        fresh = torch.randn(x.shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
        fresh = fresh.double().flatten()
        deviation = float(out[-1] / fresh[-1])
        if abs(float(out[-2] - deviation * fresh[-2])) <= 1e-6 * abs(deviation):
            row = out - deviation * fresh
            return (row if row.isfinite().all() else None), deviation
    return None, 0.0


def _seed(scheduler: Any, seed: int) -> dict[str, torch.Generator]:
    """Return the generator that a scheduler's step takes, if it takes one."""
    if "generator" not in inspect.signature(scheduler.step).parameters:
        return {}
    return {"generator": torch.Generator().manual_seed(seed)}


def _follows(table: SamplerTable, scheduler: Any, steps: int, drawn: torch.dtype) -> bool:
    """Return whether the table goes where the scheduler goes, from random predictions."""
    channels = 1 if table.noise_high is None else 2
    shape = (1, 1, 1, 8)
    draws = torch.Generator().manual_seed(1)
    # In float64, because some solvers take differences of terms that are nearly equal.
    start, *outputs = (
        torch.randn(1, c, 1, 8, generator=draws, dtype=torch.float64)
        for c in (1, *[channels] * len(table))
    )
    outputs = [output.tanh() for output in outputs]
    scheduler.set_timesteps(steps)
    x, theirs, ours = start * table.initial, _seed(scheduler, 2), torch.Generator().manual_seed(2)
    largest = float(x.abs().max())
    for t, output in zip(scheduler.timesteps, outputs, strict=True):
        _scaled(scheduler, x, t)  # some solvers count on the call
        x = scheduler.step(output, t, x, **theirs).prev_sample
        largest = max(largest, float(x.abs().max()))
    y = table.sample(
        _Said([torch.cat(output.unbind(1), dim=-1) for output in outputs]),
        start[0],
        lambda: torch.randn(shape, generator=ours, dtype=drawn)[0].double(),
    )
    # Some solvers round to float32 on their way, at 6e-8 of terms as large as this, which may
    # cancel; and some divide a difference of states by a sigma as small as 1e-3.
    coefficient = max(abs(c) for row in (*table.state, *table.prediction) for c in row)
    bound = 1e-4 * max(1.0, coefficient) * largest
    return bool((x.flatten() - y.flatten()).abs().max() <= bound)


class _Said:
    """A network that says what it is to say, in turn."""

    def __init__(self, outputs: Sequence[Tensor]) -> None:
        self.outputs = iter(outputs)

    def __call__(self, x: Tensor, timestep: float) -> Tensor:
        return next(self.outputs)


def _histories(rows: Sequence[Tensor]) -> tuple[tuple[float, ...], ...]:
    """Return coefficients newest first, as many in each row as the longest history has."""
    values = [[c if abs(c) > 1e-6 else 0.0 for c in row.flip(0).tolist()] for row in rows]
    longest = max([1, *(age for row in values for age, c in enumerate(row, 1) if c)])
    return tuple((*row, *[0.0] * longest)[:longest] for row in values)
