"""What a generation is asked for: checked once, with what None means filled in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from contar._errors import bad, check_instance, check_number, check_tensor, plain
from contar._random import Generators, check_generator
from contar._typing import Float, Int, Tensor
from contar.attention import check_backend
from contar.generation import GenerationPlan, Graphs
from contar.heads import DiffusionHead, TokenHead, check_plan
from contar.ordering import SetSchedule
from recipes._nova.network import Nova
from recipes._nova.timeline import read_timeline

UNSET = -1.0  # the motion score of clips whose score was not said, in training that leaves it out
MOTION = {"motion_flow": 5.0, "fps": 12.0}  # where nothing is said
Texts = Float[Tensor, "b l e"] | Sequence[Float[Tensor, "_ e"]]
Timeline = Sequence[tuple[int, Texts]]  # from which frame on
Numbers = float | Sequence[float] | Float[Tensor, " b"] | None  # in training, perhaps on a GPU


@dataclass(frozen=True)
class Settings:
    """What a plan means for a model."""

    model: Nova
    plan: GenerationPlan
    latent: tuple[int, int]
    grid: tuple[int, int]  # of a frame's tokens, (rows, columns)
    head: TokenHead  # as it draws
    sizes: tuple[int, ...]  # of the sets
    steps: tuple[int | None, ...]  # of each set

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


@dataclass(frozen=True)
class Call(Settings):
    """What a generation is asked for."""

    batch: int
    # Conditional, then unconditional where guidance may act, and from which frame on.
    texts: tuple[tuple[int, Float[Tensor, "b2 l e"]], ...]
    flow: Float[Tensor, " b2"] | None
    fps: Float[Tensor, " b2"] | None
    context: Float[Tensor, "b c n h w"] | None
    order: Int[Tensor, "b m"] | None
    generator: Generators
    backend: Any
    graphs: Graphs | None
    first: int = 0  # frame of the whole that a chunk begins with

    def draw_order(self) -> Int[Tensor, "b m"]:
        """Return the order that was given, or one that is drawn now."""
        if self.order is not None:
            return self.order
        device = self.model.begin.device
        options: Any = {"generator": self.generator, "device": device}
        return self.plan.draw_order(self.batch, self.grid, **options)

    def text_at(self, t: int) -> Float[Tensor, "b2 l e"]:
        """Return the text under which frame t of a chunk is read; given ones as the first after."""
        frame = self.first + max(t, self.given)
        return [text for start, text in self.texts if start <= frame][-1]

    @property
    def prefix_length(self) -> int:
        """How many tokens of text and motion come before the first frame."""
        return self.model.text.length + (0 if self.model.motion is None else 2)

    @property
    def sets(self) -> int:
        """How many sets there are in all."""
        return (self.plan.frames - self.given) * len(self.sizes)

    @property
    def given(self) -> int:
        """How many first frames are given."""
        return 0 if self.context is None else self.context.shape[2]


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
    steps = plan.steps(len(sizes), getattr(model.head, "steps", None))
    for count in dict.fromkeys(steps):
        for temperature in dict.fromkeys(plan.temperatures):
            check_plan(head, plan.guidance.at(1), temperature, count)
    return Settings(model, plan, latent, grid, head, sizes, steps)


def read_call(
    model: Nova,
    plan: GenerationPlan,
    *,
    prompt_embeds: Texts | Timeline,
    negative_prompt_embeds: Texts | None,
    motion_flow: Numbers,
    fps: Numbers,
    context: Float[Tensor, "b c n h w"] | None,
    order: Int[Tensor, "b m"] | None,
    generator: Generators | None,
    backend: Any,
    graphs: Graphs | None,
) -> Call:
    """Return what `nova.stream` is asked for; its errors are raised here."""
    check_instance("plan", plan, GenerationPlan)
    c, device = model.sizes, model.begin.device
    timeline = read_timeline(plan, prompt_embeds)
    batch = model.text.check("prompt_embeds", timeline[0][1])
    for frame, embeds in timeline[1:]:
        if (count := model.text.check("prompt_embeds", embeds)) != batch:
            raise bad(
                "prompt_embeds", f"{count} texts from frame {frame} on", f"{batch}, as before"
            )
    check_backend(backend, device)
    if graphs is not None:
        plan.check_graphs(graphs)
    settings = read_plan(model, plan)
    if context is not None:
        shape = (batch, c.channels, None, *settings.latent)
        check_tensor("context", context, shape, "[b, c, n, h, w]")
        for name in ("frames", "chunk"):
            if (most := getattr(plan, name)) is not None and context.shape[2] > most:
                raise bad("context", f"{context.shape[2]} frames", f"at most plan.{name}={most}")
        context = context.to(device, torch.promote_types(context.dtype, torch.float32))
    order = read_order(settings, order, batch)
    flow, rate = motion_numbers(model, batch, motion_flow, fps)
    texts = [(frame, model.text.pad(embeds)) for frame, embeds in timeline]
    negative = None
    if negative_prompt_embeds is not None:
        count = model.text.check("negative_prompt_embeds", negative_prompt_embeds)
        if count != batch:
            raise bad("negative_prompt_embeds", f"{count} texts", f"{batch}, one for each prompt")
        negative = model.text.pad(negative_prompt_embeds)
    generator = check_generator(generator, batch, device)
    motion = (flow, rate)
    return make_call(settings, texts, negative, motion, context, order, generator, backend, graphs)


def make_call(
    settings: Settings,
    texts: Sequence[tuple[int, Float[Tensor, "b l e"]]],
    negative: Float[Tensor, "b l e"] | None,
    motion: tuple[Tensor | None, Tensor | None],
    context: Float[Tensor, "b c n h w"] | None,
    order: Int[Tensor, "b m"] | None,
    generator: Generators,
    backend: Any,
    graphs: Graphs | None,
) -> Call:
    """Return a call of what was checked before; the negative texts left out are empty ones."""
    batch, (flow, rate) = len(texts[0][1]), motion
    if settings.plan.guidance.active:
        other = settings.model.text.empty(batch) if negative is None else negative
        texts = [(frame, torch.cat([text, other])) for frame, text in texts]
        flow, rate = (None if x is None else x.repeat(2) for x in (flow, rate))
    return Call(
        **vars(settings),
        batch=batch,
        texts=tuple(texts),
        flow=flow,
        fps=rate,
        context=context,
        order=order,
        generator=generator,
        backend=backend,
        graphs=graphs,
    )


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
    return SetSchedule(order.to(settings.model.begin.device), settings.sizes).order


def motion_numbers(
    model: Nova, batch: int, flow: Numbers, fps: Numbers
) -> tuple[Tensor | None, Tensor | None]:
    """Return flow scores and frame rates as [b] each, or None for a model of images.

    A tensor on a GPU, as training has it, is taken as it is: a look at its numbers would wait.

    Raises:
        ValueError: a number below 0, another number of them, or one given to a model of images.
    """
    if model.motion is None:
        for name, value in (("motion_flow", flow), ("fps", fps)):
            if value is not None:
                raise bad(name, value, "None: this model makes images")
        return None, None
    columns, device = [], model.begin.device
    for name, value in (("motion_flow", flow), ("fps", fps)):
        value = MOTION[name] if value is None else value
        if isinstance(value, Tensor) and value.device.type == "cuda":
            check_tensor(name, value, (batch,), "[b]")
            columns.append(value.float())
            continue
        values = list(value) if isinstance(value, Sequence) else [value] * batch
        if len(values) != batch:
            raise bad(name, f"{len(values)} numbers", f"one, or one for each of {batch} samples")
        for number in values:
            if name == "fps" or isinstance(number, Tensor) or plain(number) != UNSET:
                check_number(name, number, 0)
        numbers = [float(number) for number in values]
        columns.append(torch.tensor(numbers, dtype=torch.float32, device=device))
    return columns[0], columns[1]
