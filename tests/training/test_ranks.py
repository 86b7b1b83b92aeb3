"""Processes that share weights out train as one process does, and any number reads their saves."""

import shutil
from pathlib import Path

import pytest
import tiny_run
import torch
from forks import Fork
from line_run import rows
from torch import nn
from two_runs import in_two, options, weigh, widen

from contar.cpu import speed_up
from contar.training import RunConfig, saves, sharding
from recipes import nova
from recipes._nova.training import NovaObjective

# float32's, of sums in another order, which Adam's first steps make somewhat larger
ROUNDING = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Runs of two processes beside "one", of one process."""
    folder = tmp_path_factory.mktemp("ranks")
    tiny_run.main(options(folder / "one", "--gradients", str(folder / "one.pt")))
    shutil.copytree(folder / "one", folder / "whole")
    shutil.rmtree(folder / "whole" / "saves" / "step-00000003")
    weigh(folder / "weighed-alone")
    widen(folder / "wide")
    code, printed = Fork(folder / "printed.txt", in_two, folder, processes=2).finish()
    assert code == 0, printed
    return folder


def close(one: Path, other: Path) -> None:
    for name in ("log.csv", "validation.csv"):
        mine, theirs = rows(one / name), rows(other / name)
        assert [row.keys() for row in mine] == [row.keys() for row in theirs]
        for row, wanted in zip(mine, theirs, strict=True):
            for key in row:
                assert float(row[key]) == pytest.approx(float(wanted[key]), rel=ROUNDING), key


def test_processes_that_share_weights_out_have_the_losses_and_gradients_of_one(folder):
    close(folder / "shared", folder / "one")
    mine, alone = (torch.load(folder / f"{name}.pt") for name in ("shared", "one"))
    largest = max(float(gradient.abs().max()) for gradient in alone)
    for gradient, wanted in zip(mine, alone, strict=True):
        assert (gradient - wanted).abs().max() <= ROUNDING * largest


def test_layers_of_the_cpu_and_their_hooks_act_in_weights_that_are_shared_out(folder):
    mine, alone = rows(folder / "wide-shared" / "log.csv"), rows(folder / "wide" / "log.csv")
    assert [float(row["loss"]) for row in mine] == pytest.approx(
        [float(row["loss"]) for row in alone], rel=ROUNDING
    )


def test_each_process_holds_and_saves_half_of_all_and_no_pickle(folder):
    whole = saves.complete_saves(folder / "one")[-1]
    shared = saves.complete_saves(folder / "shared")[-1]
    sizes = [file.stat().st_size for file in (shared / "shards").iterdir()]
    assert len(sizes) == 2
    assert max(sizes) < 0.7 * sum(file.stat().st_size for file in whole.iterdir())
    files = [file for file in shared.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".safetensors", ".json"}


def test_one_process_goes_on_where_two_shared_and_two_where_one_had_all(folder, tmp_path):
    close(folder / "whole", folder / "one")
    out = tmp_path / "shared"
    shutil.copytree(folder / "shared", out)
    shutil.copytree(folder / "cache", tmp_path / "cache")
    shutil.rmtree(out / "saves" / "step-00000003")
    tiny_run.main(options(out, "--resume"))
    close(out, folder / "one")


@pytest.mark.parametrize("damage", ["gone", "cut off", "others"])
def test_a_shard_that_is_damaged_is_named_and_the_save_before_is_taken(
    damage, folder, tmp_path, refuses
):
    out = tmp_path / "shared"
    shutil.copytree(folder / "shared", out)
    shutil.copytree(folder / "cache", tmp_path / "cache")
    last, before = saves.complete_saves(out)[::-1]
    shards = sorted((last / "shards").iterdir())
    if damage == "gone":
        shards[0].unlink()
    elif damage == "cut off":
        shards[0].write_bytes(shards[0].read_bytes()[:-100])
    else:
        shutil.copy(last / "optimizer.safetensors", shards[0])
    objective = NovaObjective(nova.build(tiny_run.SIZES), repeats=2)
    parts = {"modules": {"model": objective, "average": objective}}
    optimizer = torch.optim.AdamW(objective.parameters())
    with refuses("step-00000003/shards"):
        saves.load(last, **parts, optimizer=optimizer)
    assert saves.load(before, **parts, optimizer=optimizer)["step"] == 2


def test_of_several_processes_one_says_what_went_wrong(folder):
    said = sorted(file.read_text() for file in folder.glob("said-*.txt"))
    assert said[0] == "1"
    assert said[1].startswith("contar: ")
    assert "nowhere" in said[1]


@pytest.mark.parametrize("name", ["weighed", "weighed-shared"])
def test_parts_of_a_batch_count_by_their_tokens_where_an_objective_says_them(name, folder):
    close(folder / name, folder / "weighed-alone")
    losses = [float(row["loss"]) for row in rows(folder / "weighed-alone" / "log.csv")]
    assert losses[0] != losses[1]


def test_what_cannot_be_shared_out_is_refused_by_name(refuses):
    model = speed_up(nova.build(tiny_run.SIZES))
    sharding.check_shareable(model)
    model.spatial.encoder[0].compile(backend="eager")
    with refuses("objective", "spatial.encoder.0", "compiled", "shard=False"):
        sharding.check_shareable(model)
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    with refuses("objective", "0.weight and 1.weight"):
        sharding.check_shareable(tied)
    with refuses("shard", "int"):
        RunConfig(shard=1)  # type: ignore[arg-type]
