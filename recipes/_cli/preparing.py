"""The command line of preparation: videos and pictures to scores, and what is kept to shards."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from contar._errors import bad
from contar.preparation import (
    SCORES,
    Preparation,
    SourceFile,
    cut_clips,
    find_files,
    gather_scores,
    join_clips,
    plan_clips,
    plan_preparation,
    ranks_left,
    read_plan,
    require_installed,
    score_files,
    shards_left,
)
from recipes._cli.engines import Work
from recipes._cli.pipes import Options

_SHOWN = 3  # failures that are printed
_LATER = "the same command, later, goes on"  # where Slurm has the tasks


def prepare(
    out: Path,
    source: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")] = None,
    asked: Options[Preparation] = Preparation(),
    apply: str | None = None,
    name: str = "clips",
    shard: int = 1000,
    retry: bool = False,
    work: Options[Work] = Work(),
) -> None:
    """Score the shots of videos and pictures; then keep those of which a condition holds.

    `contar prepare SOURCE --out OUT` writes OUT/scores.parquet, a row a shot; `contar prepare
    --apply "motion > 1 and not duplicate" --out OUT` cuts what is kept into shards in OUT/clips.
    The same call goes on.

    Args:
        out: folder of the run.
        source: a folder, or a list: .txt of paths, or .jsonl of "path" and "caption".
        asked: of each shot.
        apply: condition on a row of scores; what it holds of is cut into shards.
        name: of the shards' folder in OUT.
        shard: clips of a file.
        retry: what failed, nothing else.
        work: how it is done.
    """
    work.options()  # whether they are any
    if apply is not None and (source is not None or asked != Preparation()):
        raise bad("apply", f"{apply!r} beside a source or what is asked of it", "one or the other")
    if apply is None and source is None and not retry:
        raise bad("source", "none", "a folder or a list; or --apply, or --retry")
    found = None if source is None else find_files(source)
    if found is None:
        asked = read_plan(out).preparation
    require_installed(asked)
    with work.alone(out / "run"):
        if apply is None:
            _score(out, found, asked, retry, work)
        else:
            _cut(out, apply, name, shard, retry, work)


def _score(
    out: Path,
    found: tuple[Path, list[SourceFile]] | None,
    asked: Preparation,
    retry: bool,
    work: Work,
) -> None:
    """Score all files, or those that failed, and gather what there is."""
    from contar.preparation import Chain  # which needs datatrove

    Chain(asked)  # its functions are there
    if found is not None:
        plan_preparation(*found, out, asked, tasks=work.tasks)
    elif work.tasks != read_plan(out).tasks:
        raise bad("tasks", work.tasks, f"{read_plan(out).tasks}, as begun with")
    do = partial(_on_one_thread, score_files, out.absolute(), retry=retry)
    if not work.share(out / "run", do, ranks_left(out, retry=retry), _LATER):
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
    plan_clips(out, condition, name=name, shard=shard)
    do = partial(_on_one_thread, cut_clips, out.absolute(), name=name)
    if not work.share(out / "run", do, shards_left(out, name, retry=retry), _LATER):
        return
    count, failed = join_clips(out, name)
    print(f"{count} clips: {out / name}")
    for failure in failed[:_SHOWN]:
        print(f"failed: {failure['name']}#{failure['shot']}: {failure['error']}")
    if failed:
        print(f"{len(failed)} clips failed; --retry tries them again")


def _on_one_thread(do: Callable[..., object], *given: Any, **named: Any) -> None:
    """Do work with one thread of OpenCV: there are as many workers as are wanted."""
    with suppress(ImportError):
        import cv2

        cv2.setNumThreads(1)
    do(*given, **named)
