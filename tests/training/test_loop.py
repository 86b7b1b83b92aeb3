"""A run goes on from its saves as if it had never ended, and processes share it exactly."""

import errno
import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from forks import Fork
from line_run import Dropped, Line, load, rows, run
from safetensors import safe_open
from torch import nn

from contar.training import RunConfig, loop, saves, train

UNCLIPPED = ("--steps", "1", "--clip", "1e9")  # a clipped gradient has lost its scale


def start(out: Path, *options: str, processes: int = 1) -> Fork:
    printed = out.with_name(f"{out.name}-printed.txt")
    return Fork(printed, tiny_run.main, [str(out), *options], processes=processes)


def finish(out: Path, *options: str, processes: int = 1) -> None:
    code, printed = start(out, *options, processes=processes).finish()
    assert code == 0, printed


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    finish(out)
    assert [row["step"] for row in rows(out / "log.csv")] == [str(i) for i in range(1, 9)]
    return out


def check_equal(out: Path, unbroken: Path) -> None:
    for name in ("log.csv", "validation.csv"):
        assert rows(out / name) == rows(unbroken / name)
    mine, other = (saves.complete_saves(folder)[-1] for folder in (out, unbroken))
    assert mine.name == other.name
    for file in ("model", "average", "optimizer"):
        with (
            safe_open(mine / f"{file}.safetensors", "pt") as a,
            safe_open(other / f"{file}.safetensors", "pt") as b,
        ):
            assert set(a.keys()) == set(b.keys())
            assert all(torch.equal(a.get_tensor(k), b.get_tensor(k)) for k in a.keys())  # noqa: SIM118


# A save is four files, each flushed, and two folders: 3 is inside the first save, 8 in the second.
@pytest.mark.parametrize("flush", [3, 8])
def test_a_run_killed_while_it_saves_goes_on_with_equal_losses(flush, tmp_path, unbroken):
    out = tmp_path / "run"
    code, printed = start(out, "--die-in-save", str(flush)).finish()
    assert code == -signal.SIGKILL, printed
    assert len(saves.complete_saves(out)) == (0 if flush == 3 else 1)
    finish(out, "--resume")
    check_equal(out, unbroken)


def test_a_run_killed_between_saves_goes_on_with_equal_losses(tmp_path, unbroken):
    out = tmp_path / "run"
    code, printed = start(out, "--die-in-step", "6").finish()
    assert code == -signal.SIGKILL, printed
    assert [folder.name for folder in saves.complete_saves(out)] == ["step-00000003"]
    finish(out, "--resume")
    check_equal(out, unbroken)


@pytest.fixture(scope="module")
def gradients(tmp_path_factory) -> list[torch.Tensor]:
    folder = tmp_path_factory.mktemp("whole")
    finish(folder / "run", "--gradients", str(folder / "gradients.pt"), *UNCLIPPED)
    return torch.load(folder / "gradients.pt")


@pytest.mark.parametrize(("processes", "parts"), [(2, 1), (1, 2)])
def test_processes_and_parts_of_a_batch_give_the_gradients_of_the_whole(
    processes, parts, tmp_path, gradients
):
    file = tmp_path / "gradients.pt"
    options = ("--gradients", str(file), "--parts", str(parts), *UNCLIPPED)
    finish(tmp_path / "run", *options, processes=processes)
    largest = max(float(whole.abs().max()) for whole in gradients)
    for mine, whole in zip(torch.load(file), gradients, strict=True):
        assert (mine - whole).abs().max() <= 1e-5 * largest  # float32's, of sums in another order


def test_a_loss_that_is_no_number_stops_the_run_names_the_step_and_keeps_the_last_save(
    tmp_path, refuses
):
    with refuses("loss", "nan", "step 4", "step-00000002"):
        run(tmp_path, Line(bad_from=3))
    assert [folder.name for folder in saves.complete_saves(tmp_path)] == ["step-00000002"]


def test_rows_before_a_loss_that_is_no_number_are_on_tensorboard(tmp_path, monkeypatch, refuses):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    closed, close = [], SummaryWriter.close
    monkeypatch.setattr(SummaryWriter, "close", lambda board: closed.append(close(board)))
    with refuses("loss"):
        run(tmp_path, Line(bad_from=3))
    assert closed  # else they are lost with the process
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("log/loss")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("left", "steps"),
    [("", "34"), ("step,lo", "34"), ("{whole}1", "1234"), ("{whole}3,0.5", "1234")],
)
def test_a_log_that_was_cut_off_is_gone_on_with_from_what_is_whole(left, steps, tmp_path):
    run(tmp_path)
    shutil.rmtree(tmp_path / "saves" / "step-00000004")
    whole, log = rows(tmp_path / "log.csv"), tmp_path / "log.csv"
    log.write_text(left.format(whole=log.read_text()))
    run(tmp_path, resume=True)
    assert rows(log) == whole[-len(steps) :]
    assert "".join(row["step"] for row in rows(log)) == steps


def test_resuming_leaves_the_config_as_it_was(tmp_path):
    run(tmp_path)
    file = tmp_path / "config.json"
    before = file.stat()
    run(tmp_path, resume=True)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("module", ["accelerate", "torch.utils.tensorboard"])
def test_what_is_not_installed_is_missed_with_the_name_of_the_extra(module, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r'pip install "contar\[train\]"'):
        run(tmp_path)


def test_a_full_disk_while_saving_leaves_the_last_save(tmp_path, monkeypatch):
    written, flush = [], saves._flush

    def full(path: Path) -> None:
        written.append(path)
        if len(written) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(path)

    monkeypatch.setattr(saves, "_flush", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path)
    left = sorted(path.name for path in (tmp_path / "saves").iterdir())
    assert left == ["step-00000002"]
    monkeypatch.setattr(saves, "_flush", flush)
    run(tmp_path, resume=True)
    assert len(rows(tmp_path / "log.csv")) == 4


@pytest.mark.parametrize("failing", ["sample", "load_validation"])
def test_steps_are_not_lost_where_samples_or_validation_fail(failing, tmp_path):
    def fail(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left for a sheet")

    config = RunConfig(steps=3, batch=4, warmup=1, log_every=1)
    options: dict[str, Any] = {"count": 16, "validate": [range(4)]}
    failed = {**options, failing: fail}
    with pytest.raises(OSError, match="for a sheet"):
        train(Line(), load, config, tmp_path / "run", **failed)
    assert [save.name for save in saves.complete_saves(tmp_path / "run")] == ["step-00000003"]
    again = train(Line(), load, config, tmp_path / "run", resume=True, **options)
    whole = train(Line(), load, config, tmp_path / "whole", **options)
    assert torch.equal(again.state_dict()["a"], whole.state_dict()["a"])
    assert len(rows(tmp_path / "run" / "log.csv")) == 3


def test_a_run_is_not_overwritten_and_not_resumed_with_another_config(tmp_path, refuses):
    run(tmp_path)
    with refuses("out", "resume"):
        run(tmp_path)
    with refuses("resume", "learning_rate: 0.001 then, 0.002 now", "seed: 0 then, 5 now"):
        run(tmp_path, resume=True, learning_rate=2e-3, seed=5)
    with refuses("resume", "data: None then, 'x' now"):
        run(tmp_path, resume=True, described={"data": "x"})


def test_a_finished_run_that_is_resumed_returns_what_it_made(tmp_path):
    made, again = run(tmp_path), run(tmp_path, resume=True)
    assert torch.equal(made.state_dict()["a"], again.state_dict()["a"])
    assert float(made.state_dict()["a"]) != 0


def test_only_the_latest_saves_are_kept_and_none_is_a_pickle(tmp_path):
    run(tmp_path, steps=6)
    names = [folder.name for folder in saves.complete_saves(tmp_path)]
    assert names == ["step-00000004", "step-00000006"]
    files = {path.suffix for path in (tmp_path / "saves").rglob("*") if path.is_file()}
    assert files == {".safetensors", ".json"}
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == 6


def test_the_rate_rises_linearly_and_falls_to_0_as_a_cosine(tmp_path):
    run(tmp_path, steps=8, warmup=4)
    rates = [float(row["rate"]) for row in rows(tmp_path / "log.csv")]
    assert rates[:5] == pytest.approx([0, 0.25e-3, 0.5e-3, 0.75e-3, 1e-3])
    assert rates[6] == pytest.approx(0.5e-3)


def test_a_constant_rate_stays_at_its_height(tmp_path):
    run(tmp_path, steps=8, warmup=4, schedule="constant")
    rates = [float(row["rate"]) for row in rows(tmp_path / "log.csv")]
    assert rates == pytest.approx([0, 0.25e-3, 0.5e-3, 0.75e-3, *4 * [1e-3]])


def test_biases_stay_where_only_matrices_decay(tmp_path):
    class Still(nn.Module):  # whose gradients are 0, so that what moves a weight is its decay
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2))

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": (nn.functional.linear(x, self.weight, self.bias) * 0).sum()}

    numbers: dict[str, Any] = {
        "steps": 1,
        "batch": 2,
        "warmup": 0,
        "learning_rate": 0.1,
        "weight_decay": 0.5,
    }
    for decayed, kept in (("all", 0.95), ("matrices", 1.0)):
        model = Still()
        config = RunConfig(**{**numbers, "decayed": decayed})
        train(
            model, lambda ids, step: (torch.ones(len(ids), 3),), config, tmp_path / decayed, count=2
        )
        torch.testing.assert_close(model.weight.data, torch.full((2, 3), 0.95))
        torch.testing.assert_close(model.bias.data, torch.full((2,), kept))


def test_a_run_with_weights_that_decay_apart_goes_on_as_it_would_have(tmp_path):
    run(tmp_path / "whole", decayed="matrices", schedule="constant")
    run(tmp_path / "cut", decayed="matrices", schedule="constant")
    shutil.rmtree(tmp_path / "cut" / "saves" / "step-00000004")
    run(tmp_path / "cut", resume=True, decayed="matrices", schedule="constant")
    assert rows(tmp_path / "cut" / "log.csv") == rows(tmp_path / "whole" / "log.csv")


def test_a_run_to_be_resumed_that_has_no_save_says_that_it_begins(tmp_path, caplog):
    run(tmp_path, resume=True)
    assert f"no save in {tmp_path}: the run begins" in caplog.text
    caplog.clear()
    run(tmp_path, resume=True)
    assert not caplog.text


class Stopped(Line):
    """A line at one of whose steps, the third by default, Ctrl-C comes, once or twice."""

    def __init__(self, times: int, at: int = 2) -> None:
        super().__init__()
        self.times, self.at = times, at

    def forward(self, x: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
        for _ in range(self.times if step == self.at else 0):
            signal.raise_signal(signal.SIGINT)
        return super().forward(x, step)


def test_ctrl_c_saves_the_step_at_work_and_the_run_goes_on_as_it_would_have(tmp_path):
    run(tmp_path / "whole")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="step 3 is saved; resume goes on from it"):
        run(tmp_path / "cut", Stopped(1))
    assert signal.getsignal(signal.SIGINT) is before
    assert saves.complete_saves(tmp_path / "cut")[-1].name == "step-00000003"
    run(tmp_path / "cut", resume=True)
    assert rows(tmp_path / "cut" / "log.csv") == rows(tmp_path / "whole" / "log.csv")


def test_ctrl_c_in_the_last_step_is_not_lost(tmp_path):
    with pytest.raises(KeyboardInterrupt, match="step 4 is saved"):
        run(tmp_path, Stopped(1, at=3))
    assert run(tmp_path, resume=True).get_parameter("a").item() > 0


def test_ctrl_c_while_the_last_step_is_saved_is_not_lost(tmp_path, monkeypatch):
    def stopped(out: Path, done: int, **state: Any) -> None:
        saves.save(out, done, **state)
        if done == 4:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(loop, "save", stopped)
    with pytest.raises(KeyboardInterrupt, match="step 4 is saved"):
        run(tmp_path)


def test_a_second_ctrl_c_ends_a_run_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        run(tmp_path, Stopped(2))
    assert saves.complete_saves(tmp_path)[-1].name == "step-00000002"


def test_a_run_from_before_the_schedule_could_be_chosen_goes_on(tmp_path):
    run(tmp_path)
    whole = rows(tmp_path / "log.csv")
    shutil.rmtree(tmp_path / "saves" / "step-00000004")
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    file.write_text(
        json.dumps({k: v for k, v in config.items() if k not in ("schedule", "decayed")})
    )
    run(tmp_path, resume=True)
    assert rows(tmp_path / "log.csv") == whole


def test_a_resumed_run_draws_from_the_global_generator_what_it_would_have_drawn(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        run(tmp_path, Dropped())
        whole = rows(tmp_path / "log.csv")
        shutil.rmtree(tmp_path / "saves" / "step-00000004")
        torch.manual_seed(1)
        run(tmp_path, Dropped(), resume=True)
    assert rows(tmp_path / "log.csv") == whole


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0), ("batch", 0), ("parts", 3), ("learning_rate", -1.0), ("warmup", -1),
        ("clip", 0.0), ("ema", 1.5), ("precision", "fp8"), ("seed", -1), ("save_every", 0),
        ("schedule", "linear"), ("decayed", "none"), ("betas", (0.9, 1.0)), ("betas", (0.9,)),
    ],
)  # fmt: skip
def test_a_run_config_refuses_what_is_outside_its_range(name, value, refuses):
    with refuses(name, repr(value)):
        RunConfig(**{name: value})


def test_what_else_defines_a_run_may_not_hide_its_config(tmp_path, refuses):
    with refuses("described", "seed"):
        run(tmp_path, described={"seed": "mine"})
