"""MAR: autoregressive image generation without vector quantization.

Li et al., NeurIPS 2024, arXiv 2406.11838; official code github.com/LTH14/mar. A masked autoencoder,
steered by a class, goes from set to set of a latent's tokens, and a diffusion MLP draws them.

    model = build("mar-base")
    latents = generate(model, torch.tensor([207, 360]))
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from contar._errors import check_instance, check_number, check_tensor
from contar._random import Generators
from contar._typing import Bool, Float, Int, Tensor
from contar.backbones import SpatialMemory
from contar.conditioning import Guidance
from contar.generation import GenerationPlan, Graphs, Monitor, Progress, fill
from contar.heads import Noise, TokenHead
from contar.ordering import TrainingMask
from contar.tokenizers import patchify, unpatchify
from contar.training import FrameLosses
from recipes._mar.call import PLAN, Call, read_call, read_step
from recipes._mar.config import IDDPM, PRESETS, MarConfig, official_head
from recipes._mar.files import from_pretrained, load_tokenizer
from recipes._mar.network import Mar
from recipes._shared.building import build_model
from recipes._shared.sizes import Tower

__all__ = [
    "IDDPM",
    "PLAN",
    "PRESETS",
    "GenerationPlan",
    "Graphs",
    "Guidance",
    "Mar",
    "MarConfig",
    "Tower",
    "build",
    "from_pretrained",
    "generate",
    "load_tokenizer",
    "mix",
    "official_head",
    "training_losses",
]


def build(
    preset: str | MarConfig = "mar-base",
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    compile: bool = False,
    head: TokenHead | None = None,
) -> Mar:
    """Build a MAR with random weights.

    Arguments and errors are those of `recipes.nova.build`.

    Example:
        >>> model = build("mar-base", device="meta")
        >>> sum(p.numel() for p in model.parameters()) // 10**6
        207
    """
    options: Any = {"device": device, "dtype": dtype, "compile": compile, "head": head}
    return build_model(Mar, preset, PRESETS, **options)


def generate(
    model: Mar,
    labels: Int[Tensor, " b"] | Float[Tensor, "b d"],
    plan: GenerationPlan | None = None,
    *,
    latents: Float[Tensor, "b c h w"] | None = None,
    keep: Bool[Tensor, "h2 w2"] | None = None,
    order: Int[Tensor, "b n"] | None = None,
    generator: Generators | None = None,
    progress: bool = False,
    callback: Callable[[Progress], object] | None = None,
    cancel: Callable[[], bool] | None = None,
    backend: Any = None,
    graphs: Graphs | None = None,
) -> Float[Tensor, "b c h w"]:
    """Generate latents, one for each label: float32, or of the dtype of `latents` if that is wider.

    Every argument is checked before the first set. Randomness comes from `generator` alone: the
    order, unless it is given; then for each set what the head draws for its tokens in raster order,
    as docs/heads.md lists it. A guidance with a `start` rises with the share of tokens known when
    the set is done, but counts one as still hidden at the end, as the official code does.

    Args:
        model: a MAR; it is left as it is.
        labels: [b], classes by number; the number of classes itself stands for none. Or what `mix`
            returns.
        plan: sets, diffusion steps, guidance, temperature; None is `PLAN`, of which others are made
            by `dataclasses.replace`, as the defaults of `GenerationPlan` are NOVA's. Its
            `scheduler` None takes the head's own; of an `official_head` that is IDDPM's sampler,
            and another has to read a learned variance.
        latents: [b, c, h, w], of which some tokens are given and the others made anew.
        keep: [rows, columns], True where the token of `latents` is given, which comes back as it
            is. Guidance with a `start` counts it among the known.
        order: [b, tokens], the order of the tokens; None draws one for each sample.
        generator: one, or one for each sample; a CPU generator works for every device. None is
            freshly seeded.
        progress: show a bar.
        callback: called with a `Progress` after each set.
        cancel: asked before each set; True raises `contar.generation.Cancelled`.
        backend: of `attend`.
        graphs: replays each set's kernels as one CUDA graph.

    Raises:
        ValueError: an argument that does not fit the model, the plan or the others.
    """
    check_instance("model", model, Mar)
    call = read_call(
        model, PLAN if plan is None else plan, labels,
        latents=latents, keep=keep, order=order, generator=generator, backend=backend,
        graphs=graphs,
    )  # fmt: skip
    monitor = Monitor(len(call.set_sizes), progress=progress, callback=callback, cancel=cancel)
    return _draw(call, monitor)


@torch.no_grad()
def _draw(call: Call, monitor: Monitor) -> Float[Tensor, "b c h w"]:
    """Return latents, filled set by set: conditions of the tower, then what the head draws."""
    c, plan, device = call.model.sizes, call.plan, call.model.device
    tokens, schedule = call.tokens, call.draw_schedule()
    noise, memory = Noise(call.generator, device), None
    if call.graphs is not None:  # which other generations may have had in between
        call.graphs.bind(call.model)
    with monitor:
        for step in schedule:
            monitor.before()
            guidance = plan.guidance.at(call.done(step))
            labels = call.labels if guidance.scale > 1 else call.labels[: call.batch]
            if plan.refresh > 1 and (
                step.index % plan.refresh == 0 or memory is None or memory.batch != len(labels)
            ):
                memory = call.model.allocate_memory(len(labels))
            steps = call.steps[step.index]
            draw = partial(_draw_set, call, guidance, steps, memory)
            given = (tokens, labels, step.known, step.current)
            if call.graphs is None:
                drawn = draw(noise, *given)
            else:
                kind = (guidance, plan.temperature_at(0), plan.draws_by(call.head, steps))
                drawn = call.graphs((*kind, call.backend), draw, noise, *given)
            tokens = fill(tokens, step.current, drawn)
            now = (0, 1, step.index, step.sets)
            monitor.after(Progress(*now, tokens.clone(), step.current.clone()))
    return unpatchify(tokens, c.grid, c.patch, channel_first=True)


def _draw_set(
    call: Call, guidance: Guidance, steps: int | None, memory: SpatialMemory | None,
    noise: Noise, tokens: Tensor, labels: Tensor, known: Tensor, current: Tensor,
) -> Float[Tensor, "b m c"]:  # fmt: skip
    """Return a set's tokens: conditions by the spatial tower, each token by the head."""
    passes = len(labels) // call.batch
    tokens, known, current = (torch.cat([x] * passes) for x in (tokens, known, current))
    z = call.model(tokens, labels, known, query_ids=current, memory=memory, backend=call.backend)
    return call.head.sample(
        z[: call.batch],
        uncond=z[call.batch :] if passes > 1 else None,
        guidance=guidance,
        temperature=call.plan.temperature_at(0),
        noise=noise,
        steps=steps,
    )


@torch.no_grad()
def mix(
    model: Mar, labels: Int[Tensor, " b"], others: Int[Tensor, " b"], weight: float
) -> Float[Tensor, "b d"]:
    """Return what steers between two classes each, for `generate` in place of labels.

    Args:
        model: a MAR.
        labels: [b], as in `generate`.
        others: [b], likewise.
        weight: in [0, 1]: 0 is `labels` and 1 is `others`, to the last bit.

    Raises:
        ValueError: labels that `generate` refuses, others of another number, or another weight.
    """
    check_instance("model", model, Mar)
    count = model.sizes.classes + 1
    check_tensor("labels", labels, (None,), "[b]", kind="int", below=count)
    check_tensor("others", others, (len(labels),), "[b]", kind="int", below=count)
    first, second = (model.embed(ids.to(model.device)) for ids in (labels, others))
    return first.lerp(second, check_number("weight", weight, 0, 1))


def training_losses(
    model: Mar,
    latents: Float[Tensor, "b c h w"],
    labels: Int[Tensor, " b"],
    *,
    repeats: int = 4,
    label_drop: float = 0.1,
    dropout: float = 0.0,
    mask: TrainingMask | None = None,
    generator: torch.Generator | None = None,
    noise: Float[Tensor, "r m d"] | None = None,
    index: Int[Tensor, "r m"] | None = None,
    backend: Any = None,
) -> FrameLosses:
    """Return the loss of one training step: the mean of the head's over the hidden tokens.

    That of an `official_head` is of the noise, and of the learned variance.

    Args:
        model: a MAR.
        latents: [b, c, h, w], scaled to a standard deviation of 1.
        labels: [b], classes by number; the number of classes itself stands for none.
        repeats: draws of noise and timestep for each hidden token.
        label_drop: share of the labels that are replaced by none, for guidance.
        dropout: share of the weights of attention, of its results and of the MLPs' activations and
            results that is set to 0, in both towers; 0.1 in the official training.
        mask: hidden and visible tokens of each sample, instead of a draw with one hidden share for
            the whole batch.
        generator: draws the mask, the dropped labels, dropout, noise and timesteps, in this order,
            where they are not given.
        noise: [repeats, m, token_dim] for the m hidden tokens, in the order of `mask.hidden`; of a
            diffusion head, as `index`.
        index: [repeats, m], training timesteps.
        backend: of `attend`.

    Raises:
        ValueError: an argument that does not fit the model or the others.
    """
    check_instance("model", model, Mar)
    step = read_step(
        model, latents, labels, repeats=repeats, label_drop=label_drop, dropout=dropout, mask=mask,
        generator=generator, noise=noise, index=index, backend=backend,
    )  # fmt: skip
    clean = patchify(latents, model.sizes.patch, channel_first=True)
    hidden, ids = step.mask.hidden, step.hidden_ids
    options: Any = {"padding_mask": step.mask.padding_mask, "query_ids": ids, "backend": backend}
    z = model(clean, step.labels, step.mask.visible_ids, dropout=step.dropout, **options)
    z = z[hidden] if ids is None else z.flatten(0, 1)
    loss = step.head.loss(clean[hidden], z, **step.head_options).mean()
    return FrameLosses(loss, loss)
