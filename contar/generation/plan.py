"""What is to be generated, as one immutable value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from contar._errors import bad, check_choice, check_count, check_grid, check_number
from contar.conditioning import Guidance
from contar.ordering import set_sizes
from contar.ordering.sizes import Curve, Rounding


@dataclass(frozen=True)
class GenerationPlan:
    """Frames, sets, diffusion steps and how they are steered.

    Args:
        frames: latent frames of the result, given context frames included.
        sets: in which a frame's tokens are predicted, at most as many as there are tokens.
        diffusion_steps: of each set.
        guidance: classifier-free guidance.
        temperature: factor of the noise that a stochastic solver adds.
        curve: of the set sizes, as in `set_sizes`.
        rounding: of the set sizes, as in `set_sizes`.
        scheduler: config of a diffusers scheduler; None takes the model's own.
        flow_shift: of a flow's timesteps, as in `SamplerTable.from_config`; None: as the config.
        grid: (height, width) of the latent frames; None takes the model's own.
        window: latest frames that a frame attends to in the temporal tower; None is all.
        pinned: first frames that stay visible beside a window.

    Raises:
        ValueError: a value outside its range.
    """

    frames: int = 1
    sets: int = 64
    diffusion_steps: int = 25
    guidance: Guidance = field(default_factory=lambda: Guidance(5.0))
    temperature: float = 1.0
    curve: Curve = "cosine"
    rounding: Rounding = "nearest"
    scheduler: Mapping[str, Any] | None = None
    flow_shift: float | None = None
    grid: tuple[int, int] | None = None
    window: int | None = None
    pinned: int = 1

    def __post_init__(self) -> None:
        for name in ("frames", "sets", "diffusion_steps"):
            check_count(name, getattr(self, name))
        if not isinstance(self.guidance, Guidance):
            raise bad("guidance", self.guidance, "a Guidance")
        check_number("temperature", self.temperature, 0)
        check_choice("curve", self.curve, ("cosine", "linear", "uniform"))
        check_choice("rounding", self.rounding, ("nearest", "floor"))
        if self.flow_shift is not None:
            check_number("flow_shift", self.flow_shift, 1e-6)
        if self.grid is not None:
            check_grid("grid", self.grid)
        if self.window is not None:
            check_count("window", self.window)
        check_count("pinned", self.pinned, 0)

    def sizes(self, tokens: int) -> tuple[int, ...]:
        """Return the set sizes for a frame of so many tokens."""
        return set_sizes(tokens, self.sets, curve=self.curve, rounding=self.rounding)
