"""Two and four processes train as one, whatever ends them: `make scale`, some minutes."""

import pytest

from benchmarks import ranks

pytestmark = pytest.mark.scale


def test_two_and_four_processes_have_the_losses_and_gradients_of_one(tmp_path):
    told = ranks.equal_steps(tmp_path)
    for kind in ("losses", "gradients"):
        assert len(told[kind]) == 10
        assert max(told[kind].values()) <= ranks.LIMITS[kind], told


def test_any_number_of_processes_reads_what_any_number_saved(tmp_path):
    told = ranks.readable_saves(tmp_path)
    assert len(told) == 25
    assert max(told.values()) <= ranks.LIMITS["saves"], told


def test_a_run_goes_on_with_other_numbers_of_processes(tmp_path):
    told = ranks.changing_numbers(tmp_path)
    assert max(told.values()) <= ranks.LIMITS["losses"], told


@pytest.mark.parametrize("shard", [False, True])
def test_a_run_that_was_killed_ten_times_equals_one_that_was_not(shard, tmp_path):
    told = ranks.killed(tmp_path, shard)
    assert len(told["kills"]) == 10
    assert told["off"] <= ranks.LIMITS["killed"], told


def test_a_second_run_on_a_folder_is_refused_by_name_once(tmp_path):
    told = ranks.one_at_a_time(tmp_path)
    assert told["the first goes on"]
    assert len(told["said"]) == 1, told
    assert "another run goes on" in told["said"][0]


def test_an_error_of_one_process_ends_all_and_is_said_once(tmp_path):
    told = ranks.error_of_one(tmp_path)
    assert len(told) == 1, told
    assert "latents with NaN or infinity in " in told[0]


def test_the_commands_of_the_page_train_on_two_processes(tmp_path):
    assert ranks.commands_of_the_page(tmp_path) == {"torchrun": 2, "accelerate": 2, "srun": 2}
