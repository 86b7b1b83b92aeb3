"""The loop of a run: on accelerate, with EMA, logs and saves to go on from."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from contar._errors import bad, check_choice, check_count, check_number
from contar._files import read_json, write_whole
from contar._random import seeded
from contar.training.processes import processes
from contar.training.saves import complete_saves, load, save


@dataclass(frozen=True)
class RunConfig:
    """How long and how a run trains.

    Args:
        steps: of the optimizer.
        batch: samples of a step, over all processes and parts of it.
        parts: into which each process cuts its share of a batch, for memory.
        learning_rate: at its height, after the warm-up; a cosine leads to 0.
        warmup: steps.
        weight_decay: of AdamW.
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
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.02
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
        for name in ("steps", "batch", "parts", "log_every", "validate_every", "sample_every"):
            check_count(name, getattr(self, name))
        check_count("save_every", self.save_every)
        check_count("warmup", self.warmup, 0)
        check_count("seed", self.seed, 0)
        for name in ("learning_rate", "weight_decay"):
            check_number(name, getattr(self, name), 0)
        if check_number("clip", self.clip, 0) == 0:
            raise bad("clip", self.clip, "above 0")
        check_number("ema", self.ema, 0, 1)
        check_choice("precision", self.precision, ("no", "bf16"))
        if self.batch % self.parts:
            raise bad("parts", self.parts, f"a divisor of batch={self.batch}")


# From samples' indices and the step (or a name) to what the objective takes.
Load = Callable[[Sequence[int], int | str], tuple[Any, ...]]


def batch_indices(count: int, batch: int, step: int, *, seed: int) -> list[int]:
    """Return the samples of a step: epoch after epoch, each in an order of its own.

    Args:
        count: samples there are.
        batch: samples of a step.
        step: from 0.
        seed: of the orders.
    """
    chosen = []
    for epoch in range(step * batch // count, (step * batch + batch - 1) // count + 1):
        order = _order(count, seed, epoch)
        first = max(step * batch - epoch * count, 0)
        last = min(step * batch + batch - epoch * count, count)
        chosen += order[first:last]
    return chosen


@lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> list[int]:
    return torch.randperm(count, generator=seeded(seed, "epoch", epoch)).tolist()


def train(
    objective: nn.Module,
    load_batch: Load,
    config: RunConfig,
    out: Path,
    *,
    count: int,
    resume: bool = False,
    described: Mapping[str, Any] | None = None,
    validate: Sequence[Sequence[int]] = (),
    load_validation: Load | None = None,
    sample: Callable[[nn.Module, int], None] | None = None,
) -> nn.Module:
    """Train and return the averaged copy of the objective.

    The folder holds `config.json`, `log.csv` (a row every `log_every` steps), `validation.csv`,
    tensorboard's files, and `saves`. What a step computes follows from config, data and step alone,
    so a run that was ended at any moment and is resumed makes the same losses. On a GPU, which is
    taken where there is one, they are looked at where they are logged, validated or saved: in
    between it does not wait.

    Args:
        objective: maps a batch to named losses, of which "loss" is minimised.
        load_batch: from samples' indices and the step to the objective's arguments; its draws must
            follow from these alone.
        config: of the run.
        out: folder of the run.
        count: of samples that `load_batch` knows.
        resume: go on from the last save in `out`, or begin if there is none.
        described: what else defines the run; on resuming it must be the same.
        validate: batches of indices for `load_validation`, whose losses are averaged.
        load_validation: as `load_batch`, called with the step "validation".
        sample: called with the averaged objective and the step, by the main process.

    Raises:
        ValueError: a folder with saves and no `resume`; a resumed run of another config (what
            differs is named); a batch that the processes do not split; a loss that is not finite
            (the step is named, the last save stays).
        OSError: a file that cannot be written; the last save stays.
        ImportError: accelerate or tensorboard is not installed.
    """
    processes()  # before accelerate's own state, for the time that they wait for one another
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState
    from timm.utils.model_ema import ModelEmaV3
    from transformers import get_scheduler

    AcceleratorState._reset_state()  # of an earlier run, whose precision may have been another
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=config.precision,
        gradient_accumulation_steps=config.parts,
        # A network for videos that learns from pictures has parts without a gradient.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    world, rank = accelerator.num_processes, accelerator.process_index
    if config.batch % (world * config.parts):
        allowed = f"a multiple of {world} processes times parts={config.parts}"
        raise bad("batch", config.batch, allowed)
    # Through JSON and back, as it will be compared.
    definition = json.loads(json.dumps({**asdict(config), **(described or {})}))
    saves = complete_saves(out)
    _check_folder(out, definition, resume=resume, saves=saves)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (out / "saves").mkdir(parents=True, exist_ok=True)
        if not saves:
            write_whole(out / "config.json", json.dumps(definition, indent=2) + "\n")

    device, hasty = accelerator.device, accelerator.device.type == "cuda"
    if hasty:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    plain = objective.to(device)
    parameters = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=config.betas,
        weight_decay=config.weight_decay, fused=hasty,
    )  # fmt: skip
    average = ModelEmaV3(plain, decay=config.ema, use_warmup=True)
    modules = {"model": plain, "average": average.module}
    schedule = get_scheduler("cosine", optimizer, config.warmup, config.steps)
    start = 0
    if resume and saves:
        state = load(saves[-1], modules=modules, optimizer=optimizer)
        start = state["step"]
        schedule.load_state_dict(state["schedule"])
    wrapped, optimizer = accelerator.prepare(plain, optimizer)

    mine = config.batch // world // config.parts
    amiss = torch.full((), config.steps, device=device)  # the first step without finite numbers
    bar = tqdm(
        total=config.steps, initial=start, unit="step", desc=out.name,
        disable=not accelerator.is_main_process,
    )  # fmt: skip
    with bar, closing(_Log(out, accelerator.is_main_process, start)) as log:
        began, counted = time.monotonic(), start
        for step in range(start, config.steps):
            done, last = step + 1, step + 1 == config.steps
            every = (config.log_every, config.validate_every, config.sample_every)
            looked = last or not all(done % n for n in (*every, config.save_every))
            indices = batch_indices(count, config.batch, step, seed=config.seed)
            sums: dict[str, Tensor] = {}
            values: dict[str, float] = {}
            norm = math.nan
            for part in range(config.parts):
                first = (rank * config.parts + part) * mine
                batch = load_batch(indices[first : first + mine], step)
                with accelerator.accumulate(wrapped):
                    losses = wrapped(*(_to(x, device) for x in batch))
                    accelerator.backward(losses["loss"])
                    for name, value in losses.items():
                        sums[name] = sums.get(name, 0) + value.detach() / config.parts
                    if accelerator.sync_gradients:
                        total: Any = accelerator.clip_grad_norm_(parameters, config.clip)
                        shared: Any = {n: accelerator.reduce(v, "mean") for n, v in sums.items()}
                        if hasty:
                            amiss = _first_amiss(amiss, shared["loss"] + total, step)
                        if looked or not hasty:
                            norm = float(total)
                            values = {name: float(value) for name, value in shared.items()}
                            _check_finite(values["loss"], norm, step, out, amiss)
                    optimizer.step()
                    optimizer.zero_grad()
            rate = schedule.get_last_lr()[0]
            schedule.step()
            average.update(plain, step=step)
            bar.set_postfix({n: f"{v:.4g}" for n, v in values.items()}, refresh=False)
            bar.update()
            if last or done % config.log_every == 0:
                now = time.monotonic()
                seconds, began, counted = (now - began) / (done - counted), now, done
                numbers: Any = {**values, "norm": norm, "rate": rate, "seconds": seconds}
                log.row("log", done, numbers)
            paused = time.monotonic()
            if load_validation and (last or done % config.validate_every == 0):
                log.row("validation", done, _validate(average.module, validate, load_validation))
            if not accelerator.is_main_process:
                continue
            if sample and (last or done % config.sample_every == 0):
                sample(average.module, done)
            if last or done % config.save_every == 0:
                state = {"schedule": schedule.state_dict()}
                save(out, done, modules=modules, optimizer=optimizer.optimizer, state=state)
            began += time.monotonic() - paused
    accelerator.wait_for_everyone()
    accelerator.free_memory()
    if hasty:
        torch.backends.cudnn.benchmark = False  # which costs seconds for each new size
    return average.module


def _check_folder(
    out: Path, definition: dict[str, Any], *, resume: bool, saves: Sequence[Path]
) -> None:
    if saves and not resume:
        raise bad("out", str(out), "a folder without saves, or resume to go on from them")
    if not saves:
        return
    stored = read_json(out / "config.json")
    names = sorted({*stored, *definition})
    differing = [
        f"{name}: {stored.get(name)!r} then, {definition.get(name)!r} now"
        for name in names
        if stored.get(name) != definition.get(name)
    ]
    if differing:
        raise bad("resume", "another config (" + "; ".join(differing) + ")", "the config it had")


def _first_amiss(first: Tensor, value: Tensor, step: int) -> Tensor:
    return torch.where(value.isfinite(), first, first.clamp(max=step))


def _check_finite(loss: float, norm: float, step: int, out: Path, amiss: Tensor) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)) or int(amiss) < step:
        step = min(step, int(amiss))
        saves = complete_saves(out)
        last = saves[-1].name if saves else "none"
        got = f"{loss} with a gradient of norm {norm} at step {step + 1}"
        raise bad("loss", got, f"finite numbers; the last save is {last}")


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device) if hasattr(value, "to") else value


@torch.no_grad()
def _validate(
    objective: nn.Module, batches: Sequence[Sequence[int]], load_batch: Load
) -> dict[str, float]:
    device = next(objective.parameters()).device
    sums: dict[str, float] = {}
    for indices in batches:
        batch = load_batch(indices, "validation")
        for name, value in objective(*(_to(x, device) for x in batch)).items():
            sums[name] = sums.get(name, 0.0) + float(value) / len(batches)
    return sums


class _Log:
    """CSV files and tensorboard; rows after the save that a run goes on from are dropped."""

    def __init__(self, out: Path, active: bool, start: int) -> None:
        self._out, self._board = out, None
        if not active:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(f'{error} (pip install "contar[train]")') from error
        self._board = SummaryWriter(out / "tensorboard", purge_step=start + 1)
        for file in out.glob("*.csv"):
            header, *rows = file.read_text().splitlines() or [""]
            whole = [row for row in rows if row.count(",") == header.count(",")]  # and not torn
            kept = [row for row in whole if int(row.split(",")[0]) <= start]
            if kept:
                write_whole(file, "\n".join([header, *kept, ""]))
            else:
                file.unlink()

    def row(self, name: str, step: int, values: Mapping[str, float]) -> None:
        if self._board is None:
            return
        file = self._out / f"{name}.csv"
        rows = [] if file.exists() else [["step", *values]]
        rows.append([str(step), *map(repr, values.values())])
        with file.open("a") as lines:
            lines.writelines(",".join(row) + "\n" for row in rows)
        for key, value in values.items():
            self._board.add_scalar(f"{name}/{key}", value, step)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
