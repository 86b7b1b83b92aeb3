"""What a training step is given: checked once, with what is left to draw drawn."""

from dataclasses import dataclass
from typing import Any

import torch

from contar._errors import bad, check_ids, check_instance, check_number, check_tensor
from contar._random import Dropout, check_generator, uniform
from contar._typing import Float, Int, Tensor
from contar.attention import check_backend
from contar.heads import TokenHead
from contar.ordering import TrainingMask, truncated_normal_mask
from recipes._mar.network import Mar
from recipes._shared.headed import learning_head


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
    check_tensor("labels", labels, (batch,), "[b]", kind="int")
    check_ids("labels", labels, c.classes + 1)
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
