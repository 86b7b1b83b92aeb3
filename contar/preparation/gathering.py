"""All shares' scores to one table, by name, in which near-duplicates are known."""

import json
import os
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from contar._files import flush
from contar.preparation.columns import arrow_schema, load_pyarrow
from contar.preparation.plan import read_plan
from contar.preparation.scoring import journal_of

SCORES = "scores.parquet"
"""The table of a preparation, a row a shot."""
FAILED = "failed.jsonl"
_ROWS = 4096  # of a group in the table, which are held at once
_LINES = 64  # of a journal that are read at once


class Gathered(NamedTuple):
    """What there is: files, those that failed, shots, and how many of them are duplicates."""

    files: int
    failed: int
    shots: int
    duplicates: int


def gather_scores(out: str | os.PathLike[str]) -> Gathered:
    """Write OUT/scores.parquet, a row a shot by name, and OUT/failed.jsonl, a line a file.

    Equal scores make equal bytes, in however many shares they were made. Of shots that look alike
    the first by name stays; the others say which it is. For that, the hashes and names of those
    that stay are held, some 250 bytes each; of the rest a few thousand rows.

    Raises:
        FileNotFoundError: a rank has not ended.
        ImportError: pyarrow is not installed.
    """
    plan, place = read_plan(out), Path(out)
    pa = load_pyarrow()
    schema = arrow_schema(plan.preparation.columns())
    finder = None
    if "duplicates" in plan.preparation.steps:
        from contar.preparation.duplicates import Duplicates

        finder = Duplicates(plan.preparation.near)
    parts = [place / f".{name}.part" for name in (SCORES, FAILED)]
    failed = shots = duplicates = 0
    rows: list[dict[str, Any]] = []
    with pa.parquet.ParquetWriter(parts[0], schema) as table, parts[1].open("w") as problems:
        for content in _in_order(out, plan.tasks, plan.count):
            if "error" in content:
                failed += 1
                told = {"name": content["name"], "error": content["error"]}
                problems.write(json.dumps(told) + "\n")
                continue
            for row in content["shots"]:
                if finder is not None:
                    first = finder.first(row["hash"], f"{row['name']}#{row['shot']}")
                    row |= {"duplicate": first is not None, "duplicate_of": first}
                    duplicates += first is not None
                rows.append(row)
                shots += 1
                if len(rows) == _ROWS:
                    table.write_table(pa.Table.from_pylist(rows, schema))
                    rows.clear()
        table.write_table(pa.Table.from_pylist(rows, schema))
    for part, name in zip(parts, (SCORES, FAILED), strict=True):
        flush(part)
        os.replace(part, place / name)
    return Gathered(plan.count, failed, shots, duplicates)


def read_scores(out: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of OUT/scores.parquet, in order, few of which are held.

    Raises:
        FileNotFoundError: `gather_scores` has not written it.
        ImportError: pyarrow is not installed.
    """
    table = Path(out) / SCORES
    if not table.is_file():
        raise FileNotFoundError(f"out: no {SCORES} in {str(out)!r}; scoring makes it")
    with load_pyarrow().parquet.ParquetFile(table) as file:
        for batch in file.iter_batches(_ROWS):
            yield from batch.to_pylist()


def _in_order(out: str | os.PathLike[str], tasks: int, count: int) -> Iterator[dict[str, Any]]:
    """Yield what the journals say of each file, in the order of the plan."""
    journals = [_lines(journal_of(out, rank)) for rank in range(tasks)]
    for number in range(count):
        yield json.loads(next(journals[number % tasks]))


def _lines(journal: Path) -> Iterator[str]:
    """Yield a journal's lines; it is open only while some are read, as there may be thousands."""
    place, waiting = 0, deque[str]()
    while True:
        with journal.open("rb") as stream:
            stream.seek(place)
            waiting.extend(line.decode() for line in islice(stream, _LINES))
            place = place + sum(len(line.encode()) for line in waiting)
        if not waiting:
            return
        while waiting:
            yield waiting.popleft()
