"""The columns of scores: what they are called, what they hold, which step gives them."""

from collections.abc import Mapping
from typing import Any, Literal

Kind = Literal["text", "whole", "real", "truth"]

BASE: Mapping[str, Kind] = {
    "name": "text",  # of the file
    "shot": "whole",  # from 0
    "kind": "text",  # video or picture
    "start": "whole",  # frames of the file before it
    "frames": "whole",
    "seconds": "real",  # a picture has none
    "fps": "real",  # mean of the file; a picture has none
    "width": "whole",
    "height": "whole",
    "caption": "text",
}
OF_STEP: Mapping[str, Mapping[str, Kind]] = {
    "shots": {},
    "motion": {"motion": "real"},
    "text_area": {"text_area": "real"},
    "duplicates": {"hash": "text", "duplicate": "truth", "duplicate_of": "text"},
    "aesthetic": {"aesthetic": "real"},
    "captioner": {},
    "caption_length": {"caption_length": "whole"},
    "caption_tokens": {"caption_tokens": "whole"},
}
LATER = ("duplicate", "duplicate_of")  # known once all files are scored


def arrow_schema(columns: Mapping[str, Kind]) -> Any:
    """Return the columns as pyarrow's schema.

    Raises:
        ImportError: pyarrow is not installed.
    """
    pa = load_pyarrow()
    types = {"text": pa.string(), "whole": pa.int64(), "real": pa.float64(), "truth": pa.bool_()}
    return pa.schema([(name, types[kind]) for name, kind in columns.items()])


def load_pyarrow() -> Any:
    """Return pyarrow with its parquet; ImportError says what to install if it is not there."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError('pyarrow is not installed (pip install "contar[scale]")') from error
    return pyarrow
