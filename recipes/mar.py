"""MAR: autoregressive image generation without vector quantization.

Li et al., NeurIPS 2024, arXiv 2406.11838; official code github.com/LTH14/mar. A masked autoencoder,
steered by a class, goes from set to set of a latent's tokens, and a diffusion MLP draws them.

    model = build("mar-base")
    latents = generate(model, torch.tensor([207, 360]))
"""

from typing import Any

import torch

from contar._errors import (
    bad,
    check_ids,
    check_instance,
    check_number,
    check_tensor,
)
from contar._random import Dropout, check_generator, uniform
from contar._typing import Float, Int, Tensor
from contar.attention import check_backend
from contar.conditioning import Guidance
from contar.generation import GenerationPlan, Graphs
from contar.heads import TokenHead
from contar.ordering import TrainingMask, truncated_normal_mask
from contar.tokenizers import patchify
from contar.training import FrameLosses
from recipes.building import build_model
from recipes.headed import learning_head
from recipes.mar_config import PRESETS, MarConfig, official_head
from recipes.mar_files import from_pretrained, load_tokenizer
from recipes.mar_model import Mar
from recipes.mar_sampling import PLAN, generate
from recipes.sizes import Tower

__all__ = [
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

    Args:
        preset: a name in `PRESETS`, or a config.
        device: where the weights are made, the CPU if None; "meta" makes none.
        dtype: of the weights, float32 if None.
        compile: compile what sampling repeats, as the model's `compile` does.
        head: an object of one's own that keeps the protocol `contar.heads.TokenHead`, instead of
            the one that the config names. To be saved and loaded, it is registered
            (`register_head`) and named in the config.

    Raises:
        ValueError: an unknown preset, device or dtype, or a head that does not fit.

    Example:
        >>> model = build("mar-base", device="meta")
        >>> sum(p.numel() for p in model.parameters()) // 10**6
        207
    """
    options: Any = {"device": device, "dtype": dtype, "compile": compile, "head": head}
    return build_model(Mar, preset, PRESETS, **options)


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
    """Return the loss of one training step: of the noise, and of the learned variance.

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
        noise: [repeats, m, values] for the m hidden tokens, in the order of `mask.hidden`.
        index: [repeats, m], training timesteps.
        backend: of `attend`.

    Raises:
        ValueError: an argument that does not fit the model or the others.
    """
    check_instance("model", model, Mar)
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
    generator = check_generator(generator, batch, device)  # type: ignore[assignment]
    if not isinstance(generator, torch.Generator):
        raise bad("generator", f"a list of {batch}", "one torch.Generator for the whole step")
    if mask is None:
        mask = truncated_normal_mask(
            batch, c.tokens, rounding="floor", generator=generator, device=device
        )
    else:
        check_instance("mask", mask, TrainingMask)
        mask.check(batch, c.tokens, device)
    count = int(mask.hidden.sum())
    head, given = learning_head(model.head, repeats, count, noise=noise, index=index)

    labels = labels.to(device)
    if label_drop:
        dropped = uniform(batch, generator=generator, device=device) < label_drop
        labels = labels.masked_fill(dropped, c.classes)
    clean = patchify(latents, c.patch, channel_first=True)
    hidden_ids = mask.hidden_ids()
    options: Any = {"filled": mask.filled, "rows": hidden_ids, "backend": backend}
    options["dropout"] = Dropout(dropout, generator) if dropout else None
    z = model(clean, labels, mask.visible_ids, **options)
    loss = head.loss(
        clean[mask.hidden],
        z[mask.hidden] if hidden_ids is None else z.flatten(0, 1),
        repeats=repeats,
        generator=generator,
        **given,
    ).mean()
    return FrameLosses(loss, loss)
