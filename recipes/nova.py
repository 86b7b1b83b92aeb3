"""NOVA: autoregressive video generation without vector quantization.

Deng et al., ICLR 2025, arXiv 2412.14169; official code github.com/baaivision/NOVA. A temporal tower
goes from frame to frame, a spatial tower from set to set of a frame's tokens, and a diffusion MLP
draws the tokens.

    model = build("nova-d48w1024-osp480")
    latents = generate(model, text_states, GenerationPlan(frames=9))
"""

from typing import Any

import torch

from contar._errors import (
    bad,
    check_ids,
    check_instance,
    check_size,
    check_tensor,
)
from contar._random import check_generator, normal, uniform
from contar._typing import Float, Int, Tensor
from contar.attention import check_backend
from contar.backbones import take
from contar.conditioning import Guidance
from contar.generation import GenerationPlan, Graphs
from contar.heads import TokenHead
from contar.ordering import TrainingMask, truncated_normal_mask
from contar.tokenizers import patchify
from contar.training import FrameLosses, frame_losses
from recipes.building import build_model
from recipes.headed import learning_head
from recipes.nova_config import PRESETS, NovaConfig, Tower
from recipes.nova_files import from_pretrained
from recipes.nova_inputs import read_noise
from recipes.nova_model import Nova
from recipes.nova_pipeline import NovaOutput, NovaPipeline
from recipes.nova_sampling import UNSET, Numbers, Texts, generate, motion_numbers, stream

__all__ = [
    "PRESETS",
    "UNSET",
    "GenerationPlan",
    "Graphs",
    "Guidance",
    "Nova",
    "NovaConfig",
    "NovaOutput",
    "NovaPipeline",
    "Tower",
    "build",
    "from_pretrained",
    "frozen_parts",
    "generate",
    "stream",
    "training_losses",
]


def frozen_parts(model: Nova, *, images: bool = False) -> tuple[str, ...]:
    """Return what the official training keeps fixed, as names for `contar.training.freeze`.

    Args:
        model: a NOVA; parts that it does not have are left out.
        images: for the first stage, on images, which also keeps what tells frames apart.
    """
    names = ["motion", "times", "embed"] if images else ["motion"]
    return "text.norm", *(name for name in names if getattr(model, name) is not None)


def build(
    preset: str | NovaConfig = "nova-d48w1024-osp480",
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    compile: bool = False,
    head: TokenHead | None = None,
) -> Nova:
    """Build a NOVA with random weights.

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
        >>> model = build("nova-d48w1024-osp480", device="meta")
        >>> sum(p.numel() for p in model.parameters()) // 10**6
        644
    """
    options: Any = {"device": device, "dtype": dtype, "compile": compile, "head": head}
    return build_model(Nova, preset, PRESETS, **options)


def training_losses(
    model: Nova,
    latents: Float[Tensor, "b c t h w"],
    prompt_embeds: Texts,
    *,
    motion_flow: Numbers = None,
    fps: Numbers = None,
    repeats: int = 4,
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
) -> FrameLosses:
    """Return the losses of one training step, as the official code weighs them.

    Args:
        model: a NOVA.
        latents: [b, c, t, h, w], clips; t = 1 for images.
        prompt_embeds: states of a text encoder, as in `stream`.
        motion_flow: optical flow score, as in `stream`.
        fps: frames per second, as in `stream`.
        repeats: draws of noise and timestep for each hidden token.
        scheduler: config of a diffusers scheduler that a diffusion head learns by; None is its own.
        mask: hidden and visible tokens of each frame, b * t rows, instead of a draw with one hidden
            share for the whole batch.
        generator: draws mask, noise and timesteps where they are not given.
        noise: [repeats, m, values] for the m hidden tokens, in the order of `mask.hidden`; of a
            diffusion head, as `index`.
        index: [repeats, m], indices of training timesteps.
        context_noise: deviation of gaussian noise on what the temporal tower sees of earlier
            frames, or the least and the largest one, between which each clip's is drawn; it makes
            a model forgiving of its own frames. The network is not told. Drawn, from `generator`
            before all else, only where it is above 0.
        seen: [b, c, t - 1, h, w], what the temporal tower sees of the frames but the last, instead
            of them with noise.
        given: [b], first frames of each clip that are shown and not learned, fewer than t; None is
            0. Losses are averaged as if theirs were 0.
        backend: of `attend`.
        checkpoint: keep the input of each block of the towers only, and compute the block again for
            its gradients: less memory for more time, the same numbers.

    Raises:
        ValueError: an argument that does not fit the model or the others.
    """
    check_instance("model", model, Nova)
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
    grid = (height // c.patch, width // c.patch)
    coarse = (grid[0] // 2, grid[1] // 2)
    rows, tokens = batch * frames, grid[0] * grid[1]
    check_size("repeats", repeats)
    generator = check_generator(generator, batch, device)  # type: ignore[assignment]
    if not isinstance(generator, torch.Generator):
        raise bad("generator", f"a list of {batch}", "one torch.Generator for the whole step")
    low, high = read_noise(context_noise)
    if seen is not None:
        if high:
            raise bad("context_noise", context_noise, "0 where `seen` says what is seen")
        shape = (batch, c.channels, frames - 1, height, width)
        check_tensor("seen", seen, shape, "[b, c, t - 1, h, w]")
    if given is not None:
        check_tensor("given", given, (batch,), "[b]", kind="int")
        check_ids("given", given, frames)
    for name, value in (("seen", seen), ("given", given)):
        if value is not None and value.device != device:
            raise bad(name, f"a tensor on {value.device}", f"one on {device}")
    if high and frames > 1:
        level = low + (high - low) * uniform(batch, 1, 1, 1, 1, generator=generator, device=device)
        before = latents[:, :, :-1]
        fresh = normal(*before.shape, generator=generator, device=device)
        seen = before + (level * fresh).to(before.dtype)
    if mask is None:
        mask = truncated_normal_mask(rows, tokens, generator=generator, device=device)
    else:
        check_instance("mask", mask, TrainingMask)
        mask.check(rows, tokens, device)
    hidden_ids = mask.hidden_ids()
    # Where rows have equally many, no GPU is asked how many there are.
    count = int(mask.hidden.sum()) if hidden_ids is None else hidden_ids.numel()
    head, drawn = learning_head(
        model.head, repeats, count, scheduler=scheduler, noise=noise, index=index
    )

    prefix = model.prefix(text, flow, rate)
    x = model.frame_tokens(None, batch, coarse[0] * coarse[1])
    if frames > 1:
        seen = latents[:, :, :-1] if seen is None else seen
        x = torch.cat([x, model.frame_tokens(seen, batch, x.shape[2])], dim=1)
    added, turn = model.frame_positions(frames, coarse, prefix.shape[1])
    x = x if added is None else x + added
    features = model.temporal(x, prefix=prefix, turn=turn, backend=backend, checkpoint=checkpoint)
    anchor, later = features[:, :1], features[:, 1:]
    condition = torch.cat([anchor, model.adapt(anchor, later)], dim=1)

    clean = patchify(latents.transpose(1, 2), c.patch).flatten(0, 1)
    z = model.spatial(
        clean,
        condition.flatten(0, 1),
        mask.visible_ids,
        positions=model.token_positions(grid),
        filled=mask.filled,
        rows=hidden_ids,
        backend=backend,
        checkpoint=checkpoint,
    )
    row = torch.arange(rows, device=device)[:, None]
    if hidden_ids is None:
        target, z, row = (x[mask.hidden] for x in (clean, z, row.expand(rows, tokens)))
    else:  # as above
        target, z = take(clean, hidden_ids).flatten(0, 1), z.flatten(0, 1)
        row = row.expand_as(hidden_ids).flatten()
    losses = head.loss(
        target,
        z,
        repeats=repeats,
        generator=generator,
        **drawn,
    )
    if given is not None:
        losses = losses * (row % frames >= given[row // frames])
    return frame_losses(losses, row % frames, frames)
