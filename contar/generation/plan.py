"""What is to be generated, as one immutable value."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

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
from contar._typing import Bool, Int, Tensor
from contar.conditioning import Guidance
from contar.generation.graphs import Graphs
from contar.heads import DiffusionHead, TokenHead
from contar.ordering import Curve, Rounding, checkerboard_order, random_order, set_sizes


@dataclass(frozen=True)
class GenerationPlan:
    """Frames, sets, diffusion steps and how they are steered; the defaults are those of NOVA.

    Args:
        frames: latent frames of the result, given context frames included.
        sets: in which a frame's tokens are predicted, at most as many as there are tokens.
        diffusion_steps: of each set; None is the head's own number.
        guidance: classifier-free guidance.
        temperature: below 1 for likelier tokens; each head says what it multiplies. Or one for the
            first frame and one for the last: between them it changes evenly.
        curve: of the set sizes, as in `set_sizes`.
        rounding: of the set sizes, as in `set_sizes`.
        scheduler: config of a diffusers scheduler that a diffusion head draws by; None takes its
            own.
        flow_shift: of a flow's timesteps, as in `SamplerTable.from_config`; None: as the config.
        grid: (height, width) of the latent frames; None takes the model's own.
        window: latest frames that a frame attends to in the temporal tower; None is all.
        pinned: first frames that stay visible beside a window.
        times: the law of the frames' times. "stretch" has the clip take the time of those that the
            model learned, however many frames it has; "continue" keeps the learned step and goes on
            past the learned length; "window" counts from the oldest frame in sight, pinned ones
            moved along, so that no distance grows (rotary positions only). They agree on a clip of
            the learned length that is all in sight. None is the law by which the model was
            released: "stretch", with rotary positions "continue".
        last_diffusion_steps: of the last set, if fewer than of the first: in between the number
            falls evenly (DiSA, Zhao et al. 2025, arXiv 2505.20297). None is as many in all sets.
        order: of a frame's tokens. "checkerboard" has every second cell of the grid come first.
        filling_sets: of the sets, those that fill the second half of a checkerboard, slow sets
            then fast ones (GtR, Yan et al. 2025, arXiv 2510.17171). None spreads the sets over
            the whole frame.
        refresh: sets from one that computes the features of all tokens to the next; in between
            only tokens that are new or predicted are computed, see
            `contar.backbones.SpatialMemory`.
        context_noise: deviation of the noise that is added to what the temporal tower sees of
            earlier frames, for a model that was trained so.
        chunk: frames after which the temporal tower begins anew, as with another clip of so many,
            from the last `overlap` of them: for videos longer than those that the model learned.
            Its cache does not grow with their length. None is one clip.
        overlap: frames that a chunk begins with, fewer than `chunk`.

    `last_diffusion_steps`, `order`, `filling_sets` and `refresh` trade exactness for time, as
    `scheduler` may, and all go together.

    Raises:
        ValueError: a value outside its range, or `filling_sets` in another order.
    """

    frames: int = 1
    sets: int = 64
    diffusion_steps: int | None = None
    guidance: Guidance = field(default_factory=lambda: Guidance(5.0))
    temperature: float | tuple[float, float] = 1.0
    curve: Curve = "cosine"
    rounding: Rounding = "nearest"
    scheduler: Mapping[str, Any] | None = None
    flow_shift: float | None = None
    grid: tuple[int, int] | None = None
    window: int | None = None
    pinned: int = 1
    times: Literal["stretch", "continue", "window"] | None = None
    last_diffusion_steps: int | None = None
    order: Literal["random", "checkerboard"] = "random"
    filling_sets: int | None = None
    refresh: int = 1
    context_noise: float = 0.0
    chunk: int | None = None
    overlap: int = 1

    def __post_init__(self) -> None:
        keep_plain(self)
        for name in ("frames", "sets", "refresh", "overlap"):
            check_size(name, getattr(self, name))
        for name in ("diffusion_steps", "window", "last_diffusion_steps", "filling_sets", "chunk"):
            if getattr(self, name) is not None:
                check_size(name, getattr(self, name))
        check_size("pinned", self.pinned, 0)
        check_number("context_noise", self.context_noise, 0)
        if self.flow_shift is not None:
            check_number("flow_shift", self.flow_shift, 1e-6)
        if self.grid is not None:
            check_grid("grid", self.grid)
        if not isinstance(self.guidance, Guidance):
            raise bad("guidance", self.guidance, "a Guidance")
        heat = self.temperature
        if isinstance(heat, tuple) and len(heat) != 2:
            raise bad("temperature", heat, "a number, or (first frame's, last frame's)")
        for value in self.temperatures:
            check_number("temperature", value, 0)
        check_choice("curve", self.curve, get_args(Curve))
        check_choice("rounding", self.rounding, get_args(Rounding))
        check_choice("times", self.times, ("stretch", "continue", "window", None))
        check_choice("order", self.order, ("random", "checkerboard"))
        last, first = self.last_diffusion_steps, self.diffusion_steps
        if last is not None and first is not None and last > first:
            raise bad("last_diffusion_steps", last, f"at most {first}")
        if self.filling_sets is not None:
            if self.order != "checkerboard":
                raise bad("filling_sets", self.filling_sets, "None unless order='checkerboard'")
            if self.filling_sets >= self.sets:
                raise bad("filling_sets", self.filling_sets, f"fewer than the {self.sets} sets")
        if self.window is None and self.pinned > 1:
            raise bad("pinned", self.pinned, "0 or 1 without a window")
        if self.chunk is None and self.overlap > 1:
            raise bad("overlap", self.overlap, "1 without a chunk")
        if self.chunk is not None and self.chunk <= self.overlap:
            raise bad("chunk", self.chunk, f"more than the overlap of {self.overlap}")

    @property
    def temperatures(self) -> tuple[float, float]:
        """The temperature of the first frame and of the last."""
        both = self.temperature
        return both if isinstance(both, tuple) else (both, both)

    def temperature_at(self, frame: int) -> float:
        """Return the temperature of a frame of the result."""
        first, last = self.temperatures
        return first + (last - first) * frame / max(1, self.frames - 1)

    def in_sight(self, frame: int) -> list[int]:
        """Return the frames of a clip that one sees in the temporal tower, itself the last."""
        if self.window is None:
            return list(range(frame + 1))
        first = max(0, frame + 1 - self.window)
        return [*range(min(self.pinned, first)), *range(first, frame + 1)]

    def sizes(self, tokens: int) -> tuple[int, ...]:
        """Return the set sizes for a frame of so many tokens.

        Raises:
            ValueError: more sets than tokens.
        """
        if self.filling_sets is None:
            return self._cut(tokens, self.sets)
        first, second = (check_size("tokens", tokens) + 1) // 2, tokens // 2
        if self.filling_sets > second:
            allowed = f"at most the {second} tokens of a checkerboard's second half"
            raise bad("filling_sets", self.filling_sets, allowed)
        if self.sets - self.filling_sets > first:
            allowed = f"at most {first + self.filling_sets}, as {first} tokens come first"
            raise bad("sets", self.sets, allowed)
        return self._halves(first, second, self.filling_sets)

    def sizes_around(self, keep: Bool[Tensor, "h w"]) -> tuple[int, ...]:
        """Return the set sizes for the tokens of a frame that are not kept.

        They are cut as a frame of so many tokens is, in as many sets, or in fewer where fewer
        tokens are left; none is left where all are kept.

        Args:
            keep: [rows, columns], True where a token is given; on the CPU.
        """
        left = ~keep
        count = int(left.sum())
        if self.filling_sets is None:
            return self._cut(count, min(self.sets, count))
        row, column = (torch.arange(side, device=keep.device) for side in keep.shape)
        second = int((left & ((row[:, None] + column) % 2 == 1)).sum())
        return self._halves(count - second, second, self.filling_sets)

    def _halves(self, first: int, second: int, filling: int) -> tuple[int, ...]:
        of_first = self._cut(first, min(self.sets - filling, first))
        return of_first + self._cut(second, min(filling, second))

    def _cut(self, count: int, sets: int) -> tuple[int, ...]:
        return set_sizes(count, sets, curve=self.curve, rounding=self.rounding) if sets else ()

    def check_order(self) -> None:
        """Raise a ValueError unless a generation by this plan may be given an order."""
        if self.order != "random":
            raise bad("order", "an order", f"None, as the plan's is {self.order!r}")

    def check_graphs(self, graphs: object) -> None:
        """Raise a ValueError unless a generation by this plan may replay graphs."""
        check_instance("graphs", graphs, Graphs)
        if self.refresh > 1:
            raise bad("graphs", "a Graphs", "None for a plan that reuses features")

    def draws_by(self, head: TokenHead, steps: int | None) -> Hashable:
        """Return what a head's draws in so many steps depend on, beside its weights."""
        if isinstance(head, DiffusionHead):
            return head.table(steps)
        return id(head), getattr(head, "steps", None) if steps is None else steps

    def solver_of(self, head: TokenHead) -> TokenHead:
        """Return the head as it draws by this plan's scheduler and shift.

        Raises:
            ValueError: one of them for a head that is no diffusion, or that its solver refuses.
        """
        if self.scheduler is None and self.flow_shift is None:
            return head
        if not isinstance(head, DiffusionHead):
            name = "flow_shift" if self.scheduler is None else "scheduler"
            raise bad(name, getattr(self, name), "None: this head draws by no scheduler")
        scheduler = head.drawing if self.scheduler is None else self.scheduler
        return head.with_solver(scheduler, flow_shift=self.flow_shift)

    def steps(self, sets: int, own: int | None) -> tuple[int | None, ...]:
        """Return the steps of each of so many sets, evenly from the first's to the last's.

        Args:
            sets: how many there are.
            own: steps of the head, where the plan names none; None of a head that has none.

        Raises:
            ValueError: `last_diffusion_steps` for a head without steps, or above its own.
        """
        last = self.last_diffusion_steps
        if last is None:
            return (self.diffusion_steps,) * sets
        first = own if self.diffusion_steps is None else self.diffusion_steps
        if first is None:
            raise bad("last_diffusion_steps", last, "None: this head draws a token in one pass")
        if last > first:
            raise bad("last_diffusion_steps", last, f"at most {first}")
        return tuple(round(first + (last - first) * k / max(1, sets - 1)) for k in range(sets))

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
