"""MAR's generation: which conditions and draws the set loop of `contar.generation` gets."""

from collections.abc import Callable
from typing import Any

import torch

from contar._errors import bad, check_ids, check_instance, check_tensor
from contar._random import Generators, check_generator
from contar._typing import Float, Int, Tensor
from contar.attention import check_backend
from contar.conditioning import Guidance
from contar.generation import (
    GenerationPlan,
    Graphs,
    Monitor,
    Progress,
    fill,
    guided_passes,
)
from contar.heads import Noise, check_plan
from contar.ordering import SetSchedule, SetStep
from contar.tokenizers import unpatchify
from recipes.mar_model import Mar

# As the official evaluation has it: guidance that rises with the share of tokens known, set sizes
# rounded down, IDDPM. Change it with `dataclasses.replace`.
PLAN = GenerationPlan(sets=64, guidance=Guidance(3.0, start=1.0), rounding="floor")


def generate(
    model: Mar,
    labels: Int[Tensor, " b"],
    plan: GenerationPlan | None = None,
    *,
    order: Int[Tensor, "b n"] | None = None,
    generator: Generators | None = None,
    progress: bool = False,
    callback: Callable[[Progress], object] | None = None,
    cancel: Callable[[], bool] | None = None,
    backend: Any = None,
    graphs: Graphs | None = None,
) -> Float[Tensor, "b c h w"]:
    """Generate latents, one for each label, in float32.

    Every argument is checked before the first set. Randomness comes from `generator` alone: the
    order, unless it is given; then for each set a normal [b, m, values] for its tokens in raster
    order, and one for each diffusion step that adds noise. A guidance with a `start` rises with the
    share of tokens known when the set is done, but counts one as still hidden at the end, as the
    official code does.

    Args:
        model: a MAR; it is left as it is.
        labels: [b], classes by number; the number of classes itself stands for none.
        plan: sets, diffusion steps, guidance, temperature; None is `PLAN`. Its `scheduler` None
            means IDDPM's own sampler; another has to read a learned variance.
        order: [b, tokens], the order of the tokens; None draws one for each sample.
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
    check_instance("model", model, Mar)
    plan = PLAN if plan is None else plan
    check_instance("plan", plan, GenerationPlan)
    c, device = model.sizes, model.device
    _check_plan(model, plan)
    check_tensor("labels", labels, (None,), "[b]", kind="int")
    check_ids("labels", labels, c.classes + 1)
    batch = len(labels)
    if not batch:
        raise bad("labels", "none", "at least one")
    check_backend(backend, device)
    if graphs is not None:
        plan.check_graphs(graphs)
    sizes = plan.sizes(c.tokens)
    if order is not None:
        plan.check_order()
        check_tensor("order", order, (batch, c.tokens), "[b, tokens]", kind="int")
        order = SetSchedule(order.to(device), sizes).order
    head = plan.solver_of(model.head)
    steps = plan.steps(len(sizes), getattr(model.head, "steps", None))
    for count in dict.fromkeys(steps):
        check_plan(head, plan.guidance.at(1), plan.temperature, count)
    generator = check_generator(generator, batch, device)
    monitor = Monitor(len(sizes), progress=progress, callback=callback, cancel=cancel)
    if order is None:
        order = plan.draw_order(batch, c.grid, generator=generator, device=device)
    # In raster order within a set, as the official code draws noise.
    order = torch.cat([ids.sort(dim=1).values for ids in order.split(sizes, dim=1)], dim=1)
    labels = labels.to(device)
    if plan.guidance.active:
        labels = torch.cat([labels, torch.full_like(labels, c.classes)])

    def at(step: SetStep) -> Guidance:
        hidden = max(1, step.remaining.shape[1])
        return plan.guidance.at((c.tokens - hidden) / c.tokens)

    def network(tokens: Tensor, step: SetStep, rows: Tensor, part: slice, memory: Any) -> Tensor:
        classes = labels[part]
        times = len(classes) // batch
        known, rows = (ids.repeat(times, 1) for ids in (step.known, rows))
        options: Any = {"rows": rows, "memory": memory, "backend": backend}
        return model(tokens.repeat(times, 1, 1), classes, known, **options)

    guided_sets = guided_passes(
        network,
        plan,
        batch,
        guided=lambda step: at(step).scale > 1,
        allocate=model.allocate_memory,
    )

    def draw(z: Tensor, step: SetStep, noise: Noise) -> Tensor:
        return head.sample(
            z[:batch],
            uncond=z[batch:] if len(z) > batch else None,
            guidance=at(step),
            temperature=plan.temperature,
            noise=noise,
            steps=steps[step.index],
        )

    def replay(graphs: Graphs, tokens: Tensor, step: SetStep) -> Tensor:
        """Return the set's tokens, network and head in one graph."""
        times = 2 if at(step).scale > 1 else 1

        def compute(
            noise: Noise, tokens: Tensor, classes: Tensor, known: Tensor, current: Tensor
        ) -> Tensor:
            known, rows = (ids.repeat(times, 1) for ids in (known, current))
            z = model(tokens.repeat(times, 1, 1), classes, known, rows=rows, backend=backend)
            return draw(z, step, noise)

        kind = (at(step), plan.temperature, plan.draws_by(head, steps[step.index]), backend)
        classes = labels[: times * batch]
        return graphs(kind, compute, noise, tokens, classes, step.known, step.current)

    if graphs is not None:
        graphs.bind(model)
    noise = Noise(generator, device)
    tokens = torch.zeros(batch, c.tokens, c.values, dtype=torch.float32, device=device)
    with torch.no_grad(), monitor:
        for step in SetSchedule(order, sizes):
            monitor.before()
            if graphs is None:
                drawn = draw(guided_sets(tokens, step), step, noise)
            else:
                drawn = replay(graphs, tokens, step)
            tokens = fill(tokens, step.current, drawn)
            monitor.after(Progress(0, 1, step.index, step.sets, tokens.clone()))
    return unpatchify(tokens, c.grid, c.patch, channel_first=True)


def _check_plan(model: Mar, plan: GenerationPlan) -> None:
    if plan.frames != 1:
        raise bad("plan.frames", plan.frames, "1: this model makes images")
    for name in ("window", "chunk"):
        if (value := getattr(plan, name)) is not None:
            raise bad(f"plan.{name}", value, "None: this model makes images")
    latent = model.sizes.latent
    if plan.grid is not None and tuple(plan.grid) != latent:
        raise bad("plan.grid", plan.grid, f"None or {latent}: positions are learned")
    if plan.guidance.renorm < 1 and plan.guidance.renorm_over == "frame":
        raise bad("plan.guidance.renorm_over", "frame", "'tokens', those of a set")
