"""Diffusion and flow matching as a token head: a network, its noise and its solver."""

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypedDict

import torch
from torch import nn

from contar._errors import (
    bad,
    check_choice,
    check_ids,
    check_instance,
    check_number,
    check_numbers,
    check_size,
    check_tensor,
)
from contar._layers import weight_of
from contar._random import Generators, normal
from contar._typing import Float, Int, Tensor
from contar.conditioning import Guidance
from contar.cpu import laid_out
from contar.diffusion import (
    NoiseProcess,
    SamplerTable,
    SchedulerConfig,
    TimeLaw,
    check_law,
    iddpm_table,
    straight_table,
    variance_bound,
)
from contar.heads._drawn import GuidedSteps, normal_noise, tokens_with_noise
from contar.heads._learned import LearnedNoise, law_of_indices
from contar.heads._likelihood import flow_log_density
from contar.heads.diffusion_mlp import DiffusionMLP
from contar.heads.protocol import Noise, check_loss, check_sample


class DiffusionOptions(TypedDict, total=False):
    """What a `DiffusionHead` takes beside its network, its scheduler and its steps."""

    solver: Literal["scheduler", "iddpm", "straight"]
    prediction: Literal["flow", "sample", "v_prediction"] | None
    draws: TimeLaw | None
    logit: tuple[float, float]
    weights: Sequence[float] | None
    timesteps: Literal["noise", "signal"]


class DiffusionHead(nn.Module):
    """A `DiffusionMLP` that knows by which noise it learns and with which solver it draws.

    The scheduler's config decides what it is: `DDPMScheduler` for MAR's diffusion loss,
    `FlowMatchEulerDiscreteScheduler` for flow matching. Take it where quality counts more than
    time: it draws in tens of steps. Temperature multiplies the noise of stochastic solvers, and of
    others the noise that they start from.

    Source: MAR (Li et al. 2024, arXiv 2406.11838, section 3.2); flow matching (Lipman et al. 2022,
    arXiv 2210.02747).

    Args:
        network: predicts what the noise process asks for.
        scheduler: config of a diffusers scheduler.
        steps: of the solver, where `sample` names none.
        solver: "scheduler", which is the config's, "iddpm" (`iddpm_table`), or "straight", a flow's
            (`straight_table`).
        prediction: what the network of a flow predicts, "flow", "sample" or "v_prediction"; of
            other schedulers the config says it (`prediction_type`).
        draws: law of the timesteps of training, "uniform", "logit_normal" or "cosine"; None is
            logit-normal for flows and uniform otherwise.
        logit: mean and deviation of a logit-normal law, of timesteps that count noise: a mean
            above 0 learns more where there is more noise.
        weights: of the values of a token in the loss, one each; None weighs them alike.
        timesteps: what those that the network is given count, "noise" or "signal": then noise
            alone has 0.

    Raises:
        ValueError: a scheduler that `NoiseProcess` or `SamplerTable` refuses, whose variance is
            not of the network's kind, or that is no flow where only a flow has the option; a value
            that is not listed; weights that are not one for each value.
    """

    def __init__(
        self,
        network: DiffusionMLP,
        scheduler: SchedulerConfig,
        *,
        steps: int = 25,
        solver: Literal["scheduler", "iddpm", "straight"] = "scheduler",
        prediction: Literal["flow", "sample", "v_prediction"] | None = None,
        draws: TimeLaw | None = None,
        logit: tuple[float, float] = (0.0, 1.0),
        weights: Sequence[float] | None = None,
        timesteps: Literal["noise", "signal"] = "noise",
    ) -> None:
        super().__init__()
        check_instance("network", network, DiffusionMLP)
        check_choice("solver", solver, ("scheduler", "iddpm", "straight"))
        check_law("uniform" if draws is None else draws, logit, "draws")
        self.network = network
        self.token_dim, self.cond_dim = network.token_dim, network.cond_dim
        check_numbers("weights", weights, self.token_dim)
        self.weights = None if weights is None else tuple(weights)
        self.steps = check_size("steps", steps)
        self.draws: TimeLaw | None = draws
        self.logit, self.straight = logit, solver == "straight"
        self.learning = self._learns(LearnedNoise(scheduler, prediction, timesteps))
        self.prediction, self.timesteps, self.drawing = prediction, timesteps, scheduler
        straight = partial(straight_table, trained=self.learning.last)
        tables = {"iddpm": iddpm_table, "straight": straight}
        self._solver = tables.get(solver) or _of_scheduler(scheduler)
        self.check_sample(Guidance(), 1.0, None)

    @property
    def scheduler(self) -> SchedulerConfig:
        """By which it learns; `drawing` is that by which it draws."""
        return self.learning.scheduler

    @property
    def process(self) -> NoiseProcess:
        """The noise of its scheduler, as the network learns it."""
        return self.learning.process

    def with_scheduler(self, scheduler: SchedulerConfig) -> "DiffusionHead":
        """Return a head of the same network that learns and draws by another scheduler.

        Raises:
            ValueError: a scheduler that `NoiseProcess` refuses, or of another kind of variance;
                what no solver can be made of is refused by `sample` and `check_sample`.
        """
        other = copy(self)
        other.learning = other._learns(replace(self.learning, scheduler=scheduler))
        return other.with_solver(scheduler)

    def with_solver(
        self, scheduler: SchedulerConfig, *, flow_shift: float | None = None
    ) -> "DiffusionHead":
        """Return a head of the same network that draws by another scheduler.

        A solver that the noise process could not learn by, as those of higher order, will do. It
        has to be of the kind by which the head has learned, a flow's or a diffusion's. `flow_shift`
        is as in `SamplerTable.from_config`.

        Raises:
            ValueError: another scheduler than a flow's for a head with options of a flow
                (`prediction`, `timesteps`). A model's training may name another scheduler than the
                head's own, so that of other heads the kind is not known.
        """
        self.learning.check_drawing(scheduler)
        other = copy(self)
        other.drawing, other._solver = scheduler, _of_scheduler(scheduler, flow_shift)
        other.straight = False
        return other

    def table(self, steps: int | None = None) -> SamplerTable:
        """Return the solver for a number of steps; None is the head's own.

        Raises:
            ValueError: a number that the solver does not take.
        """
        return self._solver(self.steps if steps is None else steps)

    def compile(self, **options: Any) -> None:
        """Compile the network, with options of `torch.compile`."""
        self.network.compile(**options)

    def loss(
        self,
        target: Float[Tensor, "m c"],
        cond: Float[Tensor, "m d"],
        *,
        repeats: int = 1,
        generator: torch.Generator | None = None,
        noise: Float[Tensor, "r m c"] | None = None,
        index: Int[Tensor, "r m"] | None = None,
    ) -> Float[Tensor, "r m"]:
        """Return the squared error of the prediction; arguments as in `TokenHead`.

        With learned variance the variational bound's term is added (`variance_bound`).

        Args:
            target: as in `TokenHead`, as is what follows.
            cond: likewise.
            repeats: likewise.
            generator: draws the noise, then the timesteps, where they are not given.
            noise: [repeats, m, token_dim], instead of a draw.
            index: [repeats, m], indices of training timesteps, instead of a draw.

        Raises:
            ValueError: shapes that do not fit, `repeats` below 1, or indices that the process does
                not have.
        """
        weight = weight_of(self.network.token)
        draws = check_loss(self, target, cond, repeats, generator, like=weight)
        self.check_draws(repeats, len(target), noise, index)
        shape, device = (repeats, len(target)), target.device
        process = self.learning.on(device)
        options: Any = {"generator": draws, "device": device}
        if noise is None:
            noise = normal(*shape, self.token_dim, **options)
        if index is None:
            law, logit = law_of_indices(self.learning.flows, self.draws, self.logit)
            index = process.draw_indices(*shape, distribution=law, logit=logit, **options)
        x_0, eps, network = target.float().expand(*shape, -1), noise.float(), self.network
        x_t = process.add_noise(x_0, eps, index)
        condition = network.condition(cond).expand(*shape, -1)
        output = network.denoise(x_t, network.modulations(condition, network.times(process, index)))
        prediction, log_variance = output.tensor_split([self.token_dim], dim=-1)
        errors = (prediction - process.target(x_0, eps, index)).square()
        if process.betas is not None:
            bound = variance_bound(x_0, x_t, prediction, log_variance, index, process.betas)
            errors = errors + bound
        if self.weights is not None:
            errors = errors * torch.tensor(self.weights, dtype=errors.dtype, device=device)
        return errors.mean(-1)

    def sample(
        self,
        cond: Float[Tensor, "b n d"],
        *,
        uncond: Float[Tensor, "b n d"] | None = None,
        guidance: Guidance | None = None,
        temperature: float = 1.0,
        noise: Noise | Generators | None = None,
        steps: int | None = None,
        frame: int | None = None,
    ) -> Float[Tensor, "b n c"]:
        """Draw by the solver; arguments as in `TokenHead`.

        The noise is asked for normal numbers, [b, n, token_dim]: those that it starts from, then
        those of each step of a stochastic solver.

        For a renormalisation over the frame, `frame` is how many tokens it has, m >= n. The noise
        is then asked for all of them, the n of `cond` first; the others go along, each predicted
        as it stands.

        Raises:
            ValueError: what does not fit, guidance without `uncond`, a renormalisation over the
                frame without `frame`, a truncation or ceiling that is no timestep, or a temperature
                or steps that the solver lacks.
        """
        like = weight_of(self.network.token)
        guidance, uncond, source = check_sample(self, cond, uncond, guidance, noise, like=like)
        table = self.check_sample(guidance, temperature, steps)
        batch, count, _ = cond.shape
        shape = (batch, tokens_with_noise(frame, count, guidance), self.token_dim)
        seen = [self.learning.seen(timestep) for timestep in table.timestep]
        predict = GuidedSteps(
            self.network, cond, uncond, guidance, table.timestep, seen, self._for_solver
        )
        start = normal_noise(source, shape)
        start = start if any(table.noise) else temperature * start
        draw = partial(normal_noise, source, shape)
        rows = batch * count * (1 if uncond is None else 2)
        with laid_out(self.network.layers_of_a_step(), rows, len(table)):
            return table.run(predict, start, draw, temperature)[:, :count]

    def log_density(
        self,
        x: Float[Tensor, "*m c"],
        cond: Float[Tensor, "*m d"],
        *,
        steps: int = 32,
        probes: int = 0,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*m"]:
        """Return log p(x | condition) under the flow's equation, in nats.

        It is the density of what draws in many steps are drawn from, from the least timestep that
        was learned on.

        Args:
            x: [..., token_dim].
            cond: [..., cond_dim].
            steps: of a Runge-Kutta solver, each of four passes.
            probes: random directions by which the divergence is estimated; 0 computes it, by one
                backward pass for each value of a token.
            generator: of the directions.

        Raises:
            ValueError: what does not fit, or a head whose scheduler is no flow's.
        """
        network, learning = self.network, self.learning
        if not learning.flows:
            raise bad("scheduler", "one with betas", "that of a flow, whose path has a velocity")

        def velocity(x: Tensor, cond: Tensor, t: float) -> Tensor:
            seen = learning.last * (1 - t if self.timesteps == "signal" else t)
            time = network.time(torch.full((1,), seen, device=x.device))
            predicted = network.denoise(x, network.modulations(network.condition(cond), time))
            return learning.velocity(predicted, x, t)

        return flow_log_density(
            self, x, cond, velocity, like=weight_of(network.token), steps=steps, probes=probes,
            generator=generator, first=float(self.process.sigma.min()),
        )  # fmt: skip

    def check_draws(
        self, repeats: int, count: int, noise: Tensor | None = None, index: Tensor | None = None
    ) -> None:
        """Raise a ValueError unless `loss` takes these for `count` tokens."""
        check_size("repeats", repeats)
        if noise is not None:
            shape = (repeats, count, self.token_dim)
            check_tensor("noise", noise, shape, "[repeats, m, token_dim]")
        if index is not None:
            check_tensor("index", index, (repeats, count), "[repeats, m]", kind="int")
            check_ids("index", index, len(self.process))

    def check_sample(
        self, guidance: Guidance, temperature: float, steps: int | None
    ) -> SamplerTable:
        """Return the solver of so many steps; a ValueError unless `sample` takes these."""
        if guidance.truncation or guidance.ceiling is not None:
            guidance.check_timesteps(self.learning.last)
        table = self.table(steps)
        if (table.noise_high is not None) != self.network.learned_variance:
            raise _of_variance(table.noise_high is not None)
        if type(temperature) is not float or not 0 <= temperature < math.inf:
            check_number("temperature", temperature, 0)
        return table

    def _for_solver(self, prediction: Tensor, x_t: Tensor, timestep: float) -> Tensor:
        """Return what the solver goes by, of what the network predicts."""
        sigma = timestep / self.learning.last
        if self.straight:
            return self.learning.clean(prediction, x_t, sigma)
        if self.prediction is None:
            return prediction
        return self.learning.velocity(prediction, x_t, sigma)

    def _learns(self, learning: LearnedNoise) -> LearnedNoise:
        if self.straight and not learning.flows:
            raise bad("solver", "straight", "another: this one is of a flow's scheduler alone")
        if (learning.process.betas is not None) != self.network.learned_variance:
            raise _of_variance(learning.process.betas is not None)
        return learning


def _of_variance(learned: bool) -> ValueError:
    """Return the error for a scheduler whose variance is not of the network's kind."""
    kinds = ("fixed", "learned")
    allowed = f"{kinds[not learned]} variance, as the network's"
    return bad("scheduler", f"one of {kinds[learned]} variance", allowed)


def _of_scheduler(scheduler: Any, flow_shift: float | None = None) -> Any:
    return partial(SamplerTable.from_config, scheduler, flow_shift=flow_shift)
