"""What a generation and a training step are given: checked once, with what None means filled in."""

from dataclasses import dataclass
from typing import Any

import torch

from contar._errors import bad, check_instance, check_number, check_tensor
from contar._random import Dropout, Generators, check_generator, uniform
from contar._typing import Bool, Float, Int, Tensor
from contar.attention import check_backend
from contar.conditioning import Guidance
from contar.generation import GenerationPlan, Graphs
from contar.heads import TokenHead, check_draw
from contar.ordering import SetSchedule, SetStep, TrainingMask, kept_first, truncated_normal_mask
from contar.tokenizers import patchify
from recipes._mar.network import Mar
from recipes._shared.headed import learning_head

PLAN = GenerationPlan(sets=64, guidance=Guidance(3.0, start=1.0), rounding="floor")
"""The official code's default of 64 sets, sizes rounded down, guidance that rises with the share of
tokens known. Change it with `dataclasses.replace`: the official evaluation takes 256 sets, and
guidance 2.9 for `mar-base`, 3.0 for `mar-large`, 3.2 for `mar-huge`.
"""


@dataclass(frozen=True)
class Call:
    """What a generation is asked for."""

    model: Mar
    plan: GenerationPlan
    head: TokenHead  # as it draws
    set_sizes: tuple[int, ...]
    steps: tuple[int | None, ...]  # of each set
    batch: int
    labels: Int[Tensor, " b2"] | Float[Tensor, "b2 d"]  # no class follows, where guidance may act
    tokens: Float[Tensor, "b n c"]  # 0 where they are to be made
    keep: Bool[Tensor, " n"] | None
    order: Int[Tensor, "b n"] | None
    generator: Generators
    backend: Any
    graphs: Graphs | None

    def draw_schedule(self) -> SetSchedule:
        """Return the sets of the order that was given, or of one that is drawn now.

        Within a set it is the raster order, as the official code draws noise.
        """
        order = self.order
        if order is None:
            draws: Any = {"generator": self.generator, "device": self.model.device}
            order = self.plan.draw_order(self.batch, self.model.sizes.grid, **draws)
        if self.keep is not None:
            order = kept_first(order, self.keep)
        given = order.shape[1] - sum(self.set_sizes)
        ids = [ids.sort(dim=1).values for ids in order.split((given, *self.set_sizes), dim=1)]
        return SetSchedule(torch.cat(ids, dim=1), self.set_sizes, given)

    def done(self, step: SetStep) -> float:
        """Return the share of tokens known after a set; one counts as hidden at the end."""
        tokens = self.model.sizes.tokens
        return (tokens - max(1, step.remaining.shape[1])) / tokens


def read_call(
    model: Mar,
    plan: GenerationPlan,
    labels: Int[Tensor, " b"] | Float[Tensor, "b d"],
    *,
    latents: Float[Tensor, "b c h w"] | None,
    keep: Bool[Tensor, "h2 w2"] | None,
    order: Int[Tensor, "b n"] | None,
    generator: Generators | None,
    backend: Any,
    graphs: Graphs | None,
) -> Call:
    """Return what `mar.generate` is asked for; its errors are raised here."""
    check_instance("plan", plan, GenerationPlan)
    c, device = model.sizes, model.device
    _check_plan(model, plan)
    model.check_labels(labels)
    batch = len(labels)
    if not batch:
        raise bad("labels", "none", "at least one")
    check_backend(backend, device)
    if graphs is not None:
        plan.check_graphs(graphs)
    sizes = plan.sizes(c.tokens)
    tokens = torch.zeros(batch, c.tokens, c.token_dim, dtype=torch.float32, device=device)
    if latents is not None or keep is not None:
        tokens, keep = _read_keep(model, batch, latents, keep)
        sizes = plan.sizes_around(keep)
        keep = keep.flatten().to(device)
        tokens = tokens.masked_fill(~keep[:, None], 0)
    if order is not None:
        plan.check_order()
        check_tensor("order", order, (batch, c.tokens), "[b, tokens]", kind="int")
        order = SetSchedule(order.to(device), (c.tokens,)).order
    head = plan.solver_of(model.head)
    steps = plan.steps(len(sizes), getattr(model.head, "steps", None))
    guidance = plan.guidance.at(plan.guidance.interval[1])
    for count in dict.fromkeys(steps):
        check_draw(head, guidance, plan.temperature_at(0), count, "plan.diffusion_steps")
    labels = labels.to(device)
    if plan.guidance.active:
        none = torch.full((batch,), c.classes, dtype=torch.int64, device=device)
        labels = torch.cat([labels, none if labels.ndim == 1 else model.embed(none)])
    draws = check_generator(generator, batch, device)
    given = (labels, tokens, keep, order)
    return Call(model, plan, head, sizes, steps, batch, *given, draws, backend, graphs)


def _read_keep(model: Mar, batch: int, latents: Any, keep: Any) -> tuple[Tensor, Tensor]:
    """Return the tokens of latents and which of them are given, the latter on the CPU."""
    c = model.sizes
    for name, value, other in (("keep", keep, "latents"), ("latents", latents, "keep")):
        if value is None:
            raise bad(name, None, f"a tensor, with {other}")
    check_tensor("latents", latents, (batch, c.channels, *c.latent), "[b, c, h, w]")
    check_tensor("keep", keep, c.grid, "[rows, columns]", kind="bool")
    if keep.all():
        raise bad("keep", "all tokens", "at least one to be made")
    latents = latents.to(model.device, torch.promote_types(latents.dtype, torch.float32))
    return patchify(latents, c.patch, channel_first=True), keep.cpu()


def _check_plan(model: Mar, plan: GenerationPlan) -> None:
    if plan.frames != 1:
        raise bad("plan.frames", plan.frames, "1: this model makes images")
    of_videos = {
        "window": None, "pinned": 1, "times": None, "context_noise": 0, "chunk": None, "overlap": 1
    }  # fmt: skip
    for name, left_out in of_videos.items():
        if (value := getattr(plan, name)) != left_out:
            raise bad(f"plan.{name}", value, f"{left_out}: this model makes images")
    if len(set(plan.temperatures)) > 1:
        raise bad("plan.temperature", plan.temperature, "one number: this model makes images")
    latent = model.sizes.latent
    if plan.grid is not None and tuple(plan.grid) != latent:
        raise bad("plan.grid", plan.grid, f"None or {latent}: positions are learned")
    if plan.guidance.renorm < 1 and plan.guidance.renorm_over == "frame":
        raise bad("plan.guidance.renorm_over", "frame", "'tokens', those of a set")


@dataclass(frozen=True)
class Step:
    """A training step."""

    labels: Int[Tensor, " b"]  # some left out
    mask: TrainingMask
    hidden_ids: Int[Tensor, "b m"] | None  # None where samples hide different numbers of tokens
    dropout: Dropout | None
    head: TokenHead  # as it learns
    head_options: dict[str, Any]  # of its loss


def read_step(
    model: Mar,
    latents: Float[Tensor, "b c h w"],
    labels: Int[Tensor, " b"],
    *,
    repeats: int,
    label_drop: float,
    dropout: float,
    mask: TrainingMask | None,
    generator: torch.Generator | None,
    noise: Float[Tensor, "r m d"] | None,
    index: Int[Tensor, "r m"] | None,
    backend: Any,
) -> Step:
    """Return what `mar.training_losses` is given; its errors are raised here."""
    c, device = model.sizes, model.device
    check_tensor("latents", latents, (None, c.channels, *c.latent), "[b, c, h, w]")
    batch = len(latents)
    if not batch or latents.device != device:
        got = f"{batch} samples on {latents.device}"
        raise bad("latents", got, f"at least one sample, on {device}")
    check_tensor("labels", labels, (batch,), "[b]", kind="int", below=c.classes + 1)
    check_number("label_drop", label_drop, 0, 1)
    if check_number("dropout", dropout, 0, 1) == 1:
        raise bad("dropout", dropout, "a number from 0 to below 1")
    if dropout and backend not in (None, "plain"):
        raise bad("backend", backend, "None or 'plain' with dropout")
    check_backend(backend, device)
    draws = check_generator(generator, batch, device)
    if not isinstance(draws, torch.Generator):
        raise bad("generator", f"a list of {batch}", "one torch.Generator for the whole step")
    if mask is None:
        mask = truncated_normal_mask(
            batch, c.tokens, rounding="floor", generator=draws, device=device
        )
    else:
        check_instance("mask", mask, TrainingMask)
        mask.check(batch, c.tokens, device)
    count = int(mask.hidden.sum())
    head, given = learning_head(model.head, repeats, count, noise=noise, index=index)
    labels = labels.to(device)
    if label_drop:
        dropped = uniform(batch, generator=draws, device=device) < label_drop
        labels = labels.masked_fill(dropped, c.classes)
    options = {"repeats": repeats, "generator": draws, **given}
    of_blocks = Dropout(dropout, draws) if dropout else None
    return Step(labels, mask, mask.hidden_ids(), of_blocks, head, options)
