"""NOVA's generation: which conditions, orders and draws the loops of `contar.generation` get."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from contar._errors import bad, check_instance, check_number, check_tensor, plain
from contar._random import Generators, check_generator, normal
from contar._typing import Float, Int, Tensor
from contar.attention import Positions
from contar.attention.attend import check_backend
from contar.backbones.block import take
from contar.conditioning import Guidance
from contar.diffusion import SamplerTable
from contar.generation import (
    GenerationPlan,
    Graphs,
    Monitor,
    Progress,
    generate_frames,
    generate_sets,
    guided_passes,
)
from contar.ordering import SetSchedule, SetStep
from contar.tokenizers import patchify, unpatchify
from recipes.nova_model import Nova

UNSET = -1.0  # the motion score of clips whose score was not said, in training that leaves it out
Texts = Float[Tensor, "b l e"] | Sequence[Float[Tensor, "_ e"]]
Numbers = float | Sequence[float] | Float[Tensor, " b"] | None  # in training, perhaps on a GPU


@dataclass(frozen=True)
class _Inputs:
    """What `stream` has checked."""

    text: Tensor  # [passes * b, l, e]
    flow: Tensor | None  # [passes * b]
    fps: Tensor | None
    context: Tensor | None
    order: Tensor | None
    generator: Generators
    tables: tuple[SamplerTable, ...]  # of each set
    sizes: tuple[int, ...]
    latent: tuple[int, int]
    batch: int
    backend: Any
    graphs: Graphs | None


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
    for each token, whose sorting is the order in all frames; then a normal [b, c, h, w] for each
    set, and one for each diffusion step that adds noise. With `plan.context_noise` a normal
    [b, c, h, w] comes before all that is drawn for a frame, but the first.

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
            generation by the same model. A plan that reuses features goes without it.

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
        graphs.bind(model)
    latent, sizes, tables = read_plan(model, plan)
    tokens = sum(sizes)
    if context is not None:
        check_tensor("context", context, (batch, c.channels, None, *latent), "[b, c, n, h, w]")
        if context.shape[2] > plan.frames:
            raise bad("context", f"{context.shape[2]} frames", f"at most plan.frames={plan.frames}")
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
    inputs = _Inputs(
        text=text,
        flow=None if flow is None else flow.repeat(passes),
        fps=None if rate is None else rate.repeat(passes),
        context=context,
        order=order,
        generator=check_generator(generator, batch, device),
        tables=tables,
        sizes=sizes,
        latent=latent,
        batch=batch,
        backend=backend,
        graphs=graphs,
    )
    given = 0 if context is None else context.shape[2]
    total = (plan.frames - given) * len(sizes)
    monitor = Monitor(total, progress=progress, callback=callback, cancel=cancel)
    return _frames(model, plan, inputs, monitor)


def read_plan(
    model: Nova, plan: GenerationPlan
) -> tuple[tuple[int, int], tuple[int, ...], tuple[SamplerTable, ...]]:
    """Return the grid of latent frames, the set sizes and each set's solver of a plan.

    Raises:
        ValueError: a plan that does not fit the model.
    """
    c = model.sizes
    latent = plan.grid or c.latent
    c.check_latent("plan.grid", latent)
    sizes = plan.sizes((latent[0] // c.patch) * (latent[1] // c.patch))
    scheduler = c.scheduler if plan.scheduler is None else plan.scheduler
    tables = plan.solvers(
        lambda steps: SamplerTable.from_config(scheduler, steps, flow_shift=plan.flow_shift),
        len(sizes),
    )
    for table in tables:
        model.head.check_solver(table, plan.guidance.at(1), plan.temperature)
    return latent, sizes, tables


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


def _frames(
    model: Nova, plan: GenerationPlan, inputs: _Inputs, monitor: Monitor
) -> Iterator[Float[Tensor, "b c h w"]]:
    c, device, batch = model.sizes, model.begin.device, inputs.batch
    height, width = inputs.latent
    grid = (height // c.patch, width // c.patch)
    coarse = (grid[0] // 2, grid[1] // 2)
    block = coarse[0] * coarse[1]
    passes = len(inputs.text) // batch

    with torch.no_grad():  # not around the yields below, which run in the caller's mode
        prefix = model.prefix(inputs.text, inputs.flow, inputs.fps)
        length = prefix.shape[1]
        places = model.token_positions(grid)
    window, pinned = plan.window, plan.pinned if plan.window else 0
    blocks = min(plan.frames, window + pinned) if window else plan.frames
    capacity = length + blocks * block
    cache = model.temporal.allocate_cache(passes * batch, capacity, window=window, pinned=pinned)

    @torch.no_grad()
    def observe(t: int, previous: Tensor | None, anchor: Tensor | None) -> tuple[Tensor, Tensor]:
        before = None if previous is None else previous[:, :, None]
        if before is not None and plan.context_noise:
            shape = (batch, c.channels, height, width)
            fresh = normal(*shape, generator=inputs.generator, device=device)[:, :, None]
            before = before + plan.context_noise * fresh
        x = model.frame_tokens(before, batch, block)
        before_it = length if t == 0 else 0
        added, turn = model.frame_positions(plan.frames, coarse, before_it, frame=t)
        x = x if added is None else x + added
        out = model.temporal(
            x.repeat(passes, 1, 1, 1),
            prefix=prefix if t == 0 else None,
            turn=turn,
            cache=cache,
            backend=inputs.backend,
        )[:, 0]
        return (out, out) if anchor is None else (model.adapt(anchor, out), anchor)

    def frame_noise() -> Tensor:
        shape = (batch, c.channels, height, width)
        return patchify(normal(*shape, generator=inputs.generator, device=device), c.patch)

    def draw_frame(t: int, condition: Tensor, schedule: SetSchedule) -> Tensor:
        def at(step: SetStep) -> Guidance:
            return plan.guidance.at((step.index + 1) / step.sets)

        def network(
            tokens: Tensor, step: SetStep, rows: Tensor, part: slice, memory: Any
        ) -> Tensor:
            prefix = condition[part]
            times = len(prefix) // batch
            return model.spatial(
                tokens.repeat(times, 1, 1),
                prefix,
                step.known.repeat(times, 1),
                positions=places,
                rows=rows.repeat(times, 1),
                memory=memory,
                backend=inputs.backend,
            )

        guided_sets = guided_passes(
            network,
            plan,
            batch,
            guided=lambda step: at(step).scale > 1,
            allocate=lambda count: model.spatial.allocate_memory(count, grid[0] * grid[1], block),
        )

        def predict(tokens: Tensor, step: SetStep) -> Tensor:
            monitor.before()
            return tokens if inputs.graphs is not None else guided_sets(tokens, step)

        def drawn_ids(step: SetStep) -> Tensor:
            if at(step).renorm_over == "frame":  # the rest of the frame goes along
                return torch.cat([step.current, step.known, step.remaining], dim=1)
            return step.current

        def replay(graphs: Graphs, tokens: Tensor, step: SetStep) -> Tensor:
            """Return the set's tokens, network and head in one graph."""
            guidance, table, ids = at(step), inputs.tables[step.index], drawn_ids(step)
            added = [x for half in places for x in (half.add, half.turn) if x is not None]

            def compute(
                tokens: Tensor, prefix: Tensor, known: Tensor, current: Tensor, *rest: Tensor
            ) -> Tensor:
                given = iter(rest)
                of_halves = tuple(
                    Positions(*(None if x is None else next(given) for x in (h.add, h.turn)))
                    for h in places
                )
                times = 2 if guidance.scale > 1 else 1
                z = model.spatial(
                    tokens.repeat(times, 1, 1),
                    prefix[: times * batch],
                    known.repeat(times, 1),
                    positions=of_halves,
                    rows=current.repeat(times, 1),
                    backend=inputs.backend,
                )
                return model.head.sample(
                    z[:batch],
                    uncond=z[batch:] if len(z) > batch else None,
                    table=table,
                    guidance=guidance,
                    temperature=plan.temperature,
                    noise=next(given),
                    draw_noise=lambda: next(given),
                )

            noises = [take(frame_noise(), ids) for _ in range(1 + sum(map(bool, table.noise)))]
            kind = (table, guidance, plan.temperature, inputs.backend)
            tensors = (tokens, condition, step.known, step.current, *added, *noises)
            return graphs(kind, compute, *tensors)

        def draw(z: Tensor, step: SetStep) -> Tensor:
            if inputs.graphs is not None:
                return replay(inputs.graphs, z, step)
            guidance, ids = at(step), drawn_ids(step)
            return model.head.sample(
                z[:batch],
                uncond=z[batch:] if len(z) > batch else None,
                table=inputs.tables[step.index],
                guidance=guidance,
                temperature=plan.temperature,
                noise=take(frame_noise(), ids),
                draw_noise=lambda: take(frame_noise(), ids),
            )

        shape = (batch, grid[0] * grid[1], c.patch**2 * c.channels)
        empty = torch.zeros(shape, dtype=torch.float32, device=device)
        tokens = empty
        for step, tokens in generate_sets(predict, draw, schedule, empty):
            seen = tokens.clone()
            monitor.after(Progress(t, plan.frames, step.index, step.sets, seen))
        return unpatchify(tokens, grid, c.patch)

    schedules: list[SetSchedule] = []

    @torch.no_grad()
    def draw_next(t: int, condition: Tensor) -> Tensor:
        if not schedules:  # one order for all frames, drawn when the first one is generated
            order = inputs.order
            if order is None:
                order = plan.draw_order(batch, grid, generator=inputs.generator, device=device)
            schedules.append(SetSchedule(order, inputs.sizes))
        return draw_frame(t, condition, schedules[0])

    with monitor:
        yield from generate_frames(
            observe, draw_next, plan.frames, state=None, context=inputs.context
        )
