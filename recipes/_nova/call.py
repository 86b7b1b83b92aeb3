"""What a generation is asked for: checked once, with what None means filled in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from contar._errors import bad, check_instance, check_number, check_tensor
from contar._random import Generators, check_generator
from contar._typing import Bool, Float, Int, Tensor
from contar.attention import check_backend
from contar.generation import GenerationPlan, Graphs
from contar.ordering import SetSchedule, kept_first
from contar.tokenizers import patchify
from recipes._nova.motion import Numbers, motion_numbers
from recipes._nova.network import Nova
from recipes._nova.settings import Settings, read_keep, read_order, read_plan, read_timeline

Texts = Float[Tensor, "b l e"] | Sequence[Float[Tensor, "_ e"]]
Timeline = Sequence[tuple[int, Texts]]  # from which frame on


@dataclass(frozen=True)
class Call(Settings):
    """What a generation is asked for."""

    batch: int
    # Conditional, then unconditional where guidance may act, and from which frame on.
    texts: tuple[tuple[int, Float[Tensor, "b2 l e"]], ...]
    flow: Float[Tensor, " b2"] | None
    fps: Float[Tensor, " b2"] | None
    context: Float[Tensor, "b c n h w"] | None
    latents: Float[Tensor, "b c t h w"] | None  # of which the tokens of `keep` are given
    keep: Bool[Tensor, "t m"] | None
    frame_sizes: tuple[tuple[int, ...], ...]  # of each frame's sets; none where all of it is given
    order: Int[Tensor, "b m"] | None
    generator: Generators
    graphs: Graphs | None
    backend: Any = None
    first: int = 0  # frame of the whole that a chunk begins with

    def text_at(self, t: int) -> Float[Tensor, "b2 l e"]:
        """Return the text under which frame t of the chunk is read.

        Of its given first frames it is that of the first one which is made.
        """
        frame = self.first + max(t, self.given)
        return [text for start, text in self.texts if start <= frame][-1]

    @property
    def given(self) -> int:
        """How many first frames of the chunk are given."""
        if self.context is not None:
            return self.context.shape[2]
        sizes = self.frame_sizes[self.first :]
        return next((t for t, sets in enumerate(sizes) if sets), len(sizes))

    @property
    def sets(self) -> int:
        """How many sets there are in all."""
        return sum(map(len, self.frame_sizes))

    def given_frame(self, t: int) -> Float[Tensor, "b c h w"] | None:
        """Return frame t of the chunk if all of it is given."""
        if self.context is not None and t < self.context.shape[2]:
            return self.context[:, :, t]
        whole = self.latents is not None and not self.frame_sizes[self.first + t]
        return self.latents[:, :, self.first + t] if whole else None  # type: ignore[index]

    def begin_frame(
        self, t: int, order: Int[Tensor, "b m"]
    ) -> tuple[Float[Tensor, "b m c"], SetSchedule]:
        """Return the given tokens of frame t, else 0, and the sets in which the rest is made."""
        c, t = self.model.sizes, self.first + t
        sizes = self.frame_sizes[t]
        if self.latents is None or self.keep is None:
            shape = (self.batch, self.tokens, c.token_dim)
            dtype = torch.float32 if self.context is None else self.context.dtype
            tokens = torch.zeros(shape, dtype=dtype, device=order.device)
        else:
            keep = self.keep[t]
            tokens = patchify(self.latents[:, :, t], c.patch).masked_fill(~keep[:, None], 0)
            order = kept_first(order, keep)
        return tokens, SetSchedule(order, sizes, self.tokens - sum(sizes))


def read_call(
    model: Nova,
    plan: GenerationPlan,
    *,
    prompt_embeds: Texts | Timeline,
    negative_prompt_embeds: Texts | None,
    motion_flow: Numbers,
    fps: Numbers,
    context: Float[Tensor, "b c n h w"] | None,
    latents: Float[Tensor, "b c t h w"] | None,
    keep: Bool[Tensor, "*t h2 w2"] | None,
    order: Int[Tensor, "b m"] | None,
    generator: Generators | None,
    backend: Any,
    graphs: Graphs | None,
) -> Call:
    """Return what `nova.stream` is asked for; its errors are raised here."""
    check_instance("plan", plan, GenerationPlan)
    c, device = model.sizes, model.begin.device
    timeline = read_timeline("prompt_embeds", prompt_embeds, plan, plan.frames)
    batch = model.text.check("prompt_embeds", timeline[0][1])
    for frame, embeds in timeline[1:]:
        if (count := model.text.check("prompt_embeds", embeds)) != batch:
            got = f"{count} texts from frame {frame} on"
            raise bad("prompt_embeds", got, f"{batch}, as before")
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
    if latents is not None or keep is not None:
        keep = read_keep(settings, batch, latents, keep, context)
    order = read_order(settings, order, batch)
    motion = motion_numbers(model, batch, motion_flow, fps)
    name, negative = "negative_prompt_embeds", negative_prompt_embeds
    if negative is not None and (count := model.text.check(name, negative)) != batch:
        raise bad(name, f"{count} texts", f"{batch}, one for each prompt")
    return make_call(
        settings, timeline, negative, motion, context=context, latents=latents, keep=keep,
        order=order, generator=check_generator(generator, batch, device), backend=backend,
        graphs=graphs,
    )  # fmt: skip


def make_call(
    settings: Settings,
    timeline: Timeline,
    negative: Float[Tensor, "b l2 e"] | Sequence[Float[Tensor, "_ e"]] | None,
    motion: tuple[Tensor | None, Tensor | None],
    *,
    context: Float[Tensor, "b2 c n h w"] | None,
    order: Int[Tensor, "b2 m"] | None,
    latents: Float[Tensor, "b2 c t h w"] | None = None,
    keep: Bool[Tensor, "t h2 w2"] | None = None,
    copies: int = 1,
    **others: Any,
) -> Call:
    """Return a call of what was checked before, where the model is now, which may be offloaded.

    There are copies of each text; the negative ones left out are empty.
    """
    plan, text, device = settings.plan, settings.model.text, settings.model.begin.device
    texts = [(t, text.pad(states).repeat_interleave(copies, 0)) for t, states in timeline]
    batch = len(texts[0][1])
    flow, rate, order = (None if x is None else x.to(device) for x in (*motion, order))
    frame_sizes = ((),) * (0 if context is None else context.shape[2])
    frame_sizes += (settings.set_sizes,) * (plan.frames - len(frame_sizes))
    if latents is not None and keep is not None:
        frame_sizes = tuple(map(plan.sizes_around, keep))
        keep = keep.flatten(1).to(device)
        latents = latents.to(keep.device, torch.promote_types(latents.dtype, torch.float32))
    if plan.guidance.active:
        other = text.empty(batch)
        if negative is not None:
            other = text.pad(negative).repeat_interleave(copies, 0)
        texts = [(t, torch.cat([states, other])) for t, states in texts]
        flow, rate = (None if x is None else x.repeat(2) for x in (flow, rate))
    return Call(
        **vars(settings), batch=batch, texts=tuple(texts), flow=flow, fps=rate, context=context,
        latents=latents, keep=keep, frame_sizes=frame_sizes, order=order, **others,
    )  # fmt: skip


@torch.no_grad()
def mix(
    model: Nova,
    prompt_embeds: Texts,
    others: Float[Tensor, "b l2 e"] | Sequence[Float[Tensor, "_ e"]],
    weight: float,
) -> Float[Tensor, "b length e"]:
    """Return states between those of two prompts each, to be taken for `prompt_embeds`.

    Args:
        model: a NOVA, whose stored rows pad either to `text_length`.
        prompt_embeds: as in `nova.stream`.
        others: of as many prompts.
        weight: in [0, 1]: 0 is `prompt_embeds` and 1 is `others`, to the last bit.

    Raises:
        ValueError: states that `nova.stream` refuses, others of another number, or another weight.
    """
    check_instance("model", model, Nova)
    count = model.text.check("prompt_embeds", prompt_embeds)
    if model.text.check("others", others) != count:
        raise bad("others", f"{len(others)} texts", f"{count}, one for each prompt")
    first, second = (model.text.pad(states) for states in (prompt_embeds, others))
    return first.lerp(second, check_number("weight", weight, 0, 1))
