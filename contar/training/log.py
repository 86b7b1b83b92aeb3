"""The log of a run: CSV files that a resumed run goes on with, and tensorboard."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from contar._errors import bad
from contar._files import write_whole

FILES = ("log.csv", "validation.csv")


def read_log(file: Path) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of a log's file, "step" first; a last row that is torn is none.

    Raises:
        ValueError: what is there is no such file.
    """
    if not file.exists():
        return [], []
    try:
        text = file.read_bytes().decode()
        whole = text[: text.rfind("\n") + 1]  # the rest was being written when the run ended
        if not whole and "step,".startswith(text.rstrip("\0")[:5]):
            return [], []
        columns, *rows = csv.reader(io.StringIO(whole), strict=True)
        if columns[:1] != ["step"] or len(set(columns)) != len(columns):
            raise ValueError("the first line names no step")
        for row in rows:
            if len(row) != len(columns) or not row[0].isdecimal():
                raise ValueError(f"{','.join(row)[:80]!r}")
            for value in row[1:]:
                float(value or 0)
    except (OSError, ValueError, csv.Error) as error:
        got = f"{file}, which is no log of a run ({error})"
        raise bad(file.name, got, "a log, or no such file: mend it or move it away") from error
    return columns, rows


class RunLog:
    """Rows of named numbers: a column for each name that ever came, empty where it did not.

    Rows after the first `start` steps are dropped.

    Raises:
        ValueError: a file that is no log.
        ImportError: tensorboard is not installed.
    """

    def __init__(self, out: Path, start: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(f'{error} (pip install "contar[train]")') from error
        self._out, self._columns = out, {}
        for name in FILES:
            file, (columns, rows) = out / name, read_log(out / name)
            kept = [row for row in rows if int(row[0]) <= start]
            if kept:
                write_whole(file, _text([columns, *kept]))
                self._columns[name] = columns
            else:
                file.unlink(missing_ok=True)
        self._board = SummaryWriter(out / "tensorboard", purge_step=start + 1)

    def row(self, name: str, step: int, values: Mapping[str, float]) -> None:
        """Write the numbers of a step to "log" or "validation"."""
        file = self._out / f"{name}.csv"
        columns = self._columns.get(file.name, [])
        new = [key for key in ("step", *values) if key not in columns]
        if new:
            _, rows = read_log(file)
            columns = self._columns[file.name] = [*columns, *new]
            wider = [[*row, *[""] * (len(columns) - len(row))] for row in rows]
            write_whole(file, _text([columns, *wider]))
        cells = {"step": str(step), **{key: repr(value) for key, value in values.items()}}
        with file.open("a", encoding="utf-8", newline="") as lines:
            lines.write(_text([[cells.get(key, "") for key in columns]]))
        for key, value in values.items():
            self._board.add_scalar(f"{name}/{key}", value, step)

    def close(self) -> None:
        """Write what tensorboard still holds."""
        self._board.close()


def _text(rows: list[list[str]]) -> str:
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows(rows)
    return lines.getvalue()
