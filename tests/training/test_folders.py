"""A run's folder: what is not the run's stays, two runs never share it, damage is named."""

import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from forks import Fork
from line_run import QUICK, Dropped, Line, load, rows, run
from torch import nn

from contar._lock import LOCK, locked
from contar.training import RunConfig, batch_indices, processes, saves, train


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    run(out)
    return out


@pytest.fixture
def out(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def half(out: Path) -> None:
    shutil.rmtree(out / "saves" / "step-00000004")


# What others put there.


OWN = {
    "prompts.csv": b"prompt,seed\na cat,one\n", "notes.csv": b"\xff\xfe\x00", "empty.csv": b"",
    "step.csv": b"step,loss\n1,2\n9,3\n", "log.txt": b"mine", "saves/notes.txt": b"mine",
    "saves/step-x/state.json": b"{}", "saves/.step-mine/a": b"mine", "state.json": b"{}",
    "saves/step-00000002/notes.txt": b"mine", "saves/step-7/state.json": b"{}",
    "model.safetensors": b"mine",
}  # fmt: skip


def put(out: Path) -> None:
    for name, content in OWN.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)


def test_files_that_no_run_made_are_as_they_were_after_a_run_and_a_resumed_one(tmp_path):
    out = tmp_path / "run"
    put(out)
    run(out)
    assert {name: (out / name).read_bytes() for name in OWN} == OWN
    assert [folder.name for folder in saves.complete_saves(out)] == [
        "step-00000002", "step-00000004",
    ]  # fmt: skip
    half(out)
    run(out, resume=True, save_every=1)
    assert {name: (out / name).read_bytes() for name in OWN} == OWN
    assert [folder.name for folder in saves.complete_saves(out)] == [
        "step-00000003", "step-00000004",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", '{"mine": 1}'), ("config.json", "garbage"), ("log.csv", "date,note\na,b\n"),
        ("log.csv", "step,loss\n1,2.0\n"), ("validation.csv", "step,x\n9,1\n"),
        ("samples-000002.png", "mine"),
    ],
)  # fmt: skip
def test_a_file_by_a_name_that_a_run_writes_is_refused_and_kept(name, content, tmp_path, refuses):
    (tmp_path / name).write_text(content)
    for resume in (False, True):
        with refuses("out", name, str(tmp_path)):
            run(tmp_path, resume=resume)
    assert (tmp_path / name).read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_run_that_ended_before_its_first_save_begins_anew(tmp_path):
    run(tmp_path)
    shutil.rmtree(tmp_path / "saves")
    run(tmp_path)
    assert [row["step"] for row in rows(tmp_path / "log.csv")] == list("1234")


# Two at once.


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 120
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def hold(out: Path) -> None:
    with locked(out):
        if os.fork() == 0:  # as workers of a data loader are; it lives on
            out.with_name("held").touch()  # it has let go of the lock, as every child does
            wait_for(out.with_name("done"))
            os._exit(0)
        time.sleep(60)


def test_a_second_run_is_refused_by_name_until_the_first_is_killed(out, refuses):
    half(out)
    process = Fork(out.with_name("printed.txt"), hold, out).process
    try:
        wait_for(out.with_name("held"))
        for resume in (True, False):
            with refuses("out", str(out), f"process {process.pid}"):
                run(out, resume=resume)
        assert [folder.name for folder in saves.complete_saves(out)] == ["step-00000002"]
    finally:
        process.kill()
        process.join()
    assert (out / LOCK).exists()
    run(out, resume=True)  # beside the child
    out.with_name("done").touch()
    assert not (out / LOCK).exists()
    assert len(saves.complete_saves(out)) == 2


def test_two_real_resumes_of_one_run_go_one_after_the_other(tmp_path):
    command = [str(tmp_path / "run"), "--steps", "100000"]
    first = Fork(tmp_path / "first.txt", tiny_run.main, command).process
    try:
        deadline = time.monotonic() + 120
        while not saves.complete_saves(tmp_path / "run"):
            assert first.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        code, printed = Fork(tmp_path / "b.txt", tiny_run.main, [*command, "--resume"]).finish()
        assert code == 1
        assert f"another run goes on (process {first.pid} on" in printed
        assert first.is_alive()
    finally:
        first.kill()
        first.join()
    last = saves.complete_saves(tmp_path / "run")[-1]
    with locked(tmp_path / "run"):  # nothing of it is left
        assert last.is_dir()


def test_a_lock_is_let_go_of_whatever_ends_the_run(tmp_path, refuses):
    class Ended(Line):
        def forward(self, x: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
            with refuses("out", "another run goes on"), locked(tmp_path):
                pass
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, Ended())
    run(tmp_path)


def test_a_file_system_without_locks_does_without(tmp_path, monkeypatch):
    def none(*arguments: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", none)
    run(tmp_path)
    assert len(rows(tmp_path / "log.csv")) == 4


# What is damaged.


@pytest.mark.parametrize("file", ["model", "average", "optimizer", "state.json"])
@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_the_last_good_save_goes_on_where_a_later_one_is_damaged(
    file, content, out, finished, caplog
):
    name = file if "." in file else f"{file}.safetensors"
    path = out / "saves" / "step-00000004" / name
    if content is not None:
        path.write_bytes(content)
    elif file != "state.json":
        path.unlink()
    else:
        path.write_text("{}")
    with caplog.at_level(logging.WARNING):
        run(out, resume=True)
    assert "step-00000002 is taken" in caplog.text
    assert name in caplog.text
    assert rows(out / "log.csv") == rows(finished / "log.csv")
    assert [folder.name for folder in saves.complete_saves(out)] == [
        "step-00000002", "step-00000004",
    ]  # fmt: skip


def test_where_no_save_is_good_the_last_one_is_named(out, refuses):
    for folder in saves.complete_saves(out):
        (folder / "model.safetensors").write_bytes(b"garbage")
    with refuses("step-00000004/model.safetensors"):
        run(out, resume=True)


@pytest.mark.parametrize(
    "name", ["step-x", "step-", "step-7", "step-99999999", "step-0000000x", "step-0000000٣"]
)
def test_a_folder_that_is_no_save_is_not_taken_for_one(name, out, finished):
    half(out)
    strange = out / "saves" / name
    strange.mkdir()
    (strange / "state.json").write_text("{}")
    run(out, resume=True)
    assert rows(out / "log.csv") == rows(finished / "log.csv")
    assert (strange / "state.json").read_text() == "{}"
    assert (out / "saves" / "step-00000002").is_dir()  # nor counted as one that is kept


def test_a_config_that_is_gone_is_taken_from_the_last_save(out, refuses):
    half(out)
    before = json.loads((out / "config.json").read_text())
    (out / "config.json").unlink()
    with refuses("resume", "seed: 0 then, 5 now"):
        run(out, resume=True, seed=5)
    run(out, resume=True)
    assert json.loads((out / "config.json").read_text()) == before
    assert len(rows(out / "log.csv")) == 4


@pytest.mark.parametrize("content", [b"garbage", b"\xff\x00", b"[]", b"null", b"[" * 100_000])
def test_a_config_that_is_garbage_is_named_with_what_to_do(content, out, refuses):
    half(out)
    (out / "config.json").write_bytes(content)
    with refuses("config.json", str(out), "or no such file: the saves hold the config"):
        run(out, resume=True)
    (out / "config.json").unlink()
    run(out, resume=True)
    assert len(rows(out / "log.csv")) == 4


@pytest.mark.parametrize("name", ["log.csv", "validation.csv"])
@pytest.mark.parametrize(
    "content",
    [
        b"garbage\n", b"\xff\xfe\x80\n", b"\0" * 50 + b"\n", b"a,b\n1,2\n", b"step,loss\nx,1\n",
        b"step,loss\n1,high\n", b"step,loss\n1,2,3\n2,3\n", b'step,"loss\n1,2\n', b"step,a,a\n",
    ],
)  # fmt: skip
def test_a_log_that_is_garbage_is_named_with_what_to_do_and_kept(name, content, out, refuses):
    half(out)
    (out / name).write_bytes(content)
    with refuses(name, str(out / name), "move it away"):
        run(out, resume=True)
    assert (out / name).read_bytes() == content
    (out / name).rename(out / "moved")
    run(out, resume=True)
    assert rows(out / "log.csv")[-1]["step"] == "4"


def test_a_log_whose_end_was_lost_with_the_power_goes_on(out, finished):
    half(out)
    with (out / "log.csv").open("ab") as log:
        log.write(b"5,0.2" + b"\0" * 100)
    run(out, resume=True)
    assert rows(out / "log.csv") == rows(finished / "log.csv")


# Losses that come and go.


class Coming(Line):
    """Has a second loss in every other step, whose name holds a comma."""

    def forward(self, x: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
        losses = super().forward(x, step)
        extra = {'first, or "later"': losses["loss"] * 0 + step}
        return {**losses, **extra} if step % 2 else {**extra, **losses} if step > 9 else losses


def test_a_loss_that_comes_and_goes_has_a_column_of_its_own(tmp_path):
    run(tmp_path, Coming(), steps=12)
    log = rows(tmp_path / "log.csv")
    assert [row['first, or "later"'] for row in log] == [
        "", "1.0", "", "3.0", "", "5.0", "", "7.0", "", "9.0", "10.0", "11.0",
    ]  # fmt: skip
    assert all(float(row["loss"]) >= 0 and float(row["norm"]) >= 0 for row in log)
    shutil.rmtree(tmp_path / "saves" / "step-00000012")
    run(tmp_path, Coming(), steps=12, resume=True)
    assert rows(tmp_path / "log.csv") == log


def test_the_curves_of_such_a_log_are_drawn(tmp_path):
    from contar.training import save_curves

    run(tmp_path, Coming())
    assert save_curves({"run": tmp_path}, tmp_path / "curves.png").stat().st_size > 1000


class Parts(Line):
    """Has a second loss for the first samples of an epoch only."""

    def forward(self, x: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
        losses = super().forward(x, step)
        return {**losses, "few": x.mean()} if float(x.min()) < 4 else losses


class Some(nn.Module):
    """Has a second loss in all processes but the first."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        loss = (self.a * x - 2 * x).square().mean()
        return {"loss": loss, **({"second": loss * 0 + 7} if processes().process_index else {})}


def apart(out: Path) -> None:
    config = RunConfig(steps=2, batch=4, log_every=1)
    train(Some(), lambda indices, step: (torch.tensor(indices).float(),), config, out, count=16)


def test_a_loss_of_one_process_alone_is_its_own_and_an_error_of_one_is_every_ones(tmp_path):
    out = tmp_path / "run"
    code, printed = Fork(tmp_path / "a.txt", apart, out, processes=2).finish()
    assert code == 0, printed
    assert [row["second"] for row in rows(out / "log.csv")] == ["7.0", "7.0"]
    code, printed = Fork(tmp_path / "b.txt", apart, out, processes=2).finish()
    assert code == 1
    assert printed.count("ValueError: out: got") == 2, printed


def test_a_loss_of_some_parts_or_batches_is_the_mean_over_those(tmp_path):
    config = RunConfig(**{**QUICK, "parts": 4, "batch": 8, "validate_every": 2})
    train(
        Parts(), load, config, tmp_path, count=16,
        validate=[range(4), range(4, 8), range(2, 6)], load_validation=load,
    )  # fmt: skip
    told, counts = [], set()
    for step in range(config.steps):
        parts = torch.tensor(batch_indices(16, 8, step, seed=config.seed)).float().split(2)
        low = [float(part.mean()) for part in parts if part.min() < 4]
        told.append(sum(low) / len(low) if low else None)
        counts.add(len(low))
    few = [float(row["few"]) if row["few"] else None for row in rows(tmp_path / "log.csv")]
    assert few == pytest.approx(told)
    assert counts & {1, 2, 3}
    assert [row["few"] for row in rows(tmp_path / "validation.csv")] == ["2.5", "2.5"]


@pytest.mark.parametrize(
    ("came", "losses"),
    [
        ("'error'", {"error": torch.ones(1)}), ("Tensor", torch.ones(1)), ("NoneType", None),
        ("'step'", {"loss": torch.ones(()), "step": torch.ones(())}),
        ("'norm'", {"loss": torch.ones(()), "norm": torch.ones(())}),
        ("'a\\nb'", {"loss": torch.ones(()), "a\nb": torch.ones(())}),
        ("(2,)", {"loss": torch.ones(2)}), ("float", {"loss": 1.0}),
    ],
)  # fmt: skip
def test_losses_that_are_no_named_scalars_are_refused(came, losses, tmp_path, refuses):
    class Odd(Line):
        def forward(self, x: torch.Tensor, step: int) -> Any:
            return losses

    with refuses("losses", came):
        run(tmp_path, Odd())


# What the environment says.


@pytest.mark.parametrize("parts", [1, 2])
def test_the_arguments_decide_not_what_is_left_in_the_environment(parts, tmp_path, monkeypatch):
    plain = run(tmp_path / "plain", parts=parts)
    for name, value in {
        "GRADIENT_ACCUMULATION_STEPS": "4", "MIXED_PRECISION": "bf16", "USE_FSDP": "false",
        "DYNAMO_BACKEND": "NO", "GRADIENT_CLIPPING": "0.1", "FP8_BACKEND": "NO",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"ACCELERATE_{name}", value)
    other = run(tmp_path / "other", parts=parts)
    assert rows(tmp_path / "other" / "log.csv") == rows(tmp_path / "plain" / "log.csv")
    assert torch.equal(other.state_dict()["a"], plain.state_dict()["a"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("USE_DEEPSPEED", "true"), ("USE_FSDP", "1"), ("USE_MEGATRON_LM", "True"),
        ("USE_PARALLELISM_CONFIG", "true"), ("DYNAMO_BACKEND", "INDUCTOR"),
        ("FP8_BACKEND", "TE"),
    ],
)  # fmt: skip
def test_another_way_to_train_in_the_environment_is_refused_by_name(
    name, value, tmp_path, monkeypatch, refuses
):
    monkeypatch.setenv(f"ACCELERATE_{name}", value)
    with refuses(f"ACCELERATE_{name}", value):
        run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Tied weights.


class Tied(nn.Module):
    """Two layers of one weight, and a buffer that is a part of another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        whole = torch.arange(6.0)
        self.register_buffer("whole", whole)
        self.register_buffer("part", whole[2:4])
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor, step: int) -> dict[str, torch.Tensor]:
        self.seen.append(self.first.weight.detach().clone())
        x = x[:, None].expand(-1, 3) / 16
        return {"loss": (self.second(self.first(x)) - x).square().mean()}


def test_tied_weights_are_trained_saved_and_restored(tmp_path):
    torch.manual_seed(0)
    objective = Tied()
    start = {name: value.clone() for name, value in objective.state_dict().items()}
    whole = run(tmp_path, objective, learning_rate=0.1)
    half(tmp_path)
    log = rows(tmp_path / "log.csv")
    again = Tied()
    resumed = run(tmp_path, again, learning_rate=0.1, resume=True)
    assert rows(tmp_path / "log.csv") == log
    for model in (resumed, again):
        assert model.first.weight is model.second.weight  # type: ignore[union-attr]
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value)
    assert not torch.equal(start["first.weight"], objective.first.weight)


def test_the_average_moves_once_a_step_by_the_decay_that_is_documented_tied_weights_too(tmp_path):
    torch.manual_seed(0)
    objective = Tied()
    averaged = run(tmp_path, objective, steps=8, learning_rate=0.1, ema=0.6)
    weights = [*objective.seen[1:], objective.first.weight.detach()]
    decays = [0.0, *(min(0.6, 1 - (n - 1) ** (-2 / 3)) for n in range(2, 9))]
    assert decays[3] < 0.6 == decays[7]
    expected = torch.zeros(3, 3)
    for decay, weight in zip(decays, weights, strict=True):
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(averaged.state_dict()["first.weight"], expected)


# Going on with other numbers.


@pytest.mark.parametrize(
    "changes",
    [
        {"parts": 2}, {"parts": 4}, {"save_every": 1}, {"log_every": 2}, {"validate_every": 1},
        {"sample_every": 1},
    ],
)  # fmt: skip
def test_a_run_goes_on_with_other_parts_and_other_intervals(changes, out, finished):
    half(out)
    run(out, resume=True, **changes)
    last = rows(out / "log.csv")[-1]
    expected = rows(finished / "log.csv")[-1]
    assert {name: float(value) for name, value in last.items()} == pytest.approx(
        {name: float(value) for name, value in expected.items()}, rel=1e-5
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 5}, {"batch": 8}, {"learning_rate": 1.0}, {"warmup": 2}, {"weight_decay": 0.1},
        {"betas": (0.5, 0.9)}, {"clip": 2.0}, {"ema": 0.5}, {"precision": "bf16"}, {"seed": 1},
        {"schedule": "constant"}, {"decayed": "matrices"},
    ],
)  # fmt: skip
def test_what_changes_the_numbers_is_refused_on_resuming(changes, out, refuses):
    half(out)
    with refuses("resume", *changes):
        run(out, resume=True, **changes)


def test_how_often_a_run_validates_and_samples_changes_no_step(tmp_path):
    def sample(model: nn.Module, step: int) -> None:
        torch.rand(1)

    logs = []
    for every in (1, 3):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = RunConfig(**QUICK, validate_every=every, sample_every=every)
            train(
                Dropped(), load, config, tmp_path / str(every), count=16, validate=[range(4)],
                load_validation=load, sample=sample,
            )  # fmt: skip
        logs.append(rows(tmp_path / str(every) / "log.csv"))
    assert logs[0] == logs[1]
