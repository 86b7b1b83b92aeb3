"""Which clips, from many files? Steps that score shots, thresholds on the scores, shards."""

from typing import TYPE_CHECKING

from contar._lazy import lazily
from contar.preparation.clips import join_clips, plan_clips, shards_left
from contar.preparation.cutting import cut_clips, read_prepared
from contar.preparation.expression import Condition
from contar.preparation.gathering import SCORES, Gathered, gather_scores, read_scores
from contar.preparation.plan import Plan, files_of, plan_preparation, read_plan
from contar.preparation.scoring import ranks_left, score_files
from contar.preparation.settings import STEPS, Preparation, require_installed
from contar.preparation.sources import SourceFile, find_files

if TYPE_CHECKING:
    from contar.preparation.captions import Aesthetic, Captioner, CaptionLength
    from contar.preparation.chain import Chain
    from contar.preparation.duplicates import Duplicates, Hashes
    from contar.preparation.frames import Frames
    from contar.preparation.measures import Motion, TextArea, text_share
    from contar.preparation.shots import Probe, Shots
    from contar.preparation.step import Only, Step, document_of
else:  # these import datatrove
    __getattr__ = lazily(
        __name__,
        {
            "chain": ("Chain",),
            "captions": ("Aesthetic", "CaptionLength", "Captioner"),
            "duplicates": ("Duplicates", "Hashes"),
            "frames": ("Frames",),
            "measures": ("Motion", "TextArea", "text_share"),
            "shots": ("Probe", "Shots"),
            "step": ("Only", "Step", "document_of"),
        },
    )

__all__ = [
    "SCORES",
    "STEPS",
    "Aesthetic",
    "CaptionLength",
    "Captioner",
    "Chain",
    "Condition",
    "Duplicates",
    "Frames",
    "Gathered",
    "Hashes",
    "Motion",
    "Only",
    "Plan",
    "Preparation",
    "Probe",
    "Shots",
    "SourceFile",
    "Step",
    "TextArea",
    "cut_clips",
    "document_of",
    "files_of",
    "find_files",
    "gather_scores",
    "join_clips",
    "plan_clips",
    "plan_preparation",
    "ranks_left",
    "read_plan",
    "read_prepared",
    "read_scores",
    "require_installed",
    "score_files",
    "shards_left",
    "text_share",
]
