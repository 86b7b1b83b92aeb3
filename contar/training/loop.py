"""The loop of a run: on accelerate, with EMA, logs and saves to go on from."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from contar._errors import bad, check_choice, check_count, check_number, keep_plain
from contar._files import read_json, write_whole
from contar.training.distributed import one_run, processes, together
from contar.training.log import FILES, RunLog, read_log
from contar.training.order import batch_indices
from contar.training.saves import STATE, complete_saves, load, save

# Of a `RunConfig`: what may differ when a run is resumed, because it changes no number but by
# rounding.
_FREE = ("parts", "log_every", "validate_every", "sample_every", "save_every")
_COLUMNS = ("step", "norm", "rate", "seconds")  # of the log, beside the losses
_LOG = logging.getLogger(__name__)


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
        keep_plain(self)
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
            in some steps only; their means are over where they are.
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
    processes()  # before accelerate's own state, for the time that they wait for one another
    accelerator = _accelerator(config)
    world = accelerator.num_processes
    if config.batch % (world * config.parts):
        allowed = f"a multiple of {world} processes times parts={config.parts}"
        raise bad("batch", config.batch, allowed)
    with one_run(out):
        # Through JSON and back, as it will be compared.
        definition = json.loads(json.dumps({**asdict(config), **(described or {})}))
        saves = complete_saves(out)
        together(lambda: _prepare_folder(out, definition, resume=resume, saves=saves))

        run = _begin(objective, config, accelerator, saves)
        average = run.average.module
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
                if load_validation and (last or done % config.validate_every == 0):
                    with _aside(run.device):
                        checked = _validate(average, validate, load_validation)
                    if log:
                        log.row("validation", done, checked)
                if not log:
                    continue
                if sample and (last or done % config.sample_every == 0):
                    with _aside(run.device):
                        sample(average, done)
                if last or done % config.save_every == 0:
                    state = {"schedule": run.schedule.state_dict(), "config": definition}
                    kept = {"modules": run.modules, "optimizer": run.optimizer.optimizer}
                    save(out, done, state=state, **kept)
                began += time.monotonic() - paused
        accelerator.wait_for_everyone()
        accelerator.free_memory()
    return average


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
    named: tuple[str, ...] = ()  # losses

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What a save holds."""
        return {"model": self.plain, "average": self.average.module}

    def step(self, load_batch: Load, count: int, step: int, out: Path) -> dict[str, float]:
        """Take a step; return its losses, norm and rate where they are looked at, else nothing."""
        config, accelerator = self.config, self.accelerator
        hasty = self.device.type == "cuda"
        looked = not hasty or step + 1 == config.steps or _is_due(config, step + 1)
        mine = config.batch // accelerator.num_processes // config.parts
        indices = batch_indices(count, config.batch, step, seed=config.seed)
        seen = _Losses()
        values: dict[str, float] = {}
        norm = math.nan
        for part in range(config.parts):
            first = (accelerator.process_index * config.parts + part) * mine
            batch = load_batch(indices[first : first + mine], step)
            with accelerator.accumulate(self.wrapped):
                losses = self.wrapped(*(_to(x, self.device) for x in batch))
                seen.add(losses)
                accelerator.backward(losses["loss"])
                if accelerator.sync_gradients:
                    total: Any = accelerator.clip_grad_norm_(self.parameters, config.clip)
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
    plain = objective.to(accelerator.device)
    parameters = [p for p in objective.parameters() if p.requires_grad]
    optimizer: Any = torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=accelerator.device.type == "cuda",
    )
    average, schedule, start = _average(plain, config.ema), _schedule(optimizer, config), 0
    if saves:
        modules = {"model": plain, "average": average.module}
        state = _load_last(saves, modules=modules, optimizer=optimizer)
        start = state["step"]
        schedule.load_state_dict(state["schedule"])
    wrapped, optimizer = accelerator.prepare(plain, optimizer)
    amiss = torch.full((), config.steps, device=accelerator.device)
    whole = (config, accelerator, plain, wrapped, parameters, optimizer, schedule, average)
    return _Run(*whole, start, amiss)


def _accelerator(config: RunConfig) -> Any:
    """Return an `Accelerator` of the config's, whatever the environment says."""
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState
    from accelerate.utils import GradientAccumulationPlugin

    AcceleratorState._reset_state()  # of an earlier run, whose precision may have been another
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=config.precision,
        # A number alone would give way to a variable of the environment.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=config.parts),
        # A network for videos that learns from pictures has parts without a gradient.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


def _average(model: nn.Module, decay: float) -> Any:
    try:
        from timm.utils.model_ema import ModelEmaV3
    except ImportError as error:
        raise ImportError(f'{error} (pip install "contar[train]")') from error

    class Average(ModelEmaV3):
        """Moves weights that have two names once a step."""

        def apply_update_(self, model: nn.Module, decay: float) -> None:
            pairs = zip(self.module.state_dict().values(), model.state_dict().values(), strict=True)
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


class _Losses:
    """Sums of named losses over the parts of a step, which need not all have each."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, losses: Any) -> None:
        """Add one part's.

        Raises:
            ValueError: no named scalars with "loss" among them, or a name of another column.
        """
        if not isinstance(losses, Mapping) or "loss" not in losses:
            got = list(losses) if isinstance(losses, Mapping) else type(losses).__name__
            raise bad("losses", got, 'a mapping from names to losses, "loss" among them')
        for name, value in losses.items():
            if not isinstance(name, str) or name in _COLUMNS or {"\n", "\r"} & set(name):
                raise bad("losses", name, "names of one line, other than " + ", ".join(_COLUMNS))
            if not isinstance(value, Tensor) or value.numel() != 1:
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise bad(f"losses[{name!r}]", shape, "a tensor of one number")
            value = value.detach().reshape(())
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    @property
    def loss(self) -> Tensor:
        """Return the mean over the parts of what is minimised."""
        return self._sums["loss"] / self._counts["loss"]

    def means(self, accelerator: Any) -> dict[str, float]:
        """Return the mean of each over all parts and processes that have it."""
        if accelerator.num_processes == 1:
            return {name: float(x) / self._counts[name] for name, x in self._sums.items()}
        from accelerate.utils import gather_object

        names = dict.fromkeys(name for mine in gather_object([list(self._sums)]) for name in mine)
        both = torch.tensor(
            [
                [float(self._sums.get(name, 0.0)) for name in names],
                [self._counts.get(name, 0) for name in names],
            ],
            device=accelerator.device,
        )
        sums, counts = accelerator.reduce(both, "sum")
        return dict(zip(names, (sums / counts).tolist(), strict=True))


def _is_due(config: RunConfig, done: int) -> bool:
    """Return whether a row, a validation, samples or a save follow after so many steps."""
    every = (config.log_every, config.validate_every, config.sample_every, config.save_every)
    return any(done % steps == 0 for steps in every)


def _load_last(saves: Sequence[Path], **parts: Any) -> dict[str, Any]:
    """Load the last save that is good, and say which ones are not.

    Raises:
        ValueError, FileNotFoundError: none is; of the last one.
    """
    damaged: list[Exception] = []
    for folder in reversed(saves):
        try:
            state = load(folder, **parts)
            if not isinstance(state.get("schedule"), dict):
                raise bad(f"{folder.name}/{STATE}", "no schedule", "the one that was saved")
        except (ValueError, FileNotFoundError) as error:
            damaged.append(error)
            continue
        for error in damaged:
            _LOG.warning("a save is passed over, %s is taken: %s", folder.name, error)
        return state
    raise damaged[0]


def _prepare_folder(
    out: Path, definition: dict[str, Any], *, resume: bool, saves: Sequence[Path]
) -> None:
    """Check that the run may go on, or begin, in its folder; write its config if it begins."""
    if saves and not resume:
        raise bad("out", str(out), "a folder without saves, or resume to go on from them")
    file = out / "config.json"
    if not saves:
        _check_new(out, file)
    for name in FILES:
        read_log(out / name)
    if saves and file.exists():
        _check_same(_read_config(file), definition)
    else:
        if saves:
            _check_same(_config_of(saves), definition)
        (out / "saves").mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(definition, indent=2) + "\n")


def _check_new(out: Path, file: Path) -> None:
    """Refuse files by names that the run writes, unless an earlier one began there."""
    try:
        if {field.name for field in fields(RunConfig)} <= set(read_json(file)):
            return
    except (ValueError, FileNotFoundError):
        pass
    taken = [path for name in ("config.json", *FILES, "samples-*") for path in out.glob(name)]
    if taken:
        names = ", ".join(sorted(path.name for path in taken))
        got = f"{out} with files that no run made, or whose config.json is gone: {names}"
        raise bad("out", got, "a folder where these names are free")


def _read_config(file: Path) -> dict[str, Any]:
    try:
        return read_json(file)
    except ValueError as error:
        raise ValueError(f"{error}, or no such file: the saves hold the config as well") from error


def _config_of(saves: Sequence[Path]) -> dict[str, Any]:
    """Return the config that the last good save holds."""
    for folder in reversed(saves):
        try:
            config = read_json(folder / STATE).get("config")
        except ValueError:
            continue
        if isinstance(config, dict):
            return config
    raise bad("config.json", "no such file, nor a config in a save", "the config of the run")


def _check_same(stored: Mapping[str, Any], definition: Mapping[str, Any]) -> None:
    differing = [
        f"{name}: {stored.get(name)!r} then, {definition.get(name)!r} now"
        for name in sorted({*stored, *definition} - set(_FREE))
        if stored.get(name) != definition.get(name)
    ]
    if differing:
        raise bad("resume", "another config (" + "; ".join(differing) + ")", "the config it had")


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
    objective: nn.Module, batches: Sequence[Sequence[int]], load_batch: Load
) -> dict[str, float]:
    device = next(objective.parameters()).device
    found: dict[str, list[float]] = {}
    for indices in batches:
        batch = load_batch(indices, "validation")
        for name, value in objective(*(_to(x, device) for x in batch)).items():
            found.setdefault(name, []).append(float(value))
    return {name: sum(values) / len(values) for name, values in found.items()}
