"""What is asked of a preparation, as one value: its steps and their columns."""

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

from contar._errors import bad, check_choice, check_count, check_number, check_size
from contar.preparation.columns import BASE, LATER, OF_STEP, Kind
from contar.preparation.expression import Condition

STEPS = ("shots", "motion", "text_area", "duplicates", "caption_length")
"""Steps that a preparation may have."""


@dataclass(frozen=True)
class Preparation:
    """What is asked of each shot.

    Args:
        steps: of shots, motion, text_area, duplicates, caption_length; without shots each file is
            one.
        cut: change from frame to frame, from 0 to 255, that ends a shot.
        shortest: seconds of a shot, at least.
        stills: of each shot, of which text, hashes and functions are asked.
        pairs: of neighbouring frames, of which motion is.
        near: bits of 64 that hashes of duplicates differ in, at most.
        tokenizer: of transformers, to count a caption's tokens as well.
        aesthetic: "package:function", from stills to a number.
        captioner: "package:function", from stills to a text.
        only: condition on a shot, without which the two functions are not asked.

    Raises:
        ValueError: an unknown step, a number outside its range, no such function, or a condition
            that `Condition` refuses.
    """

    steps: tuple[str, ...] = STEPS
    cut: float = 27.0
    shortest: float = 0.5
    stills: int = 3
    pairs: int = 8
    near: int = 4
    tokenizer: str | None = None
    aesthetic: str | None = None
    captioner: str | None = None
    only: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        for step in self.steps:
            check_choice("steps", step, STEPS)
        check_number("cut", self.cut, 0, 255)
        check_number("shortest", self.shortest, 0)
        check_count("stills", self.stills)
        check_count("pairs", self.pairs)
        check_size("near", self.near, 0, 15)
        if self.only is not None:
            if self.aesthetic is None and self.captioner is None:
                raise bad("only", self.only, "none without an aesthetic or a captioner")
            Condition(self.only, self.in_front(), name="only")
        if self.tokenizer is not None and "caption_length" not in self.steps:
            raise bad("tokenizer", self.tokenizer, "none without the step caption_length")

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Preparation":
        """Return what `to_json` was called on."""
        return cls(**{**content, "steps": tuple(content["steps"])})

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "steps": [step for step in STEPS if step in self.steps]}

    def columns(self) -> dict[str, Kind]:
        """Return the columns of its scores, in order."""
        of = OF_STEP
        columns: dict[str, Kind] = {**BASE}
        for step in STEPS:
            if step == "caption_length" and self.aesthetic is not None:
                columns |= of["aesthetic"]
            if step in self.steps:
                columns |= of[step]
        if self.tokenizer is not None:
            columns |= of["caption_tokens"]
        return columns

    def in_front(self) -> dict[str, Kind]:
        """Return the columns that `only` may name: those known before a function is asked."""
        columns: dict[str, Kind] = {**BASE}
        for step in ("motion", "text_area"):
            columns |= OF_STEP[step] if step in self.steps else {}
        return {name: kind for name, kind in columns.items() if name not in LATER}


def require_installed(preparation: Preparation) -> None:
    """Raise an ImportError that names what the steps need and what is not installed.

    It is found out before the work: a step itself would miss it at the first file.
    """
    needed = {"datatrove": "scale", "pyarrow": "scale", "av": "video", "webdataset": "train"}
    of_steps = {
        "shots": ("scenedetect",),
        "motion": ("cv2",),
        "text_area": ("rapidocr", "onnxruntime"),
        "duplicates": ("imagehash",),
    }
    for step in preparation.steps:
        needed |= dict.fromkeys(of_steps.get(step, ()), "video" if step == "motion" else "scale")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        extras = ",".join(sorted({needed[name] for name in missing}))
        told = f'{", ".join(missing)}: not installed (pip install "contar[{extras}]")'
        raise ImportError(told)
