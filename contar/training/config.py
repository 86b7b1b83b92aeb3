"""How long and how a run trains."""

from dataclasses import dataclass
from typing import Literal

from contar._errors import bad, check_choice, check_count, check_instance, check_number, keep_plain

_EVERY = ("log_every", "validate_every", "sample_every", "save_every")
# May differ on resuming: where each sample has draws of its own they change but rounding.
FREE = ("parts", "shard", *_EVERY)


@dataclass(frozen=True)
class RunConfig:
    """How long and how a run trains.

    Args:
        steps: of the optimizer.
        batch: samples of a step, over all processes and parts of it.
        parts: into which each process cuts its share of a batch, for memory.
        shard: processes share weights, averages and the optimizer's state out among them, block by
            block, instead of holding a copy each; one process alone trains as ever.
        learning_rate: at its height, after the warm-up.
        schedule: of the rate from there on: "cosine", which would come to 0 in the step after the
            last, or "constant", as in the released configs of NOVA and MAR.
        warmup: steps in which the rate rises from 0, with which the first of them moves nothing.
        weight_decay: of AdamW.
        decayed: which weights decay: "all", or "matrices" without biases and what has one
            dimension; MAR's training spares its head as well, which this does not.
        betas: of AdamW.
        clip: largest norm of the gradient.
        ema: decay of the averaged weights; in step n, from 1, at most 1 - (n - 1)^(-2/3), so that
            they begin as the trained ones.
        precision: of the computation; weights stay float32, whose products a GPU makes in TF32.
        seed: of everything that is drawn.
        log_every: steps between rows of the log.
        validate_every: steps between validations.
        sample_every: steps between sheets of samples.
        save_every: steps between saves.

    Raises:
        ValueError: a number outside its range.
    """

    steps: int = 1000
    batch: int = 32
    parts: int = 1
    shard: bool = False
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: int = 100
    weight_decay: float = 0.02
    decayed: Literal["all", "matrices"] = "all"
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    ema: float = 0.999
    precision: Literal["no", "bf16"] = "no"
    seed: int = 0
    log_every: int = 10
    validate_every: int = 500
    sample_every: int = 1000
    save_every: int = 250

    def __post_init__(self) -> None:
        keep_plain(self)
        for name in ("steps", "batch", "parts", *_EVERY):
            check_count(name, getattr(self, name))
        for name in ("warmup", "seed"):
            check_count(name, getattr(self, name), 0)
        for name in ("learning_rate", "weight_decay"):
            check_number(name, getattr(self, name), 0)
        check_instance("betas", self.betas, tuple)
        if len(self.betas) != 2:
            raise bad("betas", self.betas, "two numbers in [0, 1)")
        for beta in self.betas:
            if check_number("betas", beta, 0, 1) == 1:
                raise bad("betas", self.betas, "two numbers in [0, 1)")
        check_instance("shard", self.shard, bool)
        if check_number("clip", self.clip, 0) == 0:
            raise bad("clip", self.clip, "above 0")
        check_number("ema", self.ema, 0, 1)
        check_choice("precision", self.precision, ("no", "bf16"))
        check_choice("schedule", self.schedule, ("cosine", "constant"))
        check_choice("decayed", self.decayed, ("all", "matrices"))
        if self.batch % self.parts:
            raise bad("parts", self.parts, f"a divisor of batch={self.batch}")
