"""The plan of a preparation on disk: which files, which steps, in how many shares.

OUT/scores.parquet   a row a shot
OUT/failed.jsonl     a line for each file that failed
OUT/clips            shards of what was kept
OUT/run              the plan, a line for each file, what each share has scored
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path

from contar._errors import check_count
from contar._files import read_json, write_whole
from contar._work import check_same
from contar.preparation.settings import Preparation
from contar.preparation.sources import SourceFile

RUN = "run"
_PLAN, _FILES = "plan.json", "files.jsonl"


@dataclass(frozen=True)
class Plan:
    """What was planned.

    Attributes:
        preparation: what is asked of each shot.
        root: the folder from which the files' names start.
        count: of files.
        tasks: among which they are shared.
    """

    preparation: Preparation
    root: Path
    count: int
    tasks: int


def plan_preparation(
    root: Path,
    files: Sequence[SourceFile],
    out: str | os.PathLike[str],
    preparation: Preparation,
    *,
    tasks: int = 1,
) -> Plan:
    """Write a plan, or see that it is this one.

    Args:
        root: of `find_files`, as are the files.
        files: by name.
        out: folder, made if need be.
        preparation: what is asked.
        tasks: among which the files are shared: file i goes to the task of rank i modulo `tasks`.

    Raises:
        ValueError: the folder was begun with other files, steps or another number of tasks.
    """
    run = Path(out) / RUN
    run.mkdir(parents=True, exist_ok=True)
    digest = sha256()
    for file in files:
        digest.update(_line(file).encode())
    plan = {
        "settings": preparation.to_json(),
        "files": digest.hexdigest(),
        "count": len(files),
        "tasks": check_count("tasks", tasks),
    }
    if (run / _PLAN).is_file():
        old = read_json(run / _PLAN)
        old.pop("root", None)  # the folder may have moved
        check_same("out", out, old, plan, "the same files, steps and tasks, or a new folder")
    else:
        part = run / f".{_FILES}.part"
        with part.open("w", encoding="utf-8") as stream:
            stream.writelines(map(_line, files))
        os.replace(part, run / _FILES)
    write_whole(run / _PLAN, json.dumps({**plan, "root": str(root)}, indent=1) + "\n")
    return Plan(preparation, root, len(files), tasks)


def read_plan(out: str | os.PathLike[str]) -> Plan:
    """Return what `plan_preparation` wrote.

    Raises:
        FileNotFoundError: it wrote nothing.
    """
    if not (Path(out) / RUN / _PLAN).is_file():
        raise FileNotFoundError(f"out: no preparation in {str(out)!r}")
    plan = read_json(Path(out) / RUN / _PLAN)
    settings = Preparation.from_json(plan["settings"])
    return Plan(settings, Path(plan["root"]), plan["count"], plan["tasks"])


def files_of(out: str | os.PathLike[str], rank: int = 0, tasks: int = 1) -> Iterator[SourceFile]:
    """Yield the files of a rank, in order, without holding them."""
    with (Path(out) / RUN / _FILES).open(encoding="utf-8") as stream:
        for line in islice(stream, rank, None, tasks):
            yield SourceFile(**json.loads(line))


def _line(file: SourceFile) -> str:
    content = {"name": file.name, "caption": file.caption}
    return json.dumps(content, ensure_ascii=False) + "\n"
