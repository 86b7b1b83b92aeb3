"""What a plan means for a model, and what is given beside it: prompts over time, order, tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from contar._errors import bad, check_size, check_tensor
from contar._typing import Bool, Int, Tensor
from contar.generation import GenerationPlan
from contar.heads import DiffusionHead, TokenHead, check_draw
from contar.ordering import SetSchedule
from recipes._nova.network import Nova


@dataclass(frozen=True)
class Settings:
    """What a plan means for a model."""

    model: Nova
    plan: GenerationPlan
    latent: tuple[int, int]
    grid: tuple[int, int]  # of a frame's tokens, (rows, columns)
    head: TokenHead  # as it draws
    set_sizes: tuple[int, ...]  # of a frame of which nothing is given

    def steps(self, sets: int) -> tuple[int | None, ...]:
        """Return the diffusion steps of each of so many sets."""
        return self.plan.steps(sets, getattr(self.model.head, "steps", None))

    @property
    def coarse(self) -> tuple[int, int]:
        """What the temporal tower sees of a frame, (rows, columns)."""
        return self.grid[0] // 2, self.grid[1] // 2

    @property
    def tokens(self) -> int:
        """How many tokens a frame has."""
        return self.grid[0] * self.grid[1]

    @property
    def chunk_frames(self) -> int:
        """Frames of a clip as the temporal tower sees it."""
        return min(self.plan.frames, self.plan.chunk or self.plan.frames)

    @property
    def head_options(self) -> dict[str, int]:
        """What a diffusion head is told beside the protocol: of how many tokens a norm is kept."""
        whole = self.plan.guidance.renorm_over == "frame" and isinstance(self.head, DiffusionHead)
        return {"frame": self.tokens} if whole else {}


def read_plan(model: Nova, plan: GenerationPlan) -> Settings:
    """Return what a plan means for a model.

    Raises:
        ValueError: a plan that does not fit the model.
    """
    c = model.sizes
    if plan.times == "window" and c.positions == "absolute":
        allowed = "'stretch' or 'continue': this model adds times to tokens before it attends, so a"
        raise bad(
            "plan.times", "window", f"{allowed} window of its own clip is chunk= and overlap="
        )
    latent = plan.grid or c.latent
    c.check_latent("plan.grid", latent)
    grid = latent[0] // c.patch, latent[1] // c.patch
    sizes = plan.sizes(grid[0] * grid[1])
    head = plan.solver_of(model.head)
    settings = Settings(model, plan, latent, grid, head, sizes)
    check_steps(settings, len(sizes))
    return settings


def check_steps(settings: Settings, sets: int) -> None:
    """Raise a ValueError unless the head takes a plan's steps and temperatures in so many sets."""
    guidance = settings.plan.guidance
    guidance = guidance.at(guidance.interval[1])
    for count in dict.fromkeys(settings.steps(sets)):
        for temperature in dict.fromkeys(settings.plan.temperatures):
            check_draw(settings.head, guidance, temperature, count, "plan.diffusion_steps")


def read_timeline(
    name: str, prompts: Any, plan: GenerationPlan, frames: int, stride: int = 1
) -> list[tuple[int, Any]]:
    """Return prompts with the latent frames from which they hold; one that came alone from 0.

    Pairs count by `frames` of the video, `stride` of which are a latent one, or by latent ones; the
    first may have fewer.

    Raises:
        ValueError: frames that do not begin with 0 and rise, one that there is not, two prompts in
            one latent frame, other than pairs, or a plan under which prompts cannot change.
    """
    if not isinstance(prompts, Sequence) or not any(isinstance(each, tuple) for each in prompts):
        return [(0, prompts)]
    for pair in prompts:
        if not isinstance(pair, tuple) or len(pair) != 2:
            got = pair if isinstance(pair, str) else type(pair).__name__
            got = f"a tuple of {len(pair)}" if isinstance(pair, tuple) else got
            raise bad(name, got, "(frame, prompt) in each place")
    starts = [check_size(f"{name} frame", start, 0) for start, _ in prompts]
    if starts[0] or starts != sorted(set(starts)) or starts[-1] >= frames:
        allowed = f"frame 0 first, then later and later ones, below the {frames} there are"
        raise bad(f"{name} frames", starts, allowed)
    if len(starts) > 1 and plan.window is not None and not plan.pinned:
        allowed = "at least 1 beside a window, for prompts that change"
        raise bad("plan.pinned", plan.pinned, allowed)
    lone = plan.frames * stride - frames  # by which the first latent frame has fewer
    latent = [(start + lone) // stride for start in starts]
    if len(set(latent)) < len(latent):
        raise bad(f"{name} frames", starts, "one prompt at most in each latent frame")
    return [(t, prompt) for t, (_, prompt) in zip(latent, prompts, strict=True)]


def read_order(
    settings: Settings, order: Int[Tensor, "b m"] | None, batch: int
) -> Int[Tensor, "b m"] | None:
    """Return a given order of a frame's tokens on the model's device.

    Raises:
        ValueError: no such order, or one beside a plan that names another.
    """
    if order is None:
        return None
    settings.plan.check_order()
    check_tensor("order", order, (batch, settings.tokens), "[b, tokens]", kind="int")
    return SetSchedule(order.to(settings.model.begin.device), settings.set_sizes).order


def read_keep(
    settings: Settings, batch: int, latents: Any, keep: Any, context: Any
) -> Bool[Tensor, "t h2 w2"]:
    """Return which tokens of each frame are given, on the CPU.

    Raises:
        ValueError: one of `latents` and `keep` without the other, or beside a context; other
            shapes; nothing to be made; a frame that nothing is given of before one that is given.
    """
    plan, c = settings.plan, settings.model.sizes
    if context is not None:
        raise bad("context", "a tensor beside keep", "None: keep all tokens of those frames")
    for name, value, other in (("keep", keep, "latents"), ("latents", latents, "keep")):
        if value is None:
            raise bad(name, None, f"a tensor, with {other}")
    shape = (batch, c.channels, plan.frames, *settings.latent)
    check_tensor("latents", latents, shape, "[b, c, t, h, w]")
    if isinstance(keep, Tensor) and keep.ndim != 2:
        shape = (plan.frames, *settings.grid)
        check_tensor("keep", keep, shape, "[t, rows, columns]", kind="bool")
    else:
        check_tensor("keep", keep, settings.grid, "[rows, columns]", kind="bool")
    keep = keep.cpu().expand(plan.frames, -1, -1)
    if keep.all():
        raise bad("keep", "all tokens", "at least one to be made")
    check_kept("keep", settings, keep)
    return keep


def check_kept(name: str, settings: Settings, keep: Bool[Tensor, "t h2 w2"]) -> None:
    """Raise a ValueError for a frame of which nothing is kept before one that is kept whole.

    The one would be made without a look at the other, which it cannot lead to. And as
    `check_steps`, in the sets of each frame, of which there are fewer where few tokens are left.
    """
    for count in {len(settings.plan.sizes_around(frame)) for frame in keep} - {0}:
        check_steps(settings, count)
    given, anew = keep.flatten(1).all(1).tolist(), (~keep).flatten(1).all(1).tolist()
    if any(anew) and any(given[(first := anew.index(True)) :]):
        got = f"nothing kept of latent frame {first}, all of {given.index(True, first)}"
        raise bad(name, got, "no such frame before a given one: frames see earlier ones only")
