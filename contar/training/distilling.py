"""A head that draws in one pass or two, learned from a trained one that takes tens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from contar._errors import bad, check_callable, check_instance, check_size
from contar._random import normal, seeded
from contar._typing import Float, Tensor
from contar.conditioning import Guidance
from contar.heads import DiffusionHead, Noise, TokenHead
from contar.training.caching import fingerprint
from contar.training.distributed import processes
from contar.training.loop import RunConfig, train
from contar.training.order import batch_indices

# From samples' indices and the step (or a name) to the conditions of their tokens, [m, cond_dim],
# and to the unconditional ones, where guidance acts.
Conditions = Callable[[Sequence[int], int | str], tuple[Tensor, Tensor | None]]

# How a head draws, as far as its weights and a diffusion's solver do not say it.
_DRAWING = ("straight", "prediction", "timesteps", "steps", "time_scale")


def distill_head(
    student: TokenHead,
    teacher: TokenHead,
    conditions: Conditions,
    config: RunConfig,
    out: Path,
    *,
    count: int,
    guidance: Guidance | None = None,
    steps: int | None = None,
    teacher_steps: int | None = None,
    repeats: int = 4,
    pool: int | None = None,
    resume: bool = False,
    described: Mapping[str, Any] | None = None,
    validate: Sequence[Sequence[int]] = (),
) -> TokenHead:
    """Teach a head to draw, from the same noise, what a trained one draws; return the averaged one.

    The loss is the squared distance of the two draws, so no clean token is asked for. The teacher's
    draw has to follow from the noise that it starts from, as by a flow's solver. Its guidance goes
    into the student, which is then asked without one: where it stood for two passes of the network
    before the head, one is left. What the unconditional condition knows and the conditional one
    does not, the student averages over. Noise is drawn for a part of a batch, or a process, at
    once: in other parts it is other noise.

    Source: knowledge distillation of a sampler (Luhman & Luhman 2021, arXiv 2101.02388), here of a
    token given its condition.

    Args:
        student: a module that begins from normal noise: a mean flow, a flow map. It is trained.
        teacher: a head of the same sizes; it stays as it is.
        conditions: makes the conditions of some samples' tokens, and the unconditional ones where
            guidance acts; the network that makes them stays as it is.
        config: of the training.
        out: folder of the run.
        count: samples there are.
        guidance: of the teacher, constant; None is none.
        steps: of the student's draw; None is its own number.
        teacher_steps: likewise.
        repeats: draws for each condition.
        pool: steps whose draws of the teacher are kept in memory and come again, since they cost
            more than all else; None draws anew in each step.
        resume: as in `train`; teacher, guidance, steps, repeats and pool must be the same, too.
        described: as in `train`.
        validate: batches of indices, as in `train`.

    Raises:
        ValueError: heads of different sizes, one whose draw asks for other noise than that it
            starts from, guidance without unconditional conditions, a pool beside parts of a batch
            or several processes, or as in `train`.
    """
    for name, head in (("student", student), ("teacher", teacher)):
        check_instance(name, head, nn.Module)
        check_instance(name, head, TokenHead)
    for name in ("token_dim", "cond_dim"):
        if getattr(student, name) != (size := getattr(teacher, name)):
            allowed = f"{size}, as the teacher has it"
            raise bad(f"student.{name}", getattr(student, name), allowed)
    check_instance("config", config, RunConfig)
    check_callable("conditions", conditions)
    check_size("repeats", repeats)
    if pool is not None:
        check_size("pool", pool)
        if config.parts * processes().num_processes > 1:
            raise bad("pool", pool, "None beside parts of a batch, or several processes")
    guidance = Guidance() if guidance is None else guidance
    check_instance("guidance", guidance, Guidance)
    lessons = _Lessons(teacher, conditions, config, count, guidance, teacher_steps, repeats, pool)
    lessons.try_on(student, steps)
    trained: Any = train(
        _Alike(student, steps),
        lessons,
        config,
        out,
        count=count,
        resume=resume,
        described={
            **(described or {}),
            "teacher": fingerprint(teacher),  # type: ignore[arg-type]
            "drawing": _drawing(teacher),
            "guidance": asdict(guidance),
            "student_steps": steps,
            "teacher_steps": teacher_steps,
            "repeats": repeats,
            "pool": pool,
        },
        validate=validate,
        load_validation=lessons if validate else None,
    )
    return trained.head.eval()


def _drawing(teacher: TokenHead) -> list[str]:
    """Return what a teacher's draws of the same noise depend on beside its weights and steps."""
    table = repr(asdict(teacher.table())) if isinstance(teacher, DiffusionHead) else ""
    solver = sha256(table.encode()).hexdigest()[:12]
    return [solver, *(str(getattr(teacher, name, None)) for name in _DRAWING)]


@dataclass
class _Lessons:
    """Conditions, noise, and the tokens that the teacher draws from both, for each batch."""

    teacher: Any
    conditions: Conditions
    config: RunConfig
    count: int
    guidance: Guidance
    steps: int | None  # of the teacher
    repeats: int
    pool: int | None
    kept: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)

    def __call__(
        self, indices: Sequence[int], step: int | str
    ) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m c"], Float[Tensor, "m c"]]:
        """Return a batch, drawn anew or kept from an earlier step."""
        if self.pool is None or isinstance(step, str):
            return self._drawn(indices, step)
        place = step % self.pool
        if place not in self.kept:
            config = self.config
            first = batch_indices(self.count, config.batch, place, seed=config.seed)
            self.kept[place] = self._drawn(first, place)
        return self.kept[place]

    @torch.no_grad()
    def _drawn(self, indices: Sequence[int], step: int | str) -> tuple[Tensor, Tensor, Tensor]:
        cond, uncond = self.conditions(indices, step)
        cond = cond.repeat(self.repeats, 1)[None]
        if uncond is not None:
            uncond = uncond.repeat(self.repeats, 1)[None]
        generator = seeded(self.config.seed, "distill", step, *indices)
        shape = (*cond.shape[:2], self.teacher.token_dim)
        noise = normal(*shape, generator=generator, device=cond.device)
        return cond[0], noise[0], self._token(cond, uncond, noise)[0]

    def _token(self, cond: Tensor, uncond: Tensor | None, noise: Tensor) -> Tensor:
        """Return what the teacher draws from noise, with its guidance."""
        scale = self.guidance.scale
        if scale > 1 and uncond is None:
            raise bad("conditions", "no unconditional ones", f"those for guidance {scale}")
        return self.teacher.sample(
            cond,
            uncond=uncond if scale > 1 else None,
            noise=_Start(noise, "teacher"),
            guidance=self.guidance,
            steps=self.steps,
        )

    @torch.no_grad()
    def try_on(self, student: TokenHead, steps: int | None) -> None:
        """Raise a ValueError if one of both heads draws more than the noise that it starts from."""
        nothing = torch.zeros(1, 1, self.teacher.cond_dim).to(next(self.teacher.parameters()))
        start = torch.zeros(1, 1, self.teacher.token_dim, device=nothing.device)
        self._token(nothing, nothing, start)
        student.sample(nothing, noise=_Start(start, "student"), steps=steps)


class _Alike(nn.Module):
    """How far a head's draws are from given ones of the same noise."""

    def __init__(self, head: Any, steps: int | None) -> None:
        super().__init__()
        self.head, self.steps = head, steps

    def forward(
        self, cond: Float[Tensor, "m d"], noise: Float[Tensor, "m c"], token: Float[Tensor, "m c"]
    ) -> dict[str, Tensor]:
        drawn = self.head.sample(cond[None], noise=_Start(noise[None], "student"), steps=self.steps)
        return {"loss": (drawn[0] - token).square().mean()}


class _Start(Noise):
    """The noise that a draw starts from, which may be asked for once."""

    def __init__(self, noise: Tensor, head: str) -> None:
        self.noise, self.head, self.asked = noise, head, False

    def normal(self, *shape: int) -> Tensor:
        if self.asked or shape != self.noise.shape:
            return self.uniform()
        self.asked = True
        return self.noise

    def uniform(self, *shape: int) -> Tensor:
        allowed = "one whose draw follows from the normal noise of a token that it starts from"
        raise bad(self.head, "a head that draws more, or other noise", allowed)
