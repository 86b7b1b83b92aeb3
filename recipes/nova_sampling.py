"""NOVA's generation: which conditions, orders and draws the loops of `contar.generation` get."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch

from contar._errors import bad, check_instance, check_number, check_tensor, plain
from contar._random import Generators, check_generator, normal
from contar._typing import Float, Int, Tensor
from contar.attention import KVCache, Positions, check_backend
from contar.backbones import SpatialMemory, take
from contar.conditioning import Guidance
from contar.generation import GenerationPlan, Graphs, Monitor, Progress, fill, guided_passes
from contar.heads import DiffusionHead, Noise, TokenHead, check_plan
from contar.ordering import SetSchedule, SetStep
from contar.tokenizers import patchify, unpatchify
from recipes.nova_model import Nova

UNSET = -1.0  # the motion score of clips whose score was not said, in training that leaves it out
Texts = Float[Tensor, "b l e"] | Sequence[Float[Tensor, "_ e"]]
Numbers = float | Sequence[float] | Float[Tensor, " b"] | None  # in training, perhaps on a GPU


@dataclass(frozen=True)
class _Call:
    """What `stream` has checked."""

    model: Nova
    head: TokenHead
    plan: GenerationPlan
    text: Tensor  # [passes * b, l, e]
    flow: Tensor | None  # [passes * b]
    fps: Tensor | None
    context: Tensor | None
    order: Tensor | None
    generator: Generators
    sizes: tuple[int, ...]  # of the sets
    steps: tuple[int | None, ...]
    latent: tuple[int, int]
    batch: int
    backend: Any
    graphs: Graphs | None
    clip_frames: int  # that the temporal tower's times are for
    first: int = 0  # of them, in the whole

    @property
    def grid(self) -> tuple[int, int]:
        """A frame's tokens, (rows, columns)."""
        return self.latent[0] // self.model.sizes.patch, self.latent[1] // self.model.sizes.patch

    @property
    def coarse(self) -> tuple[int, int]:
        """What the temporal tower sees of a frame, (rows, columns)."""
        return self.grid[0] // 2, self.grid[1] // 2


def generate(
    model: Nova, prompt_embeds: Texts, plan: GenerationPlan | None = None, **options: Any
) -> Float[Tensor, "b c t h w"]:
    """Generate all frames and return them as one tensor; arguments and errors as in `stream`."""
    return torch.stack(list(stream(model, prompt_embeds, plan, **options)), dim=2)


def stream(
    model: Nova,
    prompt_embeds: Texts,
    plan: GenerationPlan | None = None,
    *,
    negative_prompt_embeds: Texts | None = None,
    motion_flow: float | Sequence[float] | None = None,
    fps: float | Sequence[float] | None = None,
    context: Float[Tensor, "b c n h w"] | None = None,
    order: Int[Tensor, "b m"] | None = None,
    generator: Generators | None = None,
    progress: bool = False,
    callback: Callable[[Progress], object] | None = None,
    cancel: Callable[[], bool] | None = None,
    backend: Any = None,
    graphs: Graphs | None = None,
) -> Iterator[Float[Tensor, "b c h w"]]:
    """Generate latent frames and yield each, [b, c, h, w], as it is finished.

    Frames are float32, or of the context's dtype if that is wider; they are the caller's to change.

    Every argument is checked at the call, before the first frame is asked for. Randomness comes
    from `generator` alone, in the official order: on the first generated frame a uniform number
    for each token, whose sorting is the order in all frames (of a chunk, where there are several);
    then a normal [b, c, h, w] for each set, and one for each diffusion step that adds noise. With
    `plan.context_noise` a normal [b, c, h, w] comes before all that is drawn for a frame, but the
    first.

    Args:
        model: a NOVA; it is left as it is, so generations may be interleaved.
        prompt_embeds: states of a text encoder, [b, l, e] or one [l, e] for each sample, at most
            `text_length` long; shorter texts are padded with the model's stored rows.
        plan: frames, sets, diffusion steps, guidance; None is `GenerationPlan()`.
        negative_prompt_embeds: what guidance leads away from, likewise; None is the empty text.
        motion_flow: optical flow score, one or one for each sample; None is 5, and `UNSET` leaves
            it to the text in a model that was trained so. Videos only.
        fps: frames per second, likewise; None is 12. Videos only.
        context: [b, c, n, h, w], given first frames, yielded as they are: none makes an image or
            video of the text, one goes on from an image, n continue a video.
        order: [b, tokens], the order of a frame's tokens; None draws one.
        generator: one, or one for each sample; a CPU generator works for every device. None is
            freshly seeded.
        progress: show a bar.
        callback: called with a `Progress` after each set.
        cancel: asked before each set; True raises `contar.generation.Cancelled`.
        backend: of `attend`.
        graphs: replays each set's kernels as one CUDA graph: the caller's, for generation after
            generation by the same model. A plan that reuses features is refused.

    Raises:
        ValueError: an argument that does not fit the model, the plan or the others.
    """
    check_instance("model", model, Nova)
    plan = GenerationPlan() if plan is None else plan
    check_instance("plan", plan, GenerationPlan)
    c, device = model.sizes, model.begin.device
    batch = model.text.check("prompt_embeds", prompt_embeds)
    text = model.text.pad(prompt_embeds)
    check_backend(backend, device)
    if graphs is not None:
        plan.check_graphs(graphs)
    latent, sizes, head, steps = read_plan(model, plan)
    tokens = sum(sizes)
    if context is not None:
        check_tensor("context", context, (batch, c.channels, None, *latent), "[b, c, n, h, w]")
        for name in ("frames", "chunk"):
            if (most := getattr(plan, name)) is not None and context.shape[2] > most:
                raise bad("context", f"{context.shape[2]} frames", f"at most plan.{name}={most}")
        context = context.to(device, torch.promote_types(context.dtype, torch.float32))
    if order is not None:
        plan.check_order()
        check_tensor("order", order, (batch, tokens), "[b, tokens]", kind="int")
        order = SetSchedule(order.to(device), sizes).order
    flow, rate = motion_numbers(model, batch, motion_flow, fps)
    if negative_prompt_embeds is not None:
        count = model.text.check("negative_prompt_embeds", negative_prompt_embeds)
        if count != batch:
            raise bad("negative_prompt_embeds", f"{count} texts", f"{batch}, one for each prompt")
        negative = model.text.pad(negative_prompt_embeds)
    else:
        negative = model.text.empty(batch)
    passes = 1
    if plan.guidance.active:
        text, passes = torch.cat([text, negative]), 2
    call = _Call(
        model=model,
        head=head,
        plan=plan,
        text=text,
        flow=None if flow is None else flow.repeat(passes),
        fps=None if rate is None else rate.repeat(passes),
        context=context,
        order=order,
        generator=check_generator(generator, batch, device),
        sizes=sizes,
        steps=steps,
        latent=latent,
        batch=batch,
        backend=backend,
        graphs=graphs,
        clip_frames=min(plan.frames, plan.chunk or plan.frames),
    )
    given = 0 if context is None else context.shape[2]
    total = (plan.frames - given) * len(sizes)
    monitor = Monitor(total, progress=progress, callback=callback, cancel=cancel)
    return _frames(call, monitor)


def read_plan(
    model: Nova, plan: GenerationPlan
) -> tuple[tuple[int, int], tuple[int, ...], TokenHead, tuple[int | None, ...]]:
    """Return the grid of latent frames, the set sizes, the head as it draws, and each set's steps.

    Raises:
        ValueError: a plan that does not fit the model.
    """
    c = model.sizes
    latent = plan.grid or c.latent
    c.check_latent("plan.grid", latent)
    sizes = plan.sizes((latent[0] // c.patch) * (latent[1] // c.patch))
    head = plan.solver_of(model.head)
    steps = plan.steps(len(sizes), getattr(model.head, "steps", None))
    for count in dict.fromkeys(steps):
        check_plan(head, plan.guidance.at(1), plan.temperature, count)
    return latent, sizes, head, steps


def motion_numbers(
    model: Nova,
    batch: int,
    flow: Numbers,
    fps: Numbers,
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
    for name, value, default in (("motion_flow", flow, 5.0), ("fps", fps, 12.0)):
        value = default if value is None else value
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


def _frames(call: _Call, monitor: Monitor) -> Iterator[Float[Tensor, "b c h w"]]:
    """Yield all frames, chunk after chunk: each goes on from the last frames of the one before."""
    frames, overlap = call.plan.frames, call.plan.overlap
    done, context = 0, call.context
    with monitor:
        while done < frames:
            given = overlap if done else 0  # which the caller has already
            latest: deque[Tensor] = deque(maxlen=overlap)
            one = replace(call, context=context, first=done - given)
            for frame in islice(_chunk(one, monitor), frames - one.first):
                latest.append(frame)
                if given:
                    given -= 1
                    continue
                done += 1
                yield frame.clone()  # the caller may change what it gets
            context = torch.stack(list(latest), dim=2) if done < frames else None


def _chunk(call: _Call, monitor: Monitor) -> Iterator[Float[Tensor, "b c h w"]]:
    """Yield frame after frame: what the temporal tower makes of those before, then its sets."""
    prefix, places, cache = _begin(call)
    given = 0 if call.context is None else call.context.shape[2]
    previous = anchor = schedule = None
    for t in range(call.clip_frames):
        features = _observe(call, prefix, cache, t, previous)
        condition, anchor = _anchored(call.model, anchor, features)
        if call.context is not None and t < given:
            previous = call.context[:, :, t]
        else:
            schedule = _schedule(call) if schedule is None else schedule
            previous = _draw_frame(call, condition, places, schedule, call.first + t, monitor)
        yield previous


@torch.no_grad()  # of each part, not around the yields, which run in the caller's mode
def _begin(call: _Call) -> tuple[Tensor, tuple[Positions, Positions], KVCache]:
    """Return the tokens before the first frame, the places of a frame's tokens, and a cache."""
    prefix = call.model.prefix(call.text, call.flow, call.fps)
    window, frames = call.plan.window, call.clip_frames
    pinned = call.plan.pinned if window else 0
    blocks = min(frames, window + pinned) if window else frames
    capacity = prefix.shape[1] + blocks * call.coarse[0] * call.coarse[1]
    tower = call.model.temporal
    cache = tower.allocate_cache(len(call.text), capacity, window=window, pinned=pinned)
    return prefix, call.model.token_positions(call.grid), cache


@torch.no_grad()
def _observe(
    call: _Call, prefix: Tensor, cache: KVCache, t: int, previous: Tensor | None
) -> Float[Tensor, "b2 n d"]:
    """Return the temporal tower's features of frame t, which sees the frame before it."""
    model, first = call.model, t == 0
    if previous is not None and (level := call.plan.context_noise):
        drawn = normal(*previous.shape, generator=call.generator, device=previous.device)
        previous = previous + level * drawn
    before = None if previous is None else previous[:, :, None]
    x = model.frame_tokens(before, call.batch, call.coarse[0] * call.coarse[1])
    length = prefix.shape[1] if first else 0
    added, turn = model.frame_positions(call.clip_frames, call.coarse, length, frame=t)
    x = x if added is None else x + added
    x = x.repeat(len(call.text) // call.batch, 1, 1, 1)
    options: Any = {"turn": turn, "cache": cache, "backend": call.backend}
    return model.temporal(x, prefix=prefix if first else None, **options)[:, 0]


@torch.no_grad()
def _anchored(model: Nova, anchor: Tensor | None, features: Tensor) -> tuple[Tensor, Tensor]:
    """Return a frame's condition and the anchor: the first frame's features are both."""
    return (features, features) if anchor is None else (model.adapt(anchor, features), anchor)


def _schedule(call: _Call) -> SetSchedule:
    """Return the one schedule for all frames, whose order is drawn with the first one generated."""
    order, device = call.order, call.model.begin.device
    if order is None:
        options: Any = {"generator": call.generator, "device": device}
        order = call.plan.draw_order(call.batch, call.grid, **options)
    return SetSchedule(order, call.sizes)


@torch.no_grad()
def _draw_frame(
    call: _Call,
    condition: Tensor,
    places: tuple[Positions, Positions],
    schedule: SetSchedule,
    t: int,
    monitor: Monitor,
) -> Float[Tensor, "b c h w"]:
    """Fill a frame's tokens, set by set."""
    c, device = call.model.sizes, call.model.begin.device
    shape = (call.batch, call.grid[0] * call.grid[1], c.patch**2 * c.channels)
    tokens = torch.zeros(shape, dtype=torch.float32, device=device)
    if call.graphs is not None:  # which other generations may have had in between
        call.graphs.bind(call.model)
    frame = _FrameNetwork(call, condition, places)
    passes = guided_passes(
        frame, call.plan, call.batch, guided=frame.guided, allocate=frame.allocate
    )
    for step in schedule:
        monitor.before()
        noise = _FrameNoise(call, step)
        if call.graphs is None:
            drawn = _draw_set(call, passes(tokens, step), step, noise)
        else:
            drawn = frame.replay(call.graphs, tokens, step, noise)
        tokens = fill(tokens, step.current, drawn)
        monitor.after(Progress(t, call.plan.frames, step.index, step.sets, tokens.clone()))
    return unpatchify(tokens, call.grid, c.patch)


def _draw_set(call: _Call, z: Tensor, step: SetStep, noise: Noise) -> Float[Tensor, "b m c"]:
    """Return a set's tokens, given its conditions z, [passes * b, m, d]."""
    guidance = _guidance(call.plan, step)
    whole = guidance.renorm_over == "frame" and isinstance(call.head, DiffusionHead)
    options: Any = {"frame": call.grid[0] * call.grid[1]} if whole else {}
    return call.head.sample(
        z[: call.batch],
        uncond=z[call.batch :] if len(z) > call.batch else None,
        guidance=guidance,
        temperature=call.plan.temperature,
        noise=noise,
        steps=call.steps[step.index],
        **options,
    )


def _guidance(plan: GenerationPlan, step: SetStep) -> Guidance:
    return plan.guidance.at((step.index + 1) / step.sets)


@dataclass(frozen=True)
class _FrameNetwork:
    """The spatial tower of one frame, as `guided_passes` calls it."""

    call: _Call
    condition: Tensor  # [passes * b, p, d]
    places: tuple[Positions, Positions]

    def __call__(
        self, tokens: Tensor, step: SetStep, rows: Tensor, part: slice, memory: Any
    ) -> Tensor:
        prefix = self.condition[part]
        return self._z(tokens, prefix, step.known, rows, self.places, memory)

    def guided(self, step: SetStep) -> bool:
        """Return whether guidance acts in a set."""
        return _guidance(self.call.plan, step).scale > 1

    def allocate(self, count: int) -> SpatialMemory:
        """Return an empty memory for so many samples."""
        tokens = self.call.grid[0] * self.call.grid[1]
        return self.call.model.spatial.allocate_memory(count, tokens, self.condition.shape[1])

    def replay(
        self, graphs: Graphs, tokens: Tensor, step: SetStep, noise: Noise
    ) -> Float[Tensor, "b m c"]:
        """Return a set's tokens, tower and head in one graph."""
        call = self.call
        prefix = self.condition if self.guided(step) else self.condition[: call.batch]
        added = [x for half in self.places for x in (half.add, half.turn) if x is not None]

        def compute(
            noise: Noise,
            tokens: Tensor,
            prefix: Tensor,
            known: Tensor,
            rows: Tensor,
            *added: Tensor,
        ) -> Tensor:
            given = iter(added)
            encoder, decoder = (
                Positions(*(None if x is None else next(given) for x in (half.add, half.turn)))
                for half in self.places
            )
            z = self._z(tokens, prefix, known, rows, (encoder, decoder), None)
            return _draw_set(call, z, step, noise)

        plan, drawn = call.plan, call.plan.draws_by(call.head, call.steps[step.index])
        kind = (_guidance(plan, step), plan.temperature, drawn, call.backend)
        return graphs(kind, compute, noise, tokens, prefix, step.known, step.current, *added)

    def _z(
        self,
        tokens: Tensor,
        prefix: Tensor,
        known: Tensor,
        rows: Tensor,
        places: tuple[Positions, Positions],
        memory: SpatialMemory | None,
    ) -> Tensor:
        times = len(prefix) // self.call.batch
        known, rows = (ids.repeat(times, 1) for ids in (known, rows))
        options: Any = {"positions": places, "memory": memory, "backend": self.call.backend}
        return self.call.model.spatial(
            tokens.repeat(times, 1, 1), prefix, known, rows=rows, **options
        )


class _FrameNoise(Noise):
    """Noise as the official code draws it: of the whole frame, of which a set takes its tokens."""

    def __init__(self, call: _Call, step: SetStep) -> None:
        super().__init__(call.generator, call.model.begin.device)
        c = call.model.sizes
        self.shape, self.patch = (call.batch, c.channels, *call.latent), c.patch
        self.step = step

    def normal(self, *shape: int) -> Tensor:
        """Return the tokens of the set, or, if all are asked for, the set's, then the others."""
        step, batch, tokens = self.step, self.shape[0], self.step.current.shape[1]
        whole = tokens + step.known.shape[1] + step.remaining.shape[1]
        values = self.shape[1] * self.patch**2
        if shape not in ((batch, tokens, values), (batch, whole, values)):
            return super().normal(*shape)
        ids = step.current
        if shape[1] > tokens:
            ids = torch.cat([step.current, step.known, step.remaining], dim=1)
        return take(patchify(super().normal(*self.shape), self.patch), ids)
