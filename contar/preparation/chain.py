"""The steps of a preparation, one after the other."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contar.preparation.captions import Aesthetic, Captioner, CaptionLength
from contar.preparation.columns import LATER
from contar.preparation.duplicates import Hashes
from contar.preparation.frames import Frames
from contar.preparation.measures import Motion, TextArea
from contar.preparation.settings import Preparation
from contar.preparation.shots import Probe, Shots
from contar.preparation.sources import SourceFile
from contar.preparation.step import Document, Only, Step, document_of


class Chain:
    """The steps that a preparation asks for.

    Attributes:
        steps: in order, as datatrove takes them.

    Raises:
        ValueError: a function of the preparation is not there.
    """

    def __init__(self, preparation: Preparation) -> None:
        asked = preparation
        self._columns = [name for name in asked.columns() if name not in LATER]
        self.steps: list[Step] = [
            Probe(),
            Shots(asked.cut if "shots" in asked.steps else None, asked.shortest),
            Frames(asked.stills, asked.pairs if "motion" in asked.steps else 0),
        ]
        for name, step in (("motion", Motion), ("text_area", TextArea), ("duplicates", Hashes)):
            if name in asked.steps:
                self.steps.append(step())
        if asked.only is not None:
            self.steps.append(Only(asked.only, asked.in_front()))
        if asked.aesthetic is not None:
            self.steps.append(Aesthetic(asked.aesthetic))
        if asked.captioner is not None:
            self.steps.append(Captioner(asked.captioner))
        if "caption_length" in asked.steps:
            self.steps.append(CaptionLength(asked.tokenizer))

    def shots(self, root: Path, file: SourceFile) -> list[dict[str, Any]]:
        """Return a file's shots, each with its columns; errors as the steps."""
        data: Iterable[Document] = [document_of(root / file.name, file.name, file.caption)]
        for step in self.steps:
            data = step.run(data)
        return [{name: shot.metadata.get(name) for name in self._columns} for shot in data]
