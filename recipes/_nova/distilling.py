"""A NOVA whose head draws in a pass or two what its own draws in tens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from contar._errors import bad, check_count, check_instance, check_number, keep_plain
from contar._random import seeded_weights
from contar._typing import Float, Tensor
from contar.conditioning import Guidance
from contar.data import Cache
from contar.heads import DiffusionHead
from contar.training import Latents, RunConfig, distill_head, processes
from recipes import nova
from recipes._nova.network import Nova
from recipes._nova.step import read_step
from recipes._nova.training import (
    Batches,
    NovaBatch,
    NovaObjective,
    NovaStage,
    described,
    load_parts,
    validation,
)


@dataclass(frozen=True)
class HeadStage:
    """A training of a head on what the trained one draws.

    Args:
        run: of the training; a sample is a clip.
        guidance: of the trained head, which the new one learns with it; the pipeline's default, if
            left out.
        teacher_steps: of the trained head; the pipeline's default, if left out.
        repeats: draws for each hidden token.
        pool: steps whose draws of the trained head are kept, and come again; None draws anew.
        shares: as in `NovaStage`.
    """

    run: RunConfig
    guidance: float | None = None
    teacher_steps: int | None = None
    repeats: int = 4
    pool: int | None = None
    shares: tuple[float, float] = (0.7, 0.25)

    def __post_init__(self) -> None:
        keep_plain(self)
        check_instance("run", self.run, RunConfig)
        for name in ("teacher_steps", "pool"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        check_count("repeats", self.repeats)
        if self.guidance is not None:
            check_number("guidance", self.guidance, 0)


def with_head(model: Nova, head: Mapping[str, Any]) -> Nova:
    """Return a copy of a network with another head, whose layers begin as those of equal names.

    Raises:
        ValueError: an unknown head, or sizes that it refuses.
    """
    with seeded_weights(0):
        other = nova.build(replace(model.sizes, head=dict(head)))
    load_parts(other, model.state_dict())
    return other.eval()


def conditions_of(model: Nova, data: Latents, stage: NovaStage) -> Any:
    """Return the function from samples and a step to the conditions of their hidden tokens.

    The model makes them, each with its caption and once more without; data are on its device.
    """
    load, objective = Batches(data, model.sizes, stage), NovaObjective(model)

    def of(batch: NovaBatch) -> Float[Tensor, "m d"]:
        step = read_step(model, batch.latents, repeats=1, **objective.given(batch))
        return nova.hidden_tokens(model, batch.latents, step)[1]

    @torch.no_grad()
    def conditions(
        indices: Sequence[int], step: int | str
    ) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d"]]:
        batch: NovaBatch = load(indices, step)[0]
        silent = replace(batch, lengths=torch.zeros_like(batch.lengths))
        return of(batch), of(silent)

    return conditions


def train_head(
    stage: HeadStage,
    head: Mapping[str, Any],
    pipe: nova.NovaPipeline,
    cache: Cache | Latents,
    out: Path,
    *,
    resume: bool,
) -> nova.Nova:
    """Teach a new head what a pipeline's own draws; return the network with it.

    The last 64 samples of the cache (a tenth, if that is less) are held out for validation.

    Args:
        stage: of the training.
        head: the new one, by name with its sizes, as in a config: one that begins from normal
            noise. Width and depth are those of the trained one if left out.
        pipe: whose network is the teacher, and stays as it is.
        cache, out, resume: as in `train_network`.

    Raises:
        ValueError: a network without a diffusion head, a default guidance that is renormalised, a
            cache of fewer than 2 samples, or as `contar.training.distill_head`.
    """
    model, defaults = pipe.transformer, pipe.config["defaults"]
    teacher = model.head
    check_instance("model.head", teacher, DiffusionHead)
    layers = {"width": teacher.network.token.out_features, "depth": len(teacher.network.blocks)}
    sizes = {**layers, **head}
    student = with_head(model, sizes)
    device = processes().device
    model.to(device)
    student.to(device)
    scheduler = {**pipe.scheduler.config, "_class_name": type(pipe.scheduler).__name__}
    guidance = defaults["guidance_scale"] if stage.guidance is None else stage.guidance
    steps = stage.teacher_steps or defaults["num_diffusion_steps"]
    taught = {"guidance": guidance, "teacher_steps": steps}
    if guidance > 1 and (renorm := defaults["guidance_renorm"]) < 1:
        raise bad("guidance_renorm", renorm, "1, the pipeline's default, beside guidance")
    data = Latents.of(cache) if isinstance(cache, Cache) else cache
    if len(data) < 2:
        raise bad("cache", f"{len(data)} sample", "2 or more: one is held out")
    count = len(data) - min(64, len(data) // 10 or 1)
    drawn = NovaStage(stage.run, repeats=1, drop_text=0.0, shares=stage.shares)
    student.head = distill_head(
        student.head,
        teacher.with_solver(scheduler),
        conditions_of(model, data.to(device), drawn),
        stage.run,
        out,
        count=count,
        guidance=Guidance(guidance),
        teacher_steps=steps,
        repeats=stage.repeats,
        pool=stage.pool,
        resume=resume,
        described={**described(stage, cache, model), "head": sizes, **taught},
        validate=validation(stage.run, count, len(data)),
    )
    return student.eval()
