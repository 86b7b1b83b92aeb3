"""How scores drift in videos longer than those that a model learned."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from einops import rearrange
from torch import nn

from contar._errors import bad, check_count
from contar._files import read_json, write_whole
from contar._typing import Tensor, UInt8
from contar.evaluation._chart import empty_canvas
from contar.evaluation.distances import frechet_distance
from contar.evaluation.figures import Figure, mean
from contar.media import check_pixels

# Of the frames of a segment, uint8 [b, n, h, w, 3]: a score of each frame, [b, n], or of each clip.
_Score = Callable[[Tensor], Tensor]
_Figures = Mapping[str, Sequence[Figure]]


def cut_segments(
    clips: UInt8[Tensor, "b t h w 3"], length: int
) -> list[UInt8[Tensor, "b n h w 3"]]:
    """Return the frames of clips by segments of the length that a model learned.

    The first has `length` frames; of each later one the first is the last of the one before, as of
    a clip that begins with it, and is not counted twice: it has `length - 1`.

    Raises:
        ValueError: no uint8 [b, t, h, w, 3], or frames that make no whole segments.
    """
    frames = check_pixels("clips", clips, "[b, t, h, w, 3]").shape[1]
    step = check_count("length", length, 2) - 1
    if frames < length or (frames - 1) % step:
        raise bad(
            "clips", f"{frames} frames", f"k * {step} + 1, k segments of a length of {length}"
        )
    starts = range(length, frames, step)
    return [clips[:, :length], *(clips[:, start : start + step] for start in starts)]


def drift(
    clips: UInt8[Tensor, "b t h w 3"],
    length: int,
    scores: Mapping[str, _Score],
    *,
    features: nn.Module | None = None,
    real: UInt8[Tensor, "b2 t h w 3"] | None = None,
) -> dict[str, list[Figure]]:
    """Return scores by segment of the learned length, and at the end the last minus the first.

    The difference is taken clip by clip, so that its interval is narrower than those it is made of.

    Args:
        clips: [b, t, h, w, 3], as a model made them.
        length: frames that it learned.
        scores: by name: functions of a segment's frames that return a number for each frame,
            [b, n], or for each clip, [b].
        features: of frames, for a Fréchet distance by segment under the name "frechet", as
            `frechet_distance` takes them. It has no interval.
        real: [b, t, h, w, 3], real clips of as many frames, to which the distance is.

    Raises:
        ValueError: clips that are no whole segments, or features without real clips of as many
            frames.
        ImportError: torchmetrics is not installed, for `features`.
    """
    parts = cut_segments(clips, length)
    if (features is None) != (real is None):
        raise bad("real", "real clips or features alone", "both, for a Fréchet distance")
    if real is not None and real.shape[1] != clips.shape[1]:
        raise bad("real", tuple(real.shape), f"clips of {clips.shape[1]} frames")
    found = {}
    for name, score in scores.items():
        values = [_by_clip(score(part)) for part in parts]
        change = [last - first for first, last in zip(values[0], values[-1], strict=True)]
        found[name] = [mean(each) for each in (*values, change)]
    if features is not None and real is not None:
        pairs = zip(cut_segments(real, length), parts, strict=True)
        frames = [[rearrange(x, "b t h w c -> (b t) c h w") for x in pair] for pair in pairs]
        distances = [frechet_distance(features, *pair) for pair in frames]
        distances.append(distances[-1] - distances[0])
        found["frechet"] = [Figure(distance, len(clips)) for distance in distances]
    return found


def _by_clip(values: Tensor) -> list[float]:
    values = values.double()
    return (values if values.ndim == 1 else values.mean(dim=1)).tolist()


@dataclass(frozen=True)
class DriftReport:
    """What drifts, by way of making long videos and by how long they are.

    Attributes:
        rows: figures as `drift` returns them, by the name of the way and the length in segments.
        settings: all that it takes to repeat it.

    Raises:
        ValueError: no rows.
    """

    rows: Mapping[str, Mapping[int, _Figures]]
    settings: Mapping[str, object]

    def __post_init__(self) -> None:
        if not self.rows or not all(self.rows.values()):
            raise bad("rows", dict(self.rows), "at least one way and length")

    def names(self) -> list[str]:
        """Return the scores that any row has."""
        each = (figures for by_length in self.rows.values() for figures in by_length.values())
        return list(dict.fromkeys(name for figures in each for name in figures))

    def table(self) -> str:
        """Return Markdown: a table for each score, a line for each way and length."""
        most = max(count for by_length in self.rows.values() for count in by_length)
        parts = []
        for name in self.names():
            heads = [name, "length", *(f"segment {k + 1}" for k in range(most)), "last - first"]
            lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
            for way, by_length in self.rows.items():
                for count, figures in sorted(by_length.items()):
                    *values, change = figures.get(name, [Figure(None, 0)] * (count + 1))
                    cells = [value.text(interval=False) for value in values]
                    cells += [""] * (most - count)
                    cells.append(change.text("{:+.3f}") if count > 1 else "")
                    lines.append("| " + " | ".join([way, str(count), *cells]) + " |")
            parts.append("\n".join(lines) + "\n")
        return "\n".join(parts)

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write drift.json, drift.md and drift.png; return the paths of the JSON and the picture.

        Raises:
            ImportError: matplotlib is not installed; nothing is written.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        picture = self._draw(place / "drift.png")
        write_whole(place / "drift.md", self.table())
        write_whole(
            place / "drift.json", json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"
        )
        return place / "drift.json", picture

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "DriftReport":
        """Return the report that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it holds no report.
        """
        content = read_json(Path(path))
        try:
            rows = {
                way: {
                    int(count): {
                        name: [Figure(**figure) for figure in line]
                        for name, line in figures.items()
                    }
                    for count, figures in by_length.items()
                }
                for way, by_length in content["rows"].items()
            }
            return cls(rows, content["settings"])
        except (AttributeError, KeyError, TypeError) as error:
            raise bad("path", f"{path}: {error!r}", "a drift.json that contar wrote") from error

    def _draw(self, path: Path) -> Path:
        """Draw a panel for each score: a line for each way and length over the segments."""
        names = self.names()
        canvas = empty_canvas(1 + 3.2 * len(names), 3.4)
        panels = canvas.subplots(1, len(names), squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            for index, (way, by_length) in enumerate(self.rows.items()):
                longest = max(by_length)
                for count, figures in by_length.items():
                    values = [figure.value for figure in figures.get(name, ())[:-1]]
                    axes.plot(
                        range(1, len(values) + 1), values, color=f"C{index}", marker="o",
                        markersize=3.5, alpha=1.0 if count == longest else 0.35,
                        label=way if count == longest else None,
                    )  # fmt: skip
            axes.set(title=name, xlabel="segment of the learned length")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
        handles, labels = panels[0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside lower center", ncols=max(1, len(labels)))
        canvas.savefig(path, format="png")
        return path
