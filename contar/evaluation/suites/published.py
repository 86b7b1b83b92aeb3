"""Figures that others published, beside one's own."""

from collections.abc import Mapping
from dataclasses import dataclass

from contar._errors import check_choice


@dataclass(frozen=True)
class Published:
    """A published row.

    Attributes:
        model: its name.
        figures: by the names of `read_scores`, in percent; whole numbers where no more is told.
        source: where they stand.
    """

    model: str
    figures: Mapping[str, float]
    source: str


_GENEVAL_SOURCE = "README of djghosh13/geneval"
_NOVA_SOURCE = "model zoo of baaivision/NOVA"
_NAMES = ("overall", "single_object", "two_object", "counting", "colors", "position", "color_attr")


def _geneval(model: str, *values: float) -> Published:
    return Published(model, dict(zip(_NAMES, values, strict=True)), _GENEVAL_SOURCE)


def _nova(*values: float) -> tuple[Published, ...]:
    models = ("0.6B, 512", "0.3B, 1024", "0.6B, 1024", "1.4B, 1024")
    rows = zip(models, values, strict=True)
    return tuple(Published(f"NOVA {name}", {"overall": x}, _NOVA_SOURCE) for name, x in rows)


PUBLISHED: dict[str, tuple[Published, ...]] = {
    "geneval": (
        _geneval("CLIP retrieval", 35, 89, 22, 37, 62, 3, 0),
        _geneval("minDALL-E", 23, 73, 11, 12, 37, 2, 1),
        _geneval("Stable Diffusion v1.5", 43, 97, 38, 35, 76, 4, 6),
        _geneval("Stable Diffusion v2.1", 50, 98, 51, 44, 85, 7, 17),
        _geneval("Stable Diffusion XL", 55, 98, 74, 39, 85, 15, 23),
        _geneval("IF-XL", 61, 97, 74, 66, 81, 13, 35),
        *_nova(75, 67, 69, 71),
    ),
    "dpg-bench": _nova(81.76, 80.60, 82.25, 83.01),
    "t2i-compbench": (),
    "vbench": (Published("NOVA 0.6B, 33 x 768 x 480", {"total": 80.12}, _NOVA_SOURCE),),
    "vbench-2.0": (),
}
_FIRST = ("overall", "total", "quality", "semantic")


def score_table(suite: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """Return a Markdown table: one's own rows, then the published ones, with their sources.

    Args:
        suite: as in `read_scores`.
        rows: figures by model, as `read_scores` returns them.

    Raises:
        ValueError: an unknown suite.
    """
    check_choice("suite", suite, tuple(PUBLISHED))
    lines = [
        (_cell(name), {n: float(figures[n]) for n in figures}, "") for name, figures in rows.items()
    ]
    lines += [(row.model, row.figures, row.source) for row in PUBLISHED[suite]]
    named = [name for _, figures, _ in lines for name in figures]
    columns = sorted(dict.fromkeys(named), key=lambda n: _FIRST.index(n) if n in _FIRST else 9)
    table = ["| model | " + " | ".join(columns) + " | source |", "|---" * (len(columns) + 2) + "|"]
    for name, figures, source in lines:
        cells = [_figure(figures[n]) if n in figures else "–" for n in columns]
        table.append(f"| {name} | " + " | ".join(cells) + f" | {source} |")
    return "\n".join(table) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _figure(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.2f}"
