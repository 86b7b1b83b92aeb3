"""A suite as a value: which samples of which prompts an evaluator reads, and from which files."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from contar._errors import bad, check_choice, check_count, check_text

Kind = Literal["picture", "video"]
SUFFIXES: dict[str, str] = {"picture": ".png", "video": ".mp4"}
_LONGEST = 255  # bytes of a name, on every usual file system


def seed_of(suite: str, prompt: str, number: int) -> int:
    """Return the seed of a sample: a hash of these three and of nothing else, below 2**63.

    Args:
        suite: its name.
        prompt: in the evaluator's words, also where the model reads others.
        number: of the sample, counted for each prompt from 0.
    """
    told = json.dumps([suite, prompt, check_count("number", number, 0)], ensure_ascii=False)
    return int.from_bytes(hashlib.sha256(told.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Unit:
    """A piece of work: the samples of a prompt that one file shows.

    Attributes:
        prompt: in the evaluator's words; seeds hang on them.
        numbers: of the samples: one, or four in a grid of 2 x 2, in reading order.
        files: where it goes, relative to the evaluator's folder: one, or several of the same bytes.
        text: what the model reads; the prompt, unless it was written anew.
    """

    prompt: str
    numbers: tuple[int, ...]
    files: tuple[str, ...]
    text: str

    @property
    def name(self) -> str:
        """The first file, which no other unit has."""
        return self.files[0]


@dataclass(frozen=True)
class Suite:
    """What an evaluator reads, made by `read_suite`.

    Attributes:
        name: as in `SUITES`.
        kind: "picture" (.png) or "video" (.mp4).
        units: in the order of the prompts.
        beside: texts that the evaluator reads from files among the samples.
        frames: that each video must have, as the evaluator breaks off with fewer.

    Raises:
        ValueError: no units; two files of one name; a name that file systems refuse, or of another
            suffix than the kind's.
    """

    name: str
    kind: Kind
    units: tuple[Unit, ...]
    beside: Mapping[str, str] = field(default_factory=dict)
    frames: int = 1

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, tuple(SUFFIXES))
        if not self.units:
            raise bad("units", self.units, "at least one")
        seen: set[str] = set()
        for unit in self.units:
            if len(unit.numbers) not in (1, 4):
                raise bad("numbers", unit.numbers, "one sample a file, or four")
            if not unit.files:
                raise bad("files", unit.files, "at least one")
            for file in unit.files:
                _check_file(file, SUFFIXES[self.kind])
                if file in seen:
                    raise bad("files", file, "names that no two prompts share")
                seen.add(file)

    @property
    def files(self) -> tuple[str, ...]:
        """All files of samples, in the order of the units."""
        return tuple(file for unit in self.units for file in unit.files)

    def seeds(self, unit: Unit) -> tuple[int, ...]:
        """Return the seed of each sample of a unit."""
        return tuple(seed_of(self.name, unit.prompt, number) for number in unit.numbers)

    def rewritten(self, texts: Mapping[str, str]) -> "Suite":
        """Return the suite with other words for the model; files and seeds stay.

        Args:
            texts: what the model reads instead of each prompt.

        Raises:
            ValueError: a prompt without its text.
        """
        missing = [unit.prompt for unit in self.units if unit.prompt not in texts]
        if missing:
            raise bad("rewritten", f"{len(missing)} prompts less: {missing[0]!r}", "all prompts")
        units = (replace(u, text=check_text("rewritten", texts[u.prompt])) for u in self.units)
        return replace(self, units=tuple(units))

    def lines(self) -> str:
        """Return the manifest: a line of JSON for each unit, its seeds among it."""
        told = ({**asdict(unit), "seeds": self.seeds(unit)} for unit in self.units)
        return "".join(json.dumps(unit, ensure_ascii=False) + "\n" for unit in told)

    @classmethod
    def from_lines(cls, name: str, kind: Kind, lines: str) -> "Suite":
        """Return the suite of a manifest, without the texts beside the samples."""
        units = []
        for line in lines.removesuffix("\n").split("\n"):  # a prompt may have other line ends
            told = json.loads(line)
            numbers, files = tuple(told["numbers"]), tuple(told["files"])
            units.append(Unit(told["prompt"], numbers, files, told["text"]))
        return cls(name, kind, tuple(units))


def _check_file(file: str, suffix: str) -> None:
    """Raise a ValueError unless a file system takes each part of a relative name."""
    check_text("files", file)
    if not file.endswith(suffix):
        raise bad("files", file, f"names that end in {suffix}")
    for part in file.split("/"):
        if part in ("", ".", "..") or "\0" in part or "\n" in part:
            raise bad("files", file, "names without empty parts, dots alone and line ends")
        if len(part.encode()) > _LONGEST:
            raise bad("files", f"{part[:40]!r}… of {len(part.encode())} bytes", f"{_LONGEST} bytes")
