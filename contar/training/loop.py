"""The loop of a run: on accelerate, with EMA, logs and saves to go on from."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from contar._errors import bad
from contar.training.config import RunConfig
from contar.training.distributed import one_run, processes, together
from contar.training.folder import load_last, prepare_folder
from contar.training.log import RunLog
from contar.training.named_losses import NamedLosses, named
from contar.training.order import batch_indices
from contar.training.saves import complete_saves, save
from contar.training.sharding import check_shareable, is_shared, local, share_out, unshared

# From samples' indices and the step (or a name) to what the objective takes.
Load = Callable[[Sequence[int], int | str], tuple[Any, ...]]


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
    so a run that was ended at any moment and is resumed makes the same losses. Files in it that no
    run made are neither changed nor removed, and while a run goes on in it no other does. On a GPU,
    which is taken where there is one, losses are looked at where they are logged, validated or
    saved: in between it does not wait.

    Args:
        objective: maps a batch to named losses, of which "loss" is minimised. Others may be there
            in some steps only; their means are over where they are. Beside them "tokens" may say
            how many values they are means over: parts of a batch then count by it, and the mean is
            that of the whole batch however it is split. Without it parts count alike.
        load_batch: from samples' indices and the step to the objective's arguments; its draws must
            follow from these alone.
        config: of the run.
        out: folder of the run.
        count: of samples that `load_batch` knows.
        resume: go on from the last save in `out`, or begin if there is none.
        described: what else defines the run; on resuming it must be the same, as must `config` but
            for its parts and how often it logs, validates, samples and saves.
        validate: batches of indices for `load_validation`, whose losses are averaged.
        load_validation: as `load_batch`, called with the step "validation".
        sample: called with the averaged objective and the step, by the main process.

    Raises:
        ValueError: a folder with saves and no `resume`, with files of others by names that the run
            writes, or in which another run goes on; a resumed run of another config (what differs
            is named), or a damaged file (it is named; of damaged saves the last good one is taken);
            a batch that the processes do not split; losses that are no named scalars; a loss that
            is not finite (the step is named, the last save stays); a variable of the environment
            that asks accelerate for another way to train.
        OSError: a file that cannot be written; the last save stays.
        ImportError: accelerate, timm or tensorboard is not installed.
    """
    accelerator = _accelerator(config)
    with one_run(out):
        # Through JSON and back, as it will be compared.
        definition = json.loads(json.dumps({**asdict(config), **(described or {})}))
        saves = complete_saves(out)
        together(lambda: prepare_folder(out, definition, resume=resume, saves=saves))

        run = _begin(objective, config, accelerator, saves)
        bar = tqdm(
            total=config.steps, initial=run.start, unit="step", desc=out.name,
            disable=not accelerator.is_main_process,
        )  # fmt: skip
        logs = _logged(out, accelerator.is_main_process, run.start)
        with bar, _fast_products(run.device), logs as log:
            began, counted = time.monotonic(), run.start
            for step in range(run.start, config.steps):
                done, last = step + 1, step + 1 == config.steps
                values = run.step(load_batch, count, step, out)
                if values:
                    told = {name: f"{x:.4g}" for name, x in values.items() if name in run.named}
                    bar.set_postfix(told, refresh=False)
                bar.update()
                if log and (last or done % config.log_every == 0):
                    now = time.monotonic()
                    seconds, began, counted = (now - began) / (done - counted), now, done
                    log.row("log", done, {**values, "seconds": seconds})
                paused = time.monotonic()
                checks = load_validation and (last or done % config.validate_every == 0)
                shows = sample and (last or done % config.sample_every == 0)
                if checks or shows:
                    average = run.averaged()
                    if load_validation and checks:
                        with _aside(run.device):
                            checked = _validate(average, validate, load_validation, accelerator)
                        if log:
                            log.row("validation", done, checked)
                    if sample and shows and log:
                        with _aside(run.device):
                            sample(average, done)
                    del average
                if last or done % config.save_every == 0:
                    run.save(out, done, definition)
                began += time.monotonic() - paused
        accelerator.wait_for_everyone()
        accelerator.free_memory()
        return run.averaged()


@dataclass
class _Run:
    """The parts of a run, and where it stands."""

    config: RunConfig
    accelerator: Any
    plain: nn.Module  # the objective
    wrapped: Any  # as accelerate calls it
    parameters: list[nn.Parameter]
    optimizer: Any
    schedule: Any
    average: Any
    start: int
    amiss: Tensor  # the first step without finite numbers
    copy: Callable[[nn.Module], nn.Module] | None  # a whole one of what is shared out
    named: tuple[str, ...] = ()  # losses

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What a save holds."""
        return {"model": self.plain, "average": self.average.module}

    def averaged(self) -> nn.Module:
        """Return the averaged objective as a whole; all processes have to ask."""
        return self.copy(self.average.module) if self.copy else self.average.module

    def save(self, out: Path, done: int, definition: Mapping[str, Any]) -> None:
        """Write a save: the main process by itself, or all, each what it holds."""
        state = {"schedule": self.schedule.state_dict(), "config": definition}
        kept = {"modules": self.modules, "optimizer": self.optimizer.optimizer}
        if self.copy or self.accelerator.is_main_process:
            save(out, done, state=state, shared=self.copy is not None, **kept)

    def step(self, load_batch: Load, count: int, step: int, out: Path) -> dict[str, float]:
        """Take a step; return its losses, norm and rate where they are looked at, else nothing."""
        config, accelerator = self.config, self.accelerator
        hasty = self.device.type == "cuda"
        looked = not hasty or step + 1 == config.steps or _is_due(config, step + 1)
        mine = config.batch // accelerator.num_processes // config.parts
        indices = batch_indices(count, config.batch, step, seed=config.seed)
        seen = NamedLosses()
        values: dict[str, float] = {}
        norm = math.nan
        for part in range(config.parts):
            first = (accelerator.process_index * config.parts + part) * mine
            batch = load_batch(indices[first : first + mine], step)
            with accelerator.accumulate(self.wrapped):
                losses = self.wrapped(*(_to(x, self.device) for x in batch))
                accelerator.backward(seen.add(losses))
                if accelerator.sync_gradients:
                    seen.unweigh(self.parameters, accelerator)
                    total: Any = accelerator.clip_grad_norm_(self.parameters, config.clip)
                    total = total.full_tensor() if is_shared(total) else total
                    if hasty:
                        both = accelerator.reduce(seen.loss, "mean") + total
                        ended = self.amiss.clamp(max=step)
                        self.amiss = torch.where(both.isfinite(), self.amiss, ended)
                    if looked:
                        norm, values = float(total), seen.means(accelerator)
                        _check_finite(values["loss"], norm, step, int(self.amiss), out)
                self.optimizer.step()
                self.optimizer.zero_grad()
        rate = self.schedule.get_last_lr()[0]
        self.schedule.step()
        self.average.update(self.plain, step=step)
        self.named = tuple(values)
        return {**values, "norm": norm, "rate": rate} if values else {}


def _begin(
    objective: nn.Module, config: RunConfig, accelerator: Any, saves: Sequence[Path]
) -> _Run:
    """Return a run at its beginning, or where its last good save was made."""
    sharded = config.shard and accelerator.num_processes > 1
    plain = objective if sharded else objective.to(accelerator.device)
    average, copy = _average(plain, config.ema), None
    if sharded:
        check_shareable(objective)
        copy = unshared(objective)
        for module in (objective, average.module):
            share_out(module, config, accelerator.device)
    parameters = [p for p in objective.parameters() if p.requires_grad]
    optimizer: Any = torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=accelerator.device.type == "cuda",
    )
    schedule, start = _schedule(optimizer, config), 0
    if saves:
        modules = {"model": plain, "average": average.module}
        state = load_last(saves, modules=modules, optimizer=optimizer)
        start = state["step"]
        schedule.load_state_dict(state["schedule"])
    if sharded:  # which takes care of the gradients
        wrapped = accelerator.prepare_model(plain, device_placement=False, evaluation_mode=True)
        optimizer = accelerator.prepare_optimizer(optimizer, device_placement=False)
    else:
        wrapped, optimizer = accelerator.prepare(plain, optimizer)
    amiss = torch.full((), config.steps, device=accelerator.device)
    whole = (config, accelerator, plain, wrapped, parameters, optimizer, schedule, average)
    return _Run(*whole, start, amiss, copy)


def _accelerator(config: RunConfig) -> Any:
    """Return an `Accelerator` of the config's, whatever the environment says.

    Raises:
        ValueError: a batch that the processes do not split.
    """
    processes()  # before accelerate's own state, for the time that they wait for one another
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState
    from accelerate.utils import GradientAccumulationPlugin

    AcceleratorState._reset_state()  # of an earlier run, whose precision may have been another
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=config.precision,
        # A number alone would give way to a variable of the environment.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=config.parts),
        # A network for videos that learns from pictures has parts without a gradient.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    if config.batch % (accelerator.num_processes * config.parts):
        allowed = f"a multiple of {accelerator.num_processes} processes times parts={config.parts}"
        raise bad("batch", config.batch, allowed)
    return accelerator


def _average(model: nn.Module, decay: float) -> Any:
    try:
        from timm.utils.model_ema import ModelEmaV3
    except ImportError as error:
        raise ImportError(f'{error} (pip install "contar[train]")') from error

    class Average(ModelEmaV3):
        """Moves weights that have two names once a step."""

        def apply_update_(self, model: nn.Module, decay: float) -> None:
            states = (map(local, x.state_dict().values()) for x in (self.module, model))
            pairs = zip(*states, strict=True)
            once = {(a.data_ptr(), a.shape, a.stride()): (a, b) for a, b in pairs}.values()
            moved = [(a, b) for a, b in once if a.is_floating_point()]
            for a, b in once:
                if not a.is_floating_point():
                    a.copy_(b)
            old, new = [a for a, _ in moved], [b for _, b in moved]
            get_ema_multi_avg_fn(decay)(old, new, 0)

    return Average(model, decay=decay, use_warmup=True)


def _schedule(optimizer: torch.optim.Optimizer, config: RunConfig) -> Any:
    from transformers import get_scheduler

    return get_scheduler("cosine", optimizer, config.warmup, config.steps)


@contextmanager
def _logged(out: Path, active: bool, start: int) -> Iterator[RunLog | None]:
    """Give the main process the log of the run."""
    log = RunLog(out, start) if active else None
    try:
        yield log
    finally:
        if log is not None:
            log.close()


@contextmanager
def _fast_products(device: torch.device) -> Iterator[None]:
    """Have a GPU multiply float32 in TF32, and try which convolution is the fastest."""
    precision, tried = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.benchmark = tried


@contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """Leave the random state as it was, so that how often this happens changes no step."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _is_due(config: RunConfig, done: int) -> bool:
    """Return whether a row, a validation, samples or a save follow after so many steps."""
    every = (config.log_every, config.validate_every, config.sample_every, config.save_every)
    return any(done % steps == 0 for steps in every)


def _check_finite(loss: float, norm: float, step: int, amiss: int, out: Path) -> None:
    if amiss < step or not (math.isfinite(loss) and math.isfinite(norm)):
        step = min(step, amiss)
        saves = complete_saves(out)
        last = saves[-1].name if saves else "none"
        got = f"{loss} with a gradient of norm {norm} at step {step + 1}"
        raise bad("loss", got, f"finite numbers; the last save is {last}")


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device) if hasattr(value, "to") else value


@torch.no_grad()
def _validate(
    objective: nn.Module, batches: Sequence[Sequence[int]], load_batch: Load, accelerator: Any
) -> dict[str, float]:
    """Return the mean of each loss over batches, which processes have by turns."""
    count, device = accelerator.num_processes, next(objective.parameters()).device
    found: list[tuple[int, dict[str, float], float]] = []
    for number in range(accelerator.process_index, len(batches), count):
        batch = load_batch(batches[number], "validation")
        losses, tokens = named(objective(*(_to(x, device) for x in batch)))
        values = {name: float(value) for name, value in losses.items()}
        found.append((number, values, 1.0 if tokens is None else float(tokens)))
    if count > 1:
        from accelerate.utils import gather_object

        found = sorted(gather_object(found), key=lambda each: each[0])
    means = {}
    for name in dict.fromkeys(name for _, values, _ in found for name in values):
        pairs = [(values[name], weight) for _, values, weight in found if name in values]
        means[name] = sum(v * w for v, w in pairs) / sum(w for _, w in pairs)
    return means
