"""What a training step is given: checked once, with what is left to draw drawn."""

from dataclasses import dataclass
from typing import Any

import torch

from contar._errors import bad, check_instance, check_number, check_size, check_tensor
from contar._random import check_generator, normal, uniform
from contar._typing import Float, Int, Tensor
from contar.attention import check_backend
from contar.heads import TokenHead
from contar.ordering import TrainingMask, truncated_normal_mask
from recipes._nova.call import Texts
from recipes._nova.motion import Numbers, motion_numbers
from recipes._nova.network import Nova
from recipes._shared.headed import learning_head


@dataclass(frozen=True)
class Step:
    """A training step."""

    text: Float[Tensor, "b l e"]
    flow: Float[Tensor, " b"] | None
    fps: Float[Tensor, " b"] | None
    seen: Float[Tensor, "b c t2 h w"]  # what the temporal tower sees of the frames but the last
    mask: TrainingMask  # of b * t frames
    hidden_ids: Int[Tensor, "b2 m"] | None  # None where frames hide different numbers of tokens
    head: TokenHead  # as it learns
    head_options: dict[str, Any]  # of its loss


def read_step(
    model: Nova,
    latents: Float[Tensor, "b c t h w"],
    prompt_embeds: Texts,
    *,
    motion_flow: Numbers,
    fps: Numbers,
    repeats: int,
    scheduler: Any = None,
    mask: TrainingMask | None = None,
    generator: torch.Generator | None = None,
    noise: Float[Tensor, "r m d"] | None = None,
    index: Int[Tensor, "r m"] | None = None,
    context_noise: float | tuple[float, float] = 0.0,
    seen: Float[Tensor, "b c t2 h w"] | None = None,
    given: Int[Tensor, " b"] | None = None,
    backend: Any = None,
    checkpoint: bool = False,
) -> Step:
    """Return what `nova.training_losses` is given; its errors are raised here."""
    check_instance("checkpoint", checkpoint, bool)
    c, device = model.sizes, model.device
    batch = model.text.check("prompt_embeds", prompt_embeds)
    text = model.text.pad(prompt_embeds)
    check_tensor("latents", latents, (batch, c.channels, None, None, None), "[b, c, t, h, w]")
    frames, height, width = latents.shape[2:]
    if not frames or latents.device != device:
        got = f"{frames} frames on {latents.device}"
        raise bad("latents", got, f"at least one frame, on {device}")
    check_backend(backend, device)
    c.check_latent("latents", (height, width))
    flow, rate = motion_numbers(model, batch, motion_flow, fps)
    rows, tokens = batch * frames, height // c.patch * (width // c.patch)
    check_size("repeats", repeats)
    draws = check_generator(generator, batch, device)
    if not isinstance(draws, torch.Generator):
        raise bad("generator", f"a list of {batch}", "one torch.Generator for the whole step")
    low, high = read_noise(context_noise)
    if seen is not None and high:
        raise bad("context_noise", context_noise, "0 where `seen` says what is seen")
    _check_shown(latents, seen, given)
    if mask is not None:
        check_instance("mask", mask, TrainingMask)
        mask.check(rows, tokens, device)

    seen = latents[:, :, :-1] if seen is None else seen
    if high and frames > 1:
        level = low + (high - low) * uniform(batch, 1, 1, 1, 1, generator=draws, device=device)
        fresh = normal(*seen.shape, generator=draws, device=device)
        seen = seen + (level * fresh).to(seen.dtype)
    if mask is None:
        mask = truncated_normal_mask(rows, tokens, generator=draws, device=device)
    hidden_ids = mask.hidden_ids()
    # Where rows have equally many, no GPU is asked how many there are.
    count = int(mask.hidden.sum()) if hidden_ids is None else hidden_ids.numel()
    head, drawn = learning_head(
        model.head, repeats, count, scheduler=scheduler, noise=noise, index=index
    )
    options = {"repeats": repeats, "generator": draws, **drawn}
    return Step(text, flow, rate, seen, mask, hidden_ids, head, options)


def _check_shown(latents: Tensor, seen: Tensor | None, given: Tensor | None) -> None:
    batch, channels, frames, *sides = latents.shape
    if seen is not None:
        shape = (batch, channels, frames - 1, *sides)
        check_tensor("seen", seen, shape, "[b, c, t - 1, h, w]")
    if given is not None:
        check_tensor("given", given, (batch,), "[b]", kind="int", below=frames)
    for name, value in (("seen", seen), ("given", given)):
        if value is not None and value.device != latents.device:
            raise bad(name, f"a tensor on {value.device}", f"one on {latents.device}")


def read_noise(level: Any) -> tuple[float, float]:
    """Return the least and the largest deviation of a noise, said by one number or by both.

    Raises:
        ValueError: something else, a number below 0, or a least above the largest.
    """
    if not isinstance(level, tuple):
        level = (level, level)
    if len(level) != 2:
        raise bad("context_noise", level, "a number, or (least, largest)")
    low = check_number("context_noise", level[0], 0)
    return low, check_number("context_noise", level[1], low)
