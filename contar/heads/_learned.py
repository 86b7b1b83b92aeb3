"""The noise on which a diffusion's network learns, and the words in which it speaks of a flow."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from contar._errors import bad, check_choice
from contar._typing import Tensor
from contar.diffusion import NoiseProcess, SchedulerConfig, TimeLaw
from contar.diffusion.config import _read_config


@dataclass(frozen=True)
class LearnedNoise:
    """A scheduler's noise as a network learns it; what is given is as in `DiffusionHead`.

    Attributes:
        process: of the scheduler, with the network's own prediction and timesteps.
        flows: whether the scheduler is a flow's.
    """

    scheduler: SchedulerConfig
    prediction: Literal["flow", "sample", "v_prediction"] | None = None
    timesteps: Literal["noise", "signal"] = "noise"
    process: NoiseProcess = field(init=False, compare=False)
    flows: bool = field(init=False, compare=False)

    def __post_init__(self) -> None:
        check_choice("prediction", self.prediction, (None, "flow", "sample", "v_prediction"))
        check_choice("timesteps", self.timesteps, ("noise", "signal"))
        process = NoiseProcess.from_config(self.scheduler)
        flows = process.prediction == "flow"
        if not flows and self.prediction is not None:
            raise bad("prediction", self.prediction, "None: the scheduler's config says it")
        if not flows and self.timesteps == "signal":
            raise bad("timesteps", "signal", "another: this one is of a flow's scheduler alone")
        object.__setattr__(self, "flows", flows)
        object.__setattr__(self, "process", self._own(process))

    def on(self, device: torch.device) -> NoiseProcess:
        """Return the process on a device."""
        return self._own(NoiseProcess.on(self.scheduler, device))

    def _own(self, process: NoiseProcess) -> NoiseProcess:
        own: dict[str, Any] = {}
        if self.prediction is not None:
            own["prediction"] = self.prediction
        if self.timesteps == "signal":
            own["timesteps"] = len(process) - process.timesteps
        return replace(process, **own) if own else process

    @property
    def last(self) -> int:
        """The timestep of noise alone."""
        return len(self.process)

    def seen(self, timestep: float) -> float:
        """Return what the network is given for a solver's timestep."""
        return self.last - timestep if self.timesteps == "signal" else timestep

    def check_drawing(self, scheduler: SchedulerConfig) -> None:
        """Raise a ValueError for a solver of no flow, where the network has words of a flow."""
        own = self.prediction is not None or self.timesteps == "signal"
        config = _read_config(scheduler) or {}
        name = config.get("_class_name")
        flows = not isinstance(name, str) or "FlowMatch" in name or config.get("use_flow_sigmas")
        if own and not flows:
            allowed = "a flow's, of FlowMatch or with use_flow_sigmas: this head's options are"
            raise bad("scheduler", name, allowed)

    def velocity(self, prediction: Tensor, x_t: Tensor, sigma: float) -> Tensor:
        """Return a flow's velocity eps - x_0, given what was predicted of x_t."""
        if self.process.prediction == "flow":
            return prediction
        if self.process.prediction == "sample":
            return (x_t - prediction) / sigma
        alpha = 1 - sigma  # of "v_prediction", alpha eps - sigma x_0
        return ((sigma - alpha) * x_t + (alpha + sigma) * prediction) / (alpha**2 + sigma**2)

    def clean(self, prediction: Tensor, x_t: Tensor, sigma: float) -> Tensor:
        """Return the clean token x_0 of a flow, given what was predicted of x_t."""
        if self.process.prediction == "sample":
            return prediction
        return x_t - sigma * self.velocity(prediction, x_t, sigma)


def law_of_indices(
    flows: bool, draws: TimeLaw | None, logit: tuple[float, float]
) -> tuple[TimeLaw, tuple[float, float]]:
    """Return a head's law as one of the indices of its process, which begin at a flow's noise."""
    mean, deviation = logit
    return draws or ("logit_normal" if flows else "uniform"), (-mean if flows else mean, deviation)
