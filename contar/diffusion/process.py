"""The noising process of training: how much signal and noise at each training timestep."""

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, get_args

import torch

from contar._errors import (
    bad,
    check_choice,
    check_device,
    check_ids,
    check_size,
    check_tensor,
    check_total,
)
from contar._random import Generators, check_generator, integers
from contar._typing import Float, Int, Tensor
from contar.diffusion.config import SchedulerConfig, config_key, load_scheduler
from contar.diffusion.times import TimeLaw, check_law, draw_times, times_at

Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]


@dataclass(frozen=True)
class NoiseProcess:
    """x_t = alpha * x_0 + sigma * eps, and what a network has to predict from it.

    Attributes:
        alpha: [steps], factor of the clean token at each training timestep.
        sigma: [steps], factor of the noise.
        timesteps: [steps], the value that the network is given.
        prediction: "epsilon" (the noise), "v_prediction" (alpha * eps - sigma * x_0),
            "sample" (x_0), or "flow" (eps - x_0).
        betas: [steps], noise added at each timestep, for a network that also predicts each value's
            reverse variance; None where the variance is fixed.

    Raises:
        ValueError: tables of different lengths, an unknown prediction.
    """

    alpha: Float[Tensor, " steps"]
    sigma: Float[Tensor, " steps"]
    timesteps: Float[Tensor, " steps"]
    prediction: Prediction
    betas: Float[Tensor, " steps"] | None = None

    def __post_init__(self) -> None:
        check_tensor("alpha", self.alpha, (None,), "[steps]")
        for name in ("sigma", "timesteps", *["betas"] * (self.betas is not None)):
            check_tensor(name, getattr(self, name), tuple(self.alpha.shape), "[steps]")
        check_choice("prediction", self.prediction, get_args(Prediction))
        if self.betas is not None and self.prediction != "epsilon":
            raise bad("prediction", self.prediction, "'epsilon' where the variance is learned")

    @classmethod
    def from_config(cls, config: SchedulerConfig) -> "NoiseProcess":
        """Read the process from a diffusers scheduler or its config.

        Flow matching (Lipman et al. 2022, arXiv 2210.02747; shift as in arXiv 2403.03206) has
        x_t = (1 - sigma) x_0 + sigma eps; variance-preserving schedules (DDPM, arXiv 2006.11239,
        eq. 4) have x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps.

        Raises:
            ValueError: as `load_scheduler`; a scheduler with neither sigmas of a flow nor betas, or
                with a prediction that is not listed above.
        """
        scheduler = load_scheduler(config)
        if "FlowMatch" in type(scheduler).__name__:
            sigma = scheduler.sigmas.float()[: scheduler.config.num_train_timesteps]
            scale = scheduler.config.num_train_timesteps
            return cls(1 - sigma, sigma, sigma * scale, "flow")
        if not hasattr(scheduler, "alphas_cumprod"):
            raise bad("scheduler", type(scheduler).__name__, "one with betas, or of flow matching")
        prediction: Any = getattr(scheduler.config, "prediction_type", "epsilon")
        check_choice("prediction_type", prediction, ("epsilon", "v_prediction", "sample"))
        kept, betas = scheduler.alphas_cumprod.float(), None
        if getattr(scheduler.config, "variance_type", None) == "learned_range":
            betas = scheduler.betas.float()
            # As `variance_bound` has it, which divides by small levels: in float64.
            kept = (1 - betas.double()).cumprod(0)
        steps = torch.arange(len(kept), dtype=torch.float32, device=kept.device)
        alpha, sigma = (kept**0.5).float(), ((1 - kept) ** 0.5).float()
        return cls(alpha, sigma, steps, prediction, betas)

    @classmethod
    def on(cls, config: SchedulerConfig, device: torch.device | str) -> "NoiseProcess":
        """Read the process as `from_config` does, once for each config and device.

        A step that read it anew would have its tables wait for the device.
        """
        key = config_key(config)
        return cls.from_config(config).to(device) if key is None else _remembered(key, str(device))

    def to(self, device: torch.device | str) -> "NoiseProcess":
        """Return the process with its tables on a device."""
        tables = {name: x for name, x in vars(self).items() if isinstance(x, Tensor)}
        return replace(self, **{name: x.to(device) for name, x in tables.items()})

    def __len__(self) -> int:
        return len(self.alpha)

    def draw_indices(
        self,
        *shape: int,
        generator: Generators,
        distribution: TimeLaw | None = None,
        logit: tuple[float, float] = (0.0, 1.0),
        device: torch.device | str = "cpu",
    ) -> Int[Tensor, "..."]:
        """Draw indices into the tables for training.

        Args:
            shape: of the result; the first axis is the batch of the generators.
            distribution: "uniform", or the law of a share of the steps, rounded down, as in
                `draw_times`: "logit_normal" or "cosine". None takes logit-normal for flows and
                uniform otherwise, as NOVA does.
            logit: mean and deviation of a logit-normal law, of that share; a flow's steps begin at
                noise alone.

        Raises:
            ValueError: an unknown distribution, a size below 0, or generators that do not fit.
        """
        if not shape:
            raise bad("shape", shape, "at least one size")
        for size in shape:
            check_size("shape", size, 0)
        check_total("shape", *shape)
        check_device("device", device)
        generator = check_generator(generator, shape[0], device)
        law = self._law(distribution, logit)
        options: Any = {"generator": generator, "device": device}
        if law == "uniform":
            return integers(len(self), *shape, **options)
        return self._indices(draw_times(*shape, law=law, logit=logit, **options))

    def place(
        self,
        chance: Float[Tensor, "*m"],
        *,
        distribution: TimeLaw | None = None,
        logit: tuple[float, float] = (0.0, 1.0),
    ) -> Int[Tensor, "*m"]:
        """Return the indices that uniform numbers choose, distributed as `draw_indices` has them.

        `chance` is in [0, 1].

        Raises:
            ValueError: an unknown distribution, or a `logit` that is no mean and deviation.
        """
        return self._indices(times_at(chance, self._law(distribution, logit), logit))

    def _law(self, distribution: TimeLaw | None, logit: tuple[float, float]) -> TimeLaw:
        own: TimeLaw = "logit_normal" if self.prediction == "flow" else "uniform"
        law = own if distribution is None else distribution
        check_law(law, logit, "distribution")
        return law

    def _indices(self, share: Tensor) -> Tensor:
        return (share * len(self)).long().clamp(max=len(self) - 1)

    def add_noise(
        self, x_0: Float[Tensor, "*m c"], eps: Float[Tensor, "*m c"], index: Int[Tensor, "*m"]
    ) -> Float[Tensor, "*m c"]:
        """Return x_t of each token at its training timestep.

        Raises:
            ValueError: shapes that do not fit, or indices that the tables do not have.
        """
        self._check(x_0, eps, index)
        alpha, sigma = self._levels(index)
        return alpha * x_0 + sigma * eps

    def target(
        self, x_0: Float[Tensor, "*m c"], eps: Float[Tensor, "*m c"], index: Int[Tensor, "*m"]
    ) -> Float[Tensor, "*m c"]:
        """Return what the network has to predict from x_t; errors as in `add_noise`."""
        self._check(x_0, eps, index)
        if self.prediction == "epsilon":
            return eps
        if self.prediction == "sample":
            return x_0
        if self.prediction == "flow":
            return eps - x_0
        alpha, sigma = self._levels(index)
        return alpha * eps - sigma * x_0

    def timestep(self, index: Int[Tensor, "*m"]) -> Float[Tensor, "*m"]:
        """Return the value that the network is given for each index.

        Raises:
            ValueError: indices that the table does not have.
        """
        check_tensor("index", index, (...,), "[...]", kind="int")
        check_ids("index", index, len(self))
        return self.timesteps.to(index.device)[index]

    def _check(self, x_0: Tensor, eps: Tensor, index: Tensor) -> None:
        check_tensor("x_0", x_0, (..., None), "[..., c]")
        check_tensor("eps", eps, tuple(x_0.shape), "[..., c]")
        check_tensor("index", index, tuple(x_0.shape[:-1]), "[...]", kind="int")
        check_ids("index", index, len(self))

    def _levels(self, index: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.alpha.to(index.device), self.sigma.to(index.device)
        return alpha[index][..., None], sigma[index][..., None]


@lru_cache(maxsize=16)
def _remembered(key: str, device: str) -> NoiseProcess:
    with torch.inference_mode(False):  # the tables serve steps with gradients, too
        return NoiseProcess.from_config(json.loads(key)).to(device)
