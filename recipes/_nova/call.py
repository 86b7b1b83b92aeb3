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
from recipes._nova.settings import Settings, read_keep, read_order, read_plan
from recipes._nova.timeline import read_timeline

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
        if self.latents is None or self.keep is None:
            shape = (self.batch, self.tokens, c.token_dim)
            tokens = torch.zeros(shape, dtype=torch.float32, device=order.device)
            return tokens, SetSchedule(order, self.sizes)
        keep, sizes = self.keep[t], self.frame_sizes[t]
        tokens = patchify(self.latents[:, :, t], c.patch).masked_fill(~keep[:, None], 0)
        return tokens, SetSchedule(kept_first(order, keep), sizes, self.tokens - sum(sizes))


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
    if latents is not None or keep is not None:
        keep = read_keep(settings, batch, latents, keep, context)
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
    return make_call(
        settings, texts, negative, (flow, rate), context, order, generator, backend, graphs,
        latents=latents, keep=keep,
    )  # fmt: skip


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
    *,
    latents: Float[Tensor, "b c t h w"] | None = None,
    keep: Bool[Tensor, "t h2 w2"] | None = None,
) -> Call:
    """Return a call of what was checked before, where the model is now, which may be offloaded.

    The negative texts left out are empty ones.
    """
    batch, plan, device = len(texts[0][1]), settings.plan, settings.model.begin.device
    flow, rate, order = (None if x is None else x.to(device) for x in (*motion, order))
    frame_sizes = ((),) * (0 if context is None else context.shape[2])
    frame_sizes += (settings.sizes,) * (plan.frames - len(frame_sizes))
    if latents is not None and keep is not None:
        frame_sizes = tuple(map(plan.sizes_around, keep))
        keep = keep.flatten(1).to(device)
        latents = latents.to(keep.device, torch.promote_types(latents.dtype, torch.float32))
    if plan.guidance.active:
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
        latents=latents,
        keep=keep,
        frame_sizes=frame_sizes,
        order=order,
        generator=generator,
        backend=backend,
        graphs=graphs,
    )


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
