"""What a generation is asked for: checked once, with what None means filled in."""

from dataclasses import dataclass
from typing import Any

import torch

from contar._errors import bad, check_instance, check_tensor
from contar._random import Generators, check_generator
from contar._typing import Bool, Float, Int, Tensor
from contar.attention import check_backend
from contar.conditioning import Guidance
from contar.generation import GenerationPlan, Graphs
from contar.heads import TokenHead, check_plan
from contar.ordering import SetSchedule, SetStep, kept_first
from contar.tokenizers import patchify
from recipes._mar.network import Mar

PLAN = GenerationPlan(sets=64, guidance=Guidance(3.0, start=1.0), rounding="floor")
"""The plan of the official evaluation: guidance that rises with the share of tokens known, set
sizes rounded down, IDDPM. Change it with `dataclasses.replace`.
"""


@dataclass(frozen=True)
class Call:
    """What a generation is asked for."""

    model: Mar
    plan: GenerationPlan
    head: TokenHead  # as it draws
    sizes: tuple[int, ...]  # of the sets
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
        given = order.shape[1] - sum(self.sizes)
        ids = [ids.sort(dim=1).values for ids in order.split((given, *self.sizes), dim=1)]
        return SetSchedule(torch.cat(ids, dim=1), self.sizes, given)

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
    for count in dict.fromkeys(steps):
        guidance, temperature = plan.guidance.at(1), plan.temperature_at(0)
        check_plan(head, guidance, temperature, count, "plan.diffusion_steps")
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
    for name in ("window", "times", "chunk"):
        if (value := getattr(plan, name)) is not None:
            raise bad(f"plan.{name}", value, "None: this model makes images")
    if len(set(plan.temperatures)) > 1:
        raise bad("plan.temperature", plan.temperature, "one number: this model makes images")
    latent = model.sizes.latent
    if plan.grid is not None and tuple(plan.grid) != latent:
        raise bad("plan.grid", plan.grid, f"None or {latent}: positions are learned")
    if plan.guidance.renorm < 1 and plan.guidance.renorm_over == "frame":
        raise bad("plan.guidance.renorm_over", "frame", "'tokens', those of a set")
