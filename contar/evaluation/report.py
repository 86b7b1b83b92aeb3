"""The scores of several models side by side: a file, a table, a picture."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from contar._errors import bad, check_instance
from contar._files import read_json, write_whole
from contar.evaluation._chart import draw
from contar.evaluation.figures import Figure, Scores

Titles = Mapping[str, tuple[str, str]]
_FORMS = {"share": (100, "{:.1f}%"), "dB": (1, "{:.1f} dB")}  # by a figure's kind
JSON, CLIPS, PICTURE = "scores.json", "clips.jsonl", "scores.png"


@dataclass(frozen=True)
class Report:
    """Scores by name, the first of which is the model that the report is about.

    Attributes:
        rows: as in {"model": ..., "real clips": ..., "untrained": ...}.
        titles: of the figures that are shown, in this order, each with its kind, which says how it
            is written: "share", "correlation" and "similarity" from 0 to 1, "dB", or any other.

    Raises:
        ValueError: no scores.
    """

    rows: Mapping[str, Scores]
    titles: Titles

    def __post_init__(self) -> None:
        if not self.rows:
            raise bad("rows", dict(self.rows), "at least one name with its scores")
        for scores in self.rows.values():
            check_instance("rows", scores, Scores)

    def names(self) -> list[str]:
        """Return the figures with a title that any of them has, in the order of the titles."""
        return [
            name for name in self.titles if any(name in row.figures for row in self.rows.values())
        ]

    def table(self) -> str:
        """Return a Markdown table: a line for each figure, a column for each model."""
        lines = ["| figure | " + " | ".join(self.rows) + " |", "|---" * (len(self.rows) + 1) + "|"]
        for name in self.names():
            title, kind = self.titles[name]
            scale, form = _FORMS.get(kind, (1, "{:.3f}"))
            found = [row.figures.get(name, Figure(None, 0)) for row in self.rows.values()]
            cells = [figure.text(form, scale=scale) for figure in found]
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write a report to a folder, made if need be; return the paths of its JSON and picture.

        scores.json holds the figures and settings, scores.png shows the figures, and clips.jsonl
        has a line for each clip that was judged.

        Raises:
            ImportError: matplotlib is not installed; nothing is written.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        shown = {name: self.titles[name] for name in self.names()}
        picture = draw(self.rows, shown, place / PICTURE)
        told = {
            name: {
                "figures": {k: asdict(f) for k, f in row.figures.items()},
                "settings": row.settings,
            }
            for name, row in self.rows.items()
        }
        clips = [
            json.dumps({"model": name, **asdict(outcome)}, allow_nan=False, ensure_ascii=False)
            for name, row in self.rows.items()
            for outcome in row.outcomes
        ]
        write_whole(place / CLIPS, "".join(f"{line}\n" for line in clips))
        text = json.dumps({"rows": told}, indent=1, allow_nan=False, ensure_ascii=False)
        write_whole(place / JSON, text + "\n")
        return place / JSON, picture

    @classmethod
    def load(cls, path: str | os.PathLike[str], titles: Titles, outcome: type) -> "Report":
        """Return the report that `save` wrote, with its clips if clips.jsonl lies beside it.

        What an older contar also measured stays among the figures, unshown, and is left out of the
        clips.

        Args:
            path: of the scores.json.
            titles: of the figures.
            outcome: the dataclass of a clip's line.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds no report.
        """
        file = Path(path)
        content = read_json(file)
        clips = file.with_name(CLIPS)
        try:
            outcomes: dict[str, list[Any]] = {name: [] for name in content["rows"]}
            known = {field.name for field in fields(outcome)}
            lines = clips.read_text(encoding="utf-8").splitlines() if clips.is_file() else []
            for told in map(json.loads, lines):
                seen = {key: _tuple(value) for key, value in told.items() if key in known}
                outcomes[told["model"]].append(outcome(**seen))
            rows = {
                name: Scores(
                    {key: Figure(**figure) for key, figure in row["figures"].items()},
                    row["settings"],
                    tuple(outcomes[name]),
                )
                for name, row in content["rows"].items()
            }
        except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise bad(file.name, f"{file}: {error!r}", "a report that contar wrote") from error
        return cls(rows, titles)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value  # JSON has lists alone
