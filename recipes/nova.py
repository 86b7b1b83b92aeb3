"""NOVA: autoregressive video generation without vector quantization.

Deng et al., ICLR 2025, arXiv 2412.14169; official code github.com/baaivision/NOVA. A temporal tower
goes from frame to frame (section 3.2), a spatial tower from set to set of a frame's tokens, and a
diffusion MLP draws the tokens of a set (section 3.4).

    model = build("nova-d48w1024-osp480")
    latents = generate(model, text_states, GenerationPlan(frames=9))
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from contar._errors import check_instance
from contar._random import Generators, normal
from contar._typing import Bool, Float, Int, Tensor
from contar.attention import Positions
from contar.backbones import SpatialMemory, take
from contar.conditioning import Guidance
from contar.generation import GenerationPlan, Graphs, Monitor, Progress, fill
from contar.heads import Noise, TokenHead
from contar.ordering import TrainingMask
from contar.tokenizers import patchify, unpatchify
from contar.training import FrameLosses, frame_losses
from recipes._nova.call import Call, Texts, Timeline, mix, read_call
from recipes._nova.config import PRESETS, NovaConfig
from recipes._nova.frames import FrameNoise, Sight
from recipes._nova.motion import UNSET, Numbers
from recipes._nova.network import Nova, frozen_parts
from recipes._nova.step import Step, read_step
from recipes._shared.building import build_model
from recipes._shared.sizes import Tower

if TYPE_CHECKING:
    from recipes._nova.files import from_pretrained
    from recipes._nova.pipeline import NovaOutput, NovaPipeline

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
    "mix",
    "stream",
    "training_losses",
]


def __getattr__(name: str) -> Any:
    """Import the pipeline, which is built on this module, when it is asked for."""
    files = {"NovaPipeline": "pipeline", "NovaOutput": "pipeline", "from_pretrained": "files"}
    if name in files:
        return getattr(import_module(f"recipes._nova.{files[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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


def generate(
    model: Nova, prompt_embeds: Texts | Timeline, plan: GenerationPlan | None = None, **options: Any
) -> Float[Tensor, "b c t h w"]:
    """Generate all frames and return them as one tensor; arguments and errors as in `stream`."""
    return torch.stack(list(stream(model, prompt_embeds, plan, **options)), dim=2)


def stream(
    model: Nova,
    prompt_embeds: Texts | Timeline,
    plan: GenerationPlan | None = None,
    *,
    negative_prompt_embeds: Texts | None = None,
    motion_flow: Numbers = None,
    fps: Numbers = None,
    context: Float[Tensor, "b c n h w"] | None = None,
    latents: Float[Tensor, "b c t h w"] | None = None,
    keep: Bool[Tensor, "*t h2 w2"] | None = None,
    order: Int[Tensor, "b m"] | None = None,
    generator: Generators | None = None,
    progress: bool = False,
    callback: Callable[[Progress], object] | None = None,
    cancel: Callable[[], bool] | None = None,
    backend: Any = None,
    graphs: Graphs | None = None,
) -> Iterator[Float[Tensor, "b c h w"]]:
    """Generate latent frames and yield each, [b, c, h, w], as it is finished.

    Frames are float32, or of the dtype of `context` or `latents` if that is wider; they are the
    caller's to change.

    Every argument is checked at the call, before the first frame is asked for. Randomness comes
    from `generator` alone, in the official order: on the first generated frame a uniform number
    for each token, whose sorting is the order in all frames (of a chunk, where there are several);
    then what the head draws for each set, as docs/heads.md lists it, where normal numbers of tokens
    are those of a whole frame, [b, c, h, w]. With `plan.context_noise` such a normal comes before
    all else of each frame but a chunk's first, of those that are given or overlap, too.

    Args:
        model: a NOVA; it is left as it is, so generations may be interleaved.
        prompt_embeds: states of a text encoder, [b, l, e] or one [l, e] for each sample, at most
            `text_length` long; shorter texts are padded with the model's stored rows. Or pairs of
            a latent frame and such states, which hold from it on, the first from frame 0: where
            they change, all frames in sight are read anew under them, as if they were given.
        plan: frames, sets, diffusion steps, guidance; None is `GenerationPlan()`: one frame in 64
            sets.
        negative_prompt_embeds: what guidance leads away from, likewise; None is the empty text.
        motion_flow: optical flow score, one or one for each sample; None is 5, and `UNSET` leaves
            it to the text in a model that was trained so. Videos only.
        fps: frames per second, likewise; None is 12. Videos only.
        context: [b, c, n, h, w], given first frames, yielded as they are: none makes an image or
            video of the text, one goes on from an image, n continue a video.
        latents: [b, c, t, h, w], a video of which some tokens are given and the others made anew.
        keep: [rows, columns] of tokens, of every frame, or [t, rows, columns]: True where the token
            of `latents` is given, which comes back as it is. What is given of later frames informs
            none before them.
        order: [b, tokens], the order of a frame's tokens; None draws one.
        generator: one, or one for each sample; a CPU generator works for every device. None is
            freshly seeded.
        progress: show a bar.
        callback: called with a `Progress` after each set.
        cancel: asked before each set; True raises `contar.generation.Cancelled`.
        backend: of `attend`.
        graphs: replays each set's kernels as one CUDA graph: the caller's, for generation after
            generation by the same model. A plan that reuses features is refused; where the
            temperature changes from frame to frame, each frame of a video has graphs of its own.

    Raises:
        ValueError: an argument that does not fit the model, the plan or the others.
    """
    check_instance("model", model, Nova)
    call = read_call(
        model, GenerationPlan() if plan is None else plan,
        prompt_embeds=prompt_embeds, negative_prompt_embeds=negative_prompt_embeds,
        motion_flow=motion_flow, fps=fps, context=context, latents=latents, keep=keep, order=order,
        generator=generator, backend=backend, graphs=graphs,
    )  # fmt: skip
    monitor = Monitor(call.sets, progress=progress, callback=callback, cancel=cancel)
    return draw_frames(call, monitor)


def draw_frames(call: Call, monitor: Monitor) -> Iterator[Float[Tensor, "b c h w"]]:
    """Yield all frames, chunk after chunk: each goes on from the last frames of the one before."""
    frames, overlap = call.plan.frames, call.plan.overlap
    done, context = 0, call.context
    with monitor:
        while done < frames:
            known = overlap if done else 0  # which the caller has already
            latest: deque[Tensor] = deque(maxlen=overlap)
            chunk = replace(call, context=context, first=done - known)
            for t, frame in enumerate(islice(_chunk(chunk, monitor), frames - chunk.first)):
                latest.append(frame)
                if t >= known:
                    done += 1
                    yield frame.clone()  # the caller may change what it gets
            context = torch.stack(list(latest), dim=2) if done < frames else None


@dataclass
class _State:
    """What goes from frame to frame."""

    positions: tuple[Positions, Positions]  # of a frame's tokens, in the spatial tower's halves
    order: Int[Tensor, "b m"] | None  # None until a frame is drawn, unless it was given
    sight: Sight = field(default_factory=Sight)  # of the temporal tower


def _chunk(call: Call, monitor: Monitor) -> Iterator[Float[Tensor, "b c h w"]]:
    """Yield frame after frame: given, or drawn on what the temporal tower makes of the others."""
    state, frame = _State(call.model.token_positions(call.grid), call.order), None
    for t in range(call.chunk_frames):
        condition = _condition(call, state, t, frame)
        frame = call.given_frame(t)
        if frame is None:
            frame = _draw_frame(call, state, condition, t, monitor)
        yield frame


@torch.no_grad()  # of each part, not around the yields, which run in the caller's mode
def _condition(call: Call, state: _State, t: int, previous: Tensor | None) -> Tensor:
    """Return what steers frame t, [b2, n, d]: the temporal tower's features (section 3.2), or of a
    later frame the first one's, scaled and shifted by its own (section 3.3)."""
    model, noise = call.model, call.plan.context_noise
    if previous is not None and noise:
        drawn = normal(*previous.shape, generator=call.generator, device=previous.device)
        previous = previous + noise * drawn
    seen = None if previous is None else previous[:, :, None]
    x = model.frame_tokens(seen, call.batch, call.coarse[0] * call.coarse[1])
    anchor, features = state.sight.look(call, t, x)
    return anchor if t == 0 else model.adapt(anchor, features[:, -1])


@torch.no_grad()
def _draw_frame(
    call: Call, state: _State, condition: Tensor, t: int, monitor: Monitor
) -> Float[Tensor, "b c h w"]:
    """Return a frame, filled set by set in a random order (section 3.3)."""
    plan = call.plan
    if state.order is None:
        options: Any = {"generator": call.generator, "device": call.model.begin.device}
        state.order = plan.draw_order(call.batch, call.grid, **options)
    tokens, schedule = call.begin_frame(t, state.order)
    steps = call.steps(len(schedule))
    # Apart, as graphs copy tensors; `_draw_set` puts them together again.
    places = [x for half in state.positions for x in (half.add, half.rope)]
    memory, temperature = None, plan.temperature_at(call.first + t)
    if call.graphs is not None:  # which other generations may have had in between
        call.graphs.bind(call.model)
    for step in schedule:
        monitor.before()
        guidance = plan.guidance.at((step.index + 1) / step.sets)
        steering = condition if guidance.scale > 1 else condition[: call.batch]
        if plan.refresh > 1:
            sizes = len(steering), tokens.shape[1], steering.shape[1]
            if step.index % plan.refresh == 0 or memory is None or memory.batch != sizes[0]:
                memory = call.model.spatial.allocate_memory(*sizes)
        draw = partial(_draw_set, call, guidance, temperature, steps[step.index], memory)
        noise = FrameNoise(call, step)
        given = (tokens, steering, step.known, step.current, *places)
        if call.graphs is None:
            drawn = draw(noise, *given)
        else:
            kind = (guidance, temperature, plan.draws_by(call.head, steps[step.index]))
            drawn = call.graphs((*kind, call.backend), draw, noise, *given)
        tokens = fill(tokens, step.current, drawn)
        now = (call.first + t, plan.frames, step.index, step.sets)
        monitor.after(Progress(*now, tokens.clone(), step.current.clone()))
    return unpatchify(tokens, call.grid, call.model.sizes.patch)


def _draw_set(
    call: Call, guidance: Guidance, temperature: float, steps: int | None,
    memory: SpatialMemory | None, noise: Noise, tokens: Tensor, condition: Tensor,
    known: Tensor, current: Tensor, *places: Tensor | None,
) -> Float[Tensor, "b m c"]:  # fmt: skip
    """Return a set's tokens: conditions by the spatial tower, each token by the head."""
    passes = len(condition) // call.batch
    positions = (Positions(*places[:2]), Positions(*places[2:]))
    options: Any = {"positions": positions, "memory": memory, "backend": call.backend}
    tokens, known, current = (torch.cat([x] * passes) for x in (tokens, known, current))
    z = call.model.spatial(tokens, condition, known, query_ids=current, **options)
    return call.head.sample(
        z[: call.batch],
        uncond=z[call.batch :] if passes > 1 else None,
        guidance=guidance,
        temperature=temperature,
        noise=noise,
        steps=steps,
        **call.head_options,
    )


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
        noise: [repeats, m, token_dim] for the m hidden tokens, in the order of `mask.hidden`; of a
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
        checkpoint: keep each block's input only, and compute the block again for its gradients:
            less memory for more time, the same numbers.

    Raises:
        ValueError: an argument that does not fit the model or the others.
    """
    check_instance("model", model, Nova)
    step = read_step(
        model, latents, prompt_embeds, motion_flow=motion_flow, fps=fps, repeats=repeats,
        scheduler=scheduler, mask=mask, generator=generator, noise=noise, index=index,
        context_noise=context_noise, seen=seen, given=given, backend=backend, checkpoint=checkpoint,
    )  # fmt: skip
    target, z, row = hidden_tokens(model, latents, step, backend=backend, checkpoint=checkpoint)
    frames = latents.shape[2]
    losses = step.head.loss(target, z, **step.head_options)
    if given is not None:
        losses = losses * (row % frames >= given[row // frames])
    return frame_losses(losses, row % frames, frames)


def hidden_tokens(
    model: Nova, latents: Tensor, step: Step, **options: Any
) -> tuple[Float[Tensor, "m c"], Float[Tensor, "m d"], Int[Tensor, " m"]]:
    """Return the hidden tokens, their conditions, and which of the b * t frames each is in."""
    batch, _, frames, height, width = latents.shape
    grid = (height // model.sizes.patch, width // model.sizes.patch)
    coarse = (grid[0] // 2, grid[1] // 2)

    prefix = model.prefix(step.text, step.flow, step.fps)
    x = model.frame_tokens(None, batch, coarse[0] * coarse[1])
    if frames > 1:
        x = torch.cat([x, model.frame_tokens(step.seen, batch, x.shape[2])], dim=1)
    added = model.added_positions(frames, coarse, law="stretch")
    rope = model.rotary_positions(frames, coarse, prefix.shape[1], law="continue")
    x = x if added is None else x + added
    features = model.temporal(x, prefix=prefix, rope=rope, **options)
    anchor, later = features[:, :1], features[:, 1:]
    condition = torch.cat([anchor, model.adapt(anchor, later)], dim=1).flatten(0, 1)

    clean = patchify(latents.transpose(1, 2), model.sizes.patch).flatten(0, 1)
    mask, ids = step.mask, step.hidden_ids
    options |= {
        "positions": model.token_positions(grid),
        "padding_mask": mask.padding_mask,
        "query_ids": ids,
    }
    z = model.spatial(clean, condition, mask.visible_ids, **options)
    row = torch.arange(batch * frames, device=model.device)[:, None]
    if ids is None:
        target, z, row = (x[mask.hidden] for x in (clean, z, row.expand_as(mask.hidden)))
    else:
        target, z = take(clean, ids).flatten(0, 1), z.flatten(0, 1)
        row = row.expand_as(ids).flatten()
    return target, z, row
