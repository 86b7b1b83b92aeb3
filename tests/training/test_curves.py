"""The picture of a run shows the losses that its files hold."""

import numpy as np
import pytest
from PIL import Image

from contar.training import save_curves


def stage(folder, name, losses, validation=()):
    folder.mkdir()
    rows = [f"{i * 10},{value},1.0" for i, value in enumerate(losses, 1)]
    (folder / "log.csv").write_text("\n".join([f"step,{name},norm", *rows, ""]))
    if validation:
        rows = [f"{i * 50},{value}" for i, value in enumerate(validation, 1)]
        (folder / "validation.csv").write_text("\n".join([f"step,{name}", *rows, ""]))
    return folder


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def bluer(panel):
    """Return by how much each pixel is bluer than red: training is blue, validation orange."""
    return panel[..., 2] - panel[..., 0]


def test_each_stage_has_a_panel_with_training_and_validation(tmp_path):
    falling = [2.0 / i + 0.1 for i in range(1, 31)]
    first = stage(tmp_path / "vae", "error", falling, [0.3, 0.2, 0.1])
    second = stage(tmp_path / "images", "loss", falling)
    picture = pixels(save_curves({"one": first, "two": second}, tmp_path / "curves.png"))
    left, right = np.split(picture, [picture.shape[1] // 2], axis=1)
    assert (bluer(left) > 60).sum() > 50
    assert (bluer(left) < -60).sum() > 50
    assert (bluer(right) > 60).sum() > 50
    assert not (bluer(right) < -60).any()


def test_the_picture_changes_with_a_loss_and_not_by_itself(tmp_path):
    falling = [2.0 / i for i in range(1, 31)]
    folders = [
        stage(tmp_path / name, "loss", losses)
        for name, losses in (
            ("a", falling), ("b", falling), ("c", [*falling[:15], *([0.5] * 15)])
        )
    ]  # fmt: skip
    a, b, c = (pixels(save_curves({"run": f}, f / "curves.png")) for f in folders)
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_a_short_run_has_a_picture_and_one_without_a_log_none(tmp_path):
    short = stage(tmp_path / "short", "loss", [1.0])
    assert save_curves({"short": short}, tmp_path / "short.png").stat().st_size > 1000
    with pytest.raises(FileNotFoundError, match=r"log\.csv"):
        save_curves({"none": tmp_path}, tmp_path / "none.png")
