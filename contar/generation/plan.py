"""What is to be generated, as one immutable value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from contar._errors import (
    bad,
    check_choice,
    check_grid,
    check_instance,
    check_number,
    check_size,
    keep_plain,
)
from contar._random import Generators
from contar._typing import Int, Tensor
from contar.conditioning import Guidance
from contar.diffusion import SamplerTable
from contar.generation.graphs import Graphs
from contar.ordering import checkerboard_order, random_order, set_sizes
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
        last_diffusion_steps: of the last set, if fewer than of the first: in between the number
            falls evenly (DiSA, Zhao et al. 2025, arXiv 2505.20297). None is as many in all sets.
        order: of a frame's tokens. "checkerboard" has every second cell of the grid come first.
        filling_sets: of the sets, those that fill the second half of a checkerboard, slow sets
            then fast ones (GtR, Yan et al. 2025, arXiv 2510.17171). None spreads the sets over
            the whole frame.
        refresh: sets from one that computes the features of all tokens to the next; in between
            only tokens that are new or predicted are computed, see
            `contar.backbones.SpatialMemory`.
        guidance_every: guided sets from one with an unconditional pass to the next; in between the
            difference that the condition makes is taken from the latest such pass (LazyMAR's
            condition cache, Yan et al. 2025, arXiv 2503.12450).
        context_noise: deviation of the noise that is added to what the temporal tower sees of
            earlier frames, for a model that was trained so.

    What follows `pinned`, but for the context's noise, trades exactness for time, as `scheduler`
    may, and all go together.

    Raises:
        ValueError: a value outside its range, or `filling_sets` in another order.
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
    last_diffusion_steps: int | None = None
    order: Literal["random", "checkerboard"] = "random"
    filling_sets: int | None = None
    refresh: int = 1
    guidance_every: int = 1
    context_noise: float = 0.0

    def __post_init__(self) -> None:
        keep_plain(self)
        for name in ("frames", "sets", "diffusion_steps"):
            check_size(name, getattr(self, name))
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
            check_size("window", self.window)
        check_size("pinned", self.pinned, 0)
        if self.last_diffusion_steps is not None:
            last = check_size("last_diffusion_steps", self.last_diffusion_steps)
            if last > self.diffusion_steps:
                raise bad("last_diffusion_steps", last, f"at most {self.diffusion_steps}")
        check_choice("order", self.order, ("random", "checkerboard"))
        if self.filling_sets is not None:
            if self.order != "checkerboard":
                raise bad("filling_sets", self.filling_sets, "None unless order='checkerboard'")
            if check_size("filling_sets", self.filling_sets) >= self.sets:
                raise bad("filling_sets", self.filling_sets, f"fewer than the {self.sets} sets")
        check_size("refresh", self.refresh)
        check_size("guidance_every", self.guidance_every)
        check_number("context_noise", self.context_noise, 0)

    def sizes(self, tokens: int) -> tuple[int, ...]:
        """Return the set sizes for a frame of so many tokens.

        Raises:
            ValueError: more sets than tokens.
        """

        def cut(count: int, sets: int) -> tuple[int, ...]:
            return set_sizes(count, sets, curve=self.curve, rounding=self.rounding)

        if self.filling_sets is None:
            return cut(tokens, self.sets)
        first, second = (check_size("tokens", tokens) + 1) // 2, tokens // 2
        if self.filling_sets > second:
            allowed = f"at most the {second} tokens of a checkerboard's second half"
            raise bad("filling_sets", self.filling_sets, allowed)
        if self.sets - self.filling_sets > first:
            allowed = f"at most {first + self.filling_sets}, as {first} tokens come first"
            raise bad("sets", self.sets, allowed)
        return cut(first, self.sets - self.filling_sets) + cut(second, self.filling_sets)

    def check_order(self) -> None:
        """Raise a ValueError unless a generation by this plan may be given an order."""
        if self.order != "random":
            raise bad("order", "an order", f"None, as the plan's is {self.order!r}")

    def check_graphs(self, graphs: object) -> None:
        """Raise a ValueError unless a generation by this plan may replay graphs."""
        check_instance("graphs", graphs, Graphs)
        if self.refresh > 1 or self.guidance_every > 1:
            raise bad("graphs", "a Graphs", "None for a plan that reuses features")

    def solvers(self, make: Callable[[int], SamplerTable], sets: int) -> tuple[SamplerTable, ...]:
        """Return the solver of each of so many sets, each made once for its number of steps."""
        first = self.diffusion_steps
        last = first if self.last_diffusion_steps is None else self.last_diffusion_steps
        steps = [round(first + (last - first) * k / max(1, sets - 1)) for k in range(sets)]
        made = {count: make(count) for count in dict.fromkeys(steps)}
        return tuple(made[count] for count in steps)

    def draw_order(
        self,
        batch: int,
        grid: tuple[int, int],
        *,
        generator: Generators | None = None,
        device: torch.device | str = "cpu",
    ) -> Int[Tensor, "b n"]:
        """Return an order for each sample, of a frame of (rows, columns) of tokens."""
        rows, columns = grid
        options: Any = {"generator": generator, "device": device}
        if self.order == "checkerboard":
            return checkerboard_order(batch, rows * columns, columns=columns, **options)
        return random_order(batch, rows * columns, **options)
