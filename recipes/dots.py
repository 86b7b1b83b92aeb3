"""The smallest whole NOVA: four latent frames of a dot that moves where a word says.

It trains on a laptop in under a minute, through the same functions as a large model: the losses of
a clip and the generation of one. The "text encoder" is a vector for each word.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from contar._errors import check_count
from contar._typing import Float, Tensor
from recipes import nova

DIRECTIONS = {"left": (0.0, -1.0), "right": (0.0, 1.0), "up": (-1.0, 0.0), "down": (1.0, 0.0)}
FRAMES, SIZE = 4, 8
CONFIG = nova.NovaConfig(
    temporal=nova.Tower(2, 64, 2),
    encoder=nova.Tower(1, 64, 2),
    decoder=nova.Tower(2, 64, 2),
    head_depth=2,
    head_width=64,
    text_width=len(DIRECTIONS),
    text_length=1,
    text_rows=1,
    latent=(SIZE, SIZE),
    channels=1,
    patch=2,
    frames=FRAMES,
    adapter=8,
)


@dataclass(frozen=True)
class Clips:
    """Clips of dots with the words that describe them.

    Attributes:
        latents: [b, 1, t, h, w], about -1 where the dot is not and 1 where it is.
        text: [b, 1, 4], a vector for each word.
    """

    latents: Float[Tensor, "b 1 t h w"]
    text: Float[Tensor, "b 1 e"]


def words(directions: Tensor) -> Float[Tensor, "b 1 e"]:
    """Return the text states of directions by number, [b]."""
    return torch.eye(len(DIRECTIONS))[directions][:, None]


def draw_clips(count: int, generator: torch.Generator) -> Clips:
    """Draw clips: a direction, and a start from which the dot stays in the frame."""
    which = torch.randint(len(DIRECTIONS), (count,), generator=generator)
    steps = torch.tensor(list(DIRECTIONS.values()))[which]
    middle = (SIZE - 1) / 2
    start = middle + (torch.rand(count, 2, generator=generator) - 0.5) * 3 - 1.5 * steps
    times = torch.arange(FRAMES)[None, :, None]
    centres = start[:, None] + times * steps[:, None]
    cells = torch.stack(torch.meshgrid(*[torch.arange(SIZE)] * 2, indexing="ij"), dim=-1)
    distance = (cells - centres[:, :, None, None]).square().sum(-1)
    return Clips(2 * (-distance / 2).exp()[:, None] - 1, words(which))


def train(
    steps: int = 600,
    *,
    batch: int = 32,
    seed: int = 0,
    learning_rate: float = 3e-3,
    on_step: Callable[[int, float], object] | None = None,
) -> nova.Nova:
    """Train from random weights and return the model.

    Args:
        steps: of the optimiser.
        batch: clips a step.
        seed: of weights, clips and noise; the global random state stays as it is.
        learning_rate: the highest of the schedule.
        on_step: called with the step's number and loss.

    Raises:
        ValueError: `steps` or `batch` below 1.
    """
    check_count("steps", steps)
    check_count("batch", batch)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nova.build(CONFIG)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    for step in range(steps):
        clips = draw_clips(batch, generator)
        keep = torch.rand(batch, generator=generator) >= 0.1  # empty text, for guidance
        text = torch.where(keep[:, None, None], clips.text, model.text.empty(batch))
        losses = nova.training_losses(model, clips.latents, text, generator=generator)
        optimizer.zero_grad()
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if on_step is not None:
            on_step(step, losses.total.item())
    return model


def sample(
    model: nova.Nova, *, seed: int = 0, progress: bool = False
) -> Float[Tensor, "b 1 t h w"]:
    """Generate a clip for each direction."""
    guidance = nova.Guidance(2.0)
    plan = nova.GenerationPlan(frames=FRAMES, sets=8, diffusion_steps=25, guidance=guidance)
    text = words(torch.arange(len(DIRECTIONS)))
    generator = torch.Generator().manual_seed(seed)
    return nova.generate(model, text, plan, generator=generator, progress=progress)
