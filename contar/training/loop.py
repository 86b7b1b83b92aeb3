"""The loop of a run: on accelerate, with EMA, logs and saves to go on from."""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from contar._errors import bad
from contar.training.config import RunConfig
from contar.training.distributed import one_run, processes, together
from contar.training.folder import load_last, prepare_folder
from contar.training.log import RunLog
from contar.training.named_losses import NamedLosses
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
    saved: in between it does not wait. Ctrl-C in a run of one process has it end its step and
    save; a second one ends it at once. Such a run saves, too, where validation or samples fail.

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
        KeyboardInterrupt: Ctrl-C; it says from which step the run goes on, where that was saved.
        ImportError: accelerate or tensorboard is not installed, or timm for weights that decay
            apart.
    """
    definition = _definition(config, described or {})
    accelerator = _accelerator(config)
    with one_run(out):
        saves = complete_saves(out)
        together(lambda: prepare_folder(out, definition, resume=resume, saves=saves))

        run, main = _Run(objective, config, accelerator, saves), accelerator.is_main_process
        logs = closing(RunLog(out, run.start)) if main else nullcontext()
        bar = tqdm(
            total=config.steps, initial=run.start, unit="step", desc=out.name, disable=not main
        )
        with bar, logs as log, _fast_products(run.device), _interrupted(accelerator) as stop:
            began, counted = time.monotonic(), run.start
            for step in range(run.start, config.steps):
                done = step + 1
                values = run.step(load_batch, count, step, out)
                if values:
                    told = {n: f"{x:.4g}" for n, x in values.items() if n not in ("norm", "rate")}
                    bar.set_postfix(told, refresh=False)
                bar.update()
                if log and _due(config, done, config.log_every):
                    now = time.monotonic()
                    seconds, began, counted = (now - began) / (done - counted), now, done
                    log.row("log", done, {**values, "seconds": seconds})
                paused = time.monotonic()
                try:
                    run.look(done, log, validate, load_validation, sample)
                except Exception:
                    if accelerator.num_processes == 1:  # others would wait for this
                        run.save(out, done, definition)
                    raise
                ends = stop.is_set()
                if ends or _due(config, done, config.save_every):
                    run.save(out, done, definition)
                if ends or (stop.is_set() and done == config.steps):
                    raise KeyboardInterrupt(f"step {done} is saved; resume goes on from it")
                began += time.monotonic() - paused
        accelerator.wait_for_everyone()
        accelerator.free_memory()
        return run.averaged()


class _Run:
    """What a run changes, as at its beginning or in its last good save."""

    def __init__(
        self, objective: nn.Module, config: RunConfig, accelerator: Any, saves: Sequence[Path]
    ) -> None:
        from transformers import get_scheduler

        self.config, self.accelerator, self.device = config, accelerator, accelerator.device
        sharded = config.shard and accelerator.num_processes > 1
        self.plain = objective if sharded else objective.to(self.device)
        self.average = deepcopy(self.plain).eval()
        self.whole: Callable[[nn.Module], nn.Module] | None = None  # which makes a copy that is
        if sharded:
            check_shareable(objective)
            self.whole = unshared(objective)
            for module in (objective, self.average):
                share_out(module, config, self.device)
        self.trained = [p for p in objective.parameters() if p.requires_grad]
        optimizer: Any = torch.optim.AdamW(
            _groups(objective, config),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=self.device.type == "cuda",
        )
        modules = {"model": self.plain, "average": self.average}
        self.parts: dict[str, Any] = {"modules": modules, "optimizer": optimizer}  # of a save
        kind = "cosine" if config.schedule == "cosine" else "constant_with_warmup"
        self.schedule: Any = get_scheduler(kind, optimizer, config.warmup, config.steps)
        self.start = 0
        if saves:
            state = load_last(saves, **self.parts)
            self.start = state["step"]
            self.schedule.load_state_dict(state["schedule"])
        if sharded:  # which takes care of the gradients
            prepared = accelerator.prepare_model(
                self.plain, device_placement=False, evaluation_mode=True
            )
            optimizer = accelerator.prepare_optimizer(optimizer, device_placement=False)
        else:
            prepared, optimizer = accelerator.prepare(self.plain, optimizer)
        self.prepared, self.optimizer = prepared, optimizer
        self.amiss = torch.full((), config.steps, device=self.device)  # first step not finite

    def averaged(self) -> nn.Module:
        """Return the averaged objective as a whole; all processes have to ask."""
        return self.whole(self.average) if self.whole else self.average

    def look(
        self,
        done: int,
        log: RunLog | None,
        validate: Sequence[Sequence[int]],
        load_validation: Load | None,
        sample: Callable[[nn.Module, int], None] | None,
    ) -> None:
        """Validate, and have samples made, in the steps in which that is due."""
        checks = load_validation if _due(self.config, done, self.config.validate_every) else None
        shows = sample if _due(self.config, done, self.config.sample_every) else None
        if checks is None and shows is None:
            return
        average = self.averaged()
        if checks is not None:
            with _aside(self.device):
                losses = _validate(average, validate, checks, self.accelerator)
            if log:
                log.row("validation", done, losses)
        if shows is not None and log:
            with _aside(self.device):
                shows(average, done)

    def save(self, out: Path, done: int, definition: Mapping[str, Any]) -> None:
        """Save; a ValueError if a step that was not looked at, as on a GPU, was not finite."""
        if int(self.amiss) < self.config.steps:
            unseen = {"loss": math.nan, "norm": math.nan}
            _check_finite(unseen, done, int(self.amiss), out)
        state = {"schedule": self.schedule.state_dict(), "config": definition}
        save(out, done, **self.parts, state=state)

    def step(self, load_batch: Load, count: int, step: int, out: Path) -> dict[str, float]:
        """Take a step; return its losses, norm and rate where they are looked at, else nothing."""
        config, accelerator = self.config, self.accelerator
        hasty = self.device.type == "cuda"
        every = (config.log_every, config.validate_every, config.sample_every, config.save_every)
        looked = not hasty or _due(config, step + 1, *every)
        mine = config.batch // accelerator.num_processes // config.parts
        indices = batch_indices(count, config.batch, step, seed=config.seed)
        seen = NamedLosses()
        values: dict[str, float] = {}
        for part in range(config.parts):
            first = (accelerator.process_index * config.parts + part) * mine
            batch = load_batch(indices[first : first + mine], step)
            with accelerator.accumulate(self.prepared):
                losses = self.prepared(*(_to(x, self.device) for x in batch))
                accelerator.backward(seen.add(losses))
                if accelerator.sync_gradients:
                    seen.unweigh(self.trained, accelerator)
                    total: Any = accelerator.clip_grad_norm_(self.trained, config.clip)
                    total = total.full_tensor() if is_shared(total) else total
                    if hasty:
                        both = accelerator.reduce(seen.loss, "mean") + total
                        ended = self.amiss.clamp(max=step)
                        self.amiss = torch.where(both.isfinite(), self.amiss, ended)
                    if looked:
                        values = {**seen.means(accelerator), "norm": float(total)}
                        _check_finite(values, step, int(self.amiss), out)
                        values["rate"] = self.schedule.get_last_lr()[0]
                self.optimizer.step()
                self.optimizer.zero_grad()
        self.schedule.step()
        _move(self.average, self.plain, min(config.ema, 1 - max(step, 1) ** (-2 / 3)))
        return values


def _accelerator(config: RunConfig) -> Any:
    """Return an `Accelerator` of the config's; ValueError if the processes do not split a batch."""
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


def _definition(config: RunConfig, described: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run is, through JSON and back, as it will be compared."""
    if taken := asdict(config).keys() & described:
        raise bad("described", sorted(taken), "names that the config has not")
    return json.loads(json.dumps({**asdict(config), **described}))


def _groups(objective: nn.Module, config: RunConfig) -> Any:
    """Return the optimizer's groups of parameters: all in one, or those apart that do not decay."""
    if config.decayed == "all":
        return [parameter for parameter in objective.parameters() if parameter.requires_grad]
    try:
        from timm.optim import param_groups_weight_decay  # pyright: ignore
    except ImportError as error:
        raise ImportError(f'{error} (pip install "contar[train]")') from error
    return param_groups_weight_decay(objective, config.weight_decay)


def _move(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Move averaged weights towards a model's, those of two names once; copy whole numbers."""
    states = (map(local, module.state_dict().values()) for module in (average, model))
    pairs = zip(*states, strict=True)
    once = {(a.data_ptr(), a.shape, a.stride()): (a, b) for a, b in pairs}.values()
    moved = [(a, b) for a, b in once if a.is_floating_point()]
    for a, b in once:
        if not a.is_floating_point():
            a.copy_(b)
    get_ema_multi_avg_fn(decay)([a for a, _ in moved], [b for _, b in moved], 0)


def _due(config: RunConfig, done: int, *every: int) -> bool:
    """Return whether so many steps are the last, or a multiple of one of the numbers."""
    return done == config.steps or any(done % steps == 0 for steps in every)


@contextmanager
def _interrupted(accelerator: Any) -> Iterator[threading.Event]:
    """Yield what the first Ctrl-C sets, where Python has it and no other process waits for this."""
    came, handler = threading.Event(), signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()  # no other gets any
    if accelerator.num_processes > 1 or not main or not callable(handler):
        yield came
        return

    def wait(*_: object) -> None:
        came.set()
        signal.signal(signal.SIGINT, handler)

    signal.signal(signal.SIGINT, wait)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, handler)


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


def _aside(device: torch.device) -> AbstractContextManager[None]:
    """Leave the random state as it was, so that how often this happens changes no step."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def _check_finite(values: Mapping[str, float], step: int, amiss: int, out: Path) -> None:
    loss, norm = values["loss"], values["norm"]
    if amiss < step or not math.isfinite(loss + norm):
        last = next((folder.name for folder in reversed(complete_saves(out))), "none")
        got = f"{loss} with a gradient of norm {norm} at step {min(step, amiss) + 1}"
        raise bad("loss", got, f"finite numbers; the last save is {last}")


def _to(value: Any, device: torch.device) -> Any:
    return value.to(device) if hasattr(value, "to") else value


@torch.no_grad()
def _validate(
    objective: nn.Module, batches: Sequence[Sequence[int]], load_batch: Load, accelerator: Any
) -> dict[str, float]:
    """Return the mean of each loss over batches, which processes have by turns."""
    seen = NamedLosses(exact=True)
    mine = islice(batches, accelerator.process_index, None, accelerator.num_processes)
    for indices in mine:
        batch = load_batch(indices, "validation")
        seen.add(objective(*(_to(x, accelerator.device) for x in batch)))
    return seen.means(accelerator)
