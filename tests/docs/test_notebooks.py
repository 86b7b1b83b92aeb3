"""The notebooks run from top to bottom, and print the words that are kept in them."""

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import torch

from contar.heads import registry

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))
NUMBER = re.compile(r"\d[\d.,]*")  # one that depends on torch's version and the processor


def cells_of(path: Path) -> list[dict[str, Any]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_prints_the_words_that_it_shows(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_HEADS", dict(registry._HEADS))  # one may name its own
    mpl.use("Agg")
    names: dict[str, Any] = {"__name__": f"notebook_{path.stem}"}
    try:
        with contextlib.chdir(tmp_path), torch.random.fork_rng(devices=[]), mpl.rc_context():
            for cell in cells_of(path):
                said = io.StringIO()
                with contextlib.redirect_stdout(said):
                    exec(compile("".join(cell["source"]), str(path), "exec"), names)
                kept = ["".join(o["text"]) for o in cell["outputs"] if o.get("name") == "stdout"]
                assert NUMBER.sub("#", said.getvalue()) == NUMBER.sub("#", "".join(kept))
    finally:
        plt.close("all")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_run_once_from_top_to_bottom_and_is_small(path: Path) -> None:
    cells = cells_of(path)
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data"}
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert path.stat().st_size < 200_000


def test_there_is_one_for_a_head_an_order_a_mask_and_a_training() -> None:
    names = [path.stem for path in NOTEBOOKS]
    assert names == ["new_head", "new_mask", "new_order", "train_tiny"]
