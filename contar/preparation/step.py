"""What steps have in common: each is one of datatrove's, and may be taken alone."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from contar.preparation.columns import BASE, Kind
from contar.preparation.expression import Condition

try:
    from datatrove.data import Document
    from datatrove.pipeline.base import PipelineStep
except ImportError as error:
    raise ImportError('datatrove is not installed (pip install "contar[scale]")') from error


def document_of(path: Path, name: str, caption: str | None = None) -> Document:
    """Return what the steps are given: a file by path and name, with its caption if it is known."""
    return Document(text=caption or "", id=name, metadata={"path": str(path), "caption": caption})


class Step(PipelineStep):
    """A step that adds to a shot's metadata.

    Attributes:
        adds: the columns that it gives.
        costly: whether shots that `Only` has marked are spared; their columns are then None.
    """

    type = "contar"
    adds: tuple[str, ...] = ()
    costly = False

    def run(
        self, data: Iterable[Document], rank: int = 0, world_size: int = 1
    ) -> Iterator[Document]:
        """Yield each document with what the step adds."""
        for document in data:
            if self.costly and document.metadata.get("spared"):
                document.metadata |= dict.fromkeys(self.adds)
            else:
                with self.track_time("shot"):
                    self.score(document.metadata)
            yield document

    def score(self, shot: dict[str, Any]) -> None:
        """Add to a shot's metadata."""
        raise NotImplementedError


class Only(Step):
    """Marks the shots of which a condition does not hold: costly steps behind it pass them over.

    Args:
        condition: on the columns in front of it.
        columns: that there are in front of it.

    Raises:
        ValueError: as `Condition`.
    """

    name = "only"

    def __init__(self, condition: str, columns: dict[str, Kind] | None = None) -> None:
        super().__init__()
        self.holds = Condition(condition, columns or dict(BASE), name="only")

    def score(self, shot: dict[str, Any]) -> None:
        """Mark a shot."""
        shot["spared"] = not self.holds(shot)
