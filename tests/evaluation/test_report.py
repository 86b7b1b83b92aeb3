"""The report: comes back from its file as it was, and its picture shows what it says."""

import json
import sys
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest
from PIL import Image

from contar.evaluation import Figure, Report, Scores, share
from contar.evaluation._chart import draw

TITLES = {
    "text.digit": ("text to video: digit", "share"),
    "text.frechet_frames": ("Fréchet distance", "distance"),
    "motion.rank": ("motion score", "correlation"),
    "tokenizer.psnr": ("tokenizer: PSNR", "dB"),
}


@dataclass(frozen=True)
class Clip:
    index: int
    seen: tuple[int, ...] = ()
    score: float | None = None


SEEN = Clip(3, (7, -1), 0.5)


def scores(hits, distance):
    figures = {
        "text.digit": share(hits, 200),
        "motion.rank": Figure(hits / 200 - 0.1, 200, hits / 200 - 0.2, hits / 200),
        "text.frechet_frames": Figure(distance, 200),
        "tokenizer.psnr": Figure(31.25, 3400),
    }
    return Scores(figures, {"seed": 5, "notes": {"commit": "abc"}}, (SEEN, replace(SEEN, index=4)))


@pytest.fixture
def report():
    real = scores(198, 1.5)
    real = replace(real, figures={**real.figures, "tokenizer.psnr": Figure(None, 3400)})
    return Report(
        {"model": scores(190, 2.5), "real clips": real, "untrained": scores(20, 90.0)}, TITLES
    )


def test_a_report_comes_back_from_its_file_as_it_was(report, tmp_path):
    file, picture = report.save(tmp_path / "new" / "folder")
    assert Report.load(file, TITLES, Clip) == report
    written = sorted(p.name for p in file.parent.iterdir())
    assert written == ["clips.jsonl", "scores.json", "scores.png"]
    assert (file.name, picture.name) == ("scores.json", "scores.png")

    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads(file.read_text(encoding="utf-8"), parse_constant=refuse)
    assert content["rows"]["model"]["figures"]["text.digit"]["count"] == 200
    assert content["rows"]["model"]["settings"]["seed"] == 5
    clips = (file.parent / "clips.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(clips) == 3 * 2
    (file.parent / "clips.jsonl").unlink()
    assert Report.load(file, TITLES, Clip).rows["model"] == replace(
        report.rows["model"], outcomes=()
    )


def test_what_an_older_version_also_measured_is_not_shown(report, tmp_path):
    file, _ = report.save(tmp_path)
    content = json.loads(file.read_text(encoding="utf-8"))
    content["rows"]["model"]["figures"]["image.joined"] = asdict(share(200, 200))
    file.write_text(json.dumps(content))
    lines = [
        json.dumps({**json.loads(line), "jump": 1.0})
        for line in (tmp_path / "clips.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    (tmp_path / "clips.jsonl").write_text("\n".join(lines))
    old = Report.load(file, TITLES, Clip)
    assert old.rows["model"].outcomes == report.rows["model"].outcomes
    assert old.table() == report.table()
    assert draw(old.rows, TITLES, tmp_path / "old.png").stat().st_size > 1000


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)


def test_a_reports_picture_shows_each_model_in_a_color_of_its_own(report, tmp_path):
    shown = pixels(report.save(tmp_path)[1])
    counts = [
        int((np.abs(shown.astype(int) - color).max(1) < 8).sum())
        for color in ((0x00, 0x72, 0xB2), (0x00, 0x9E, 0x73), (0xD5, 0x5E, 0x00))
    ]
    assert min(counts) > 100
    bars = [counts[0], counts[2]]  # a distance of 2.5 beside one of 90, PSNRs alike
    assert bars[1] > 1.3 * bars[0]


def test_a_reports_picture_changes_with_a_figure_and_not_by_itself(report, tmp_path):
    one, again = (pixels(draw(report.rows, TITLES, tmp_path / name)) for name in ("a.png", "b.png"))
    assert np.array_equal(one, again)
    other = {**report.rows, "model": scores(150, 2.5)}
    assert not np.array_equal(pixels(draw(other, TITLES, tmp_path / "c.png")), one)


@pytest.mark.parametrize("names", [[], ["text.digit"], ["tokenizer.psnr"], list(TITLES)])
def test_a_report_has_a_picture_whatever_was_measured(names, tmp_path):
    figures = {name: Figure(0.5, 10, 0.4, 0.6) for name in names}
    report = Report({"model": Scores(figures, {}), "other": Scores({}, {})}, TITLES)
    _, picture = report.save(tmp_path)
    assert len(np.unique(pixels(picture), axis=0)) > 2


def test_a_reports_table_has_a_line_a_figure_and_a_column_a_model(report):
    lines = report.table().splitlines()
    assert lines[0] == "| figure | model | real clips | untrained |"
    assert lines[2].startswith("| text to video: digit | 95.0% (91.0% to 97.3%) | 99.0% (")
    assert lines[-1] == "| tokenizer: PSNR | 31.2 dB | – | 31.2 dB |"
    assert len(lines) == 2 + 4


def test_what_is_no_report_is_refused(tmp_path, refuses):
    with refuses("rows", "{}"):
        Report({}, TITLES)
    with refuses("rows", "dict"):
        Report({"model": {}}, TITLES)  # type: ignore[dict-item]
    with pytest.raises(FileNotFoundError, match=r"scores\.json"):
        Report.load(tmp_path / "scores.json", TITLES, Clip)
    for content in ("no", "{}", '{"rows": {"a": {}}}', '{"rows": []}', '{"rows": {}}'):
        (tmp_path / "scores.json").write_text(content)
        with pytest.raises(ValueError, match="allowed"):
            Report.load(tmp_path / "scores.json", TITLES, Clip)
    (tmp_path / "scores.json").write_text('{"rows": {"a": {"figures": {}, "settings": {}}}}')
    assert Report.load(tmp_path / "scores.json", TITLES, Clip).rows["a"].figures == {}
    for line in ("cut", '{"model": "a"}', '{"model": "b"}', "[]"):
        (tmp_path / "clips.jsonl").write_text(line)
        with refuses("scores.json", "a report that contar wrote"):
            Report.load(tmp_path / "scores.json", TITLES, Clip)


def test_without_matplotlib_it_says_what_to_install_and_writes_nothing(
    report, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "contar\[demo\]"'):
        report.save(tmp_path)
    assert not list(tmp_path.iterdir())
