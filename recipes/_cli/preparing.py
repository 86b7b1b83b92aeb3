"""The command line of preparation: videos and pictures to scores, and what is kept to shards."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from recipes._cli.engines import Task, Work, alone, parent_of

if TYPE_CHECKING:
    from contar.preparation import Preparation, SourceFile

_SHOWN = 3  # failures that are printed
_LATER = "the same command, later, goes on"  # where Slurm has the tasks


@dataclass(frozen=True)
class Scoring(Task):
    """A task of `contar prepare SOURCE`.

    Attributes:
        out: the run's folder.
        retry: only the files that failed.
    """

    out: str
    retry: bool

    def work(self, rank: int, tasks: int) -> None:
        """Score the files of a rank."""
        from datatrove.utils.logging import logger

        from contar.preparation import score_files

        _one_thread()
        score_files(
            self.out, rank=rank, tasks=tasks, retry=self.retry, report=logger.info,
            ended=self.orphaned,
        )  # fmt: skip


@dataclass(frozen=True)
class Cutting(Task):
    """A task of `contar prepare --apply`.

    Attributes:
        out: the run's folder.
        name: of the folder of shards.
    """

    out: str
    name: str

    def work(self, rank: int, tasks: int) -> None:
        """Write the shards of a rank."""
        from datatrove.utils.logging import logger

        from contar.preparation import cut_clips

        _one_thread()
        cut_clips(
            self.out, name=self.name, rank=rank, tasks=tasks, report=logger.info,
            ended=self.orphaned,
        )  # fmt: skip


def _one_thread() -> None:
    """Have OpenCV work with one thread: there are as many workers as are wanted."""
    try:
        import cv2
    except ImportError:
        return
    cv2.setNumThreads(1)


@tyro.conf.configure(tyro.conf.DisallowNone)
def prepare(
    source: tyro.conf.Positional[Path | None] = None,
    out: Path = Path("prepared"),
    steps: tuple[str, ...] = ("shots", "motion", "text_area", "duplicates", "caption_length"),
    cut: float = 27.0,
    shortest: float = 0.5,
    stills: int = 3,
    pairs: int = 8,
    near: int = 4,
    tokenizer: str | None = None,
    aesthetic: str | None = None,
    captioner: str | None = None,
    only: str | None = None,
    apply: str | None = None,
    name: str = "clips",
    shard: int = 1000,
    retry: bool = False,
    work: Annotated[Work, tyro.conf.arg(name="")] = Work(),  # noqa: B008 - it is frozen
) -> None:
    """Score the shots of videos and pictures; then keep those of which a condition holds.

    `contar prepare SOURCE --out OUT` writes OUT/scores.parquet, a row a shot; `contar prepare
    --apply "motion > 1 and not duplicate" --out OUT` cuts what is kept into shards in OUT/clips.
    The same call goes on.

    Args:
        source: a folder, or a list: .txt of paths, or .jsonl of "path" and "caption".
        out: folder of the run.
        steps: of shots, motion, text_area, duplicates, caption_length.
        cut: change from frame to frame, from 0 to 255, that ends a shot.
        shortest: seconds of a shot, at least.
        stills: of each shot, of which text, hashes and functions are asked.
        pairs: of neighbouring frames, of which motion is.
        near: bits of 64 that hashes of duplicates differ in, at most.
        tokenizer: of transformers, to count a caption's tokens as well.
        aesthetic: package:function, from stills to a number.
        captioner: package:function, from stills to a text.
        only: condition on a shot, without which the two functions are not asked.
        apply: condition on a row of scores; what it holds of is cut into shards.
        name: of the shards' folder in OUT.
        shard: clips of a file.
        retry: what failed, nothing else.
        work: how it is done.
    """
    from contar._errors import bad
    from contar.preparation import Preparation, find_files, read_plan, require_installed

    work.options()  # whether they are any
    asked = Preparation(
        steps, cut, shortest, stills, pairs, near, tokenizer, aesthetic, captioner, only
    )
    if apply is not None and (source is not None or asked != Preparation()):
        raise bad("apply", f"{apply!r} beside a source or what is asked of it", "one or the other")
    if apply is None and source is None and not retry:
        raise bad("source", "none", "a folder or a list; or --apply, or --retry")
    found = None if source is None else find_files(source)
    if found is None:
        asked = read_plan(out).preparation
    require_installed(asked)
    with alone(out / "run", work.engine):
        if apply is None:
            _score(out, found, asked, retry, work)
        else:
            _cut(out, apply, name, shard, retry, work)


def _score(
    out: Path,
    found: "tuple[Path, list[SourceFile]] | None",
    asked: "Preparation",
    retry: bool,
    work: Work,
) -> None:
    """Score all files, or those that failed, and gather what there is."""
    from contar._errors import bad
    from contar.preparation import (
        SCORES,
        Chain,
        gather_scores,
        plan_preparation,
        ranks_left,
        read_plan,
    )

    Chain(asked)  # its functions are there
    if found is not None:
        plan_preparation(*found, out, asked, tasks=work.tasks)
    elif work.tasks != read_plan(out).tasks:
        raise bad("tasks", work.tasks, f"{read_plan(out).tasks}, as begun with")
    place, parent = str(out.absolute()), parent_of(work.engine)
    task = Scoring(str(out.absolute() / "run"), parent, place, retry)
    if not work.carry(task, ranks_left(out, retry=retry), _LATER):
        return
    if left := ranks_left(out):
        raise SystemExit(f"contar: tasks {left[:5]} have not ended: the same command goes on")
    made = gather_scores(out)
    print(
        f"{made.shots} shots of {made.files - made.failed} files, "
        f"of which {made.duplicates} are duplicates: {out / SCORES}"
    )
    if made.failed:
        print(f"{made.failed} files failed: {out / 'failed.jsonl'}; --retry tries them again")


def _cut(out: Path, condition: str, name: str, shard: int, retry: bool, work: Work) -> None:
    """Cut what a condition keeps into shards, or those again in which a clip failed."""
    from contar.preparation import join_clips, plan_clips, shards_left

    plan_clips(out, condition, name=name, shard=shard)
    ranks = sorted({number % work.tasks for number in shards_left(out, name, retry=retry)})
    run, parent = out.absolute() / "run", parent_of(work.engine)
    if not work.carry(Cutting(str(run), parent, str(out.absolute()), name), ranks, _LATER):
        return
    count, failed = join_clips(out, name)
    print(f"{count} clips: {out / name}")
    for failure in failed[:_SHOWN]:
        print(f"failed: {failure['name']}#{failure['shot']}: {failure['error']}")
    if failed:
        print(f"{len(failed)} clips failed; --retry tries them again")
