"""Compare contar with recorded outputs of official implementations.

    python tests/parity/check.py DIR [DIR ...] [--device cuda]

Each DIR holds a `case.json` and one `.npz` a case, or is a whole pipeline in the released layout
with a `.json` and an `.npz` of its name beside it. A line a case says its largest errors; the exit
status is 1 if one is over its bound, or if a folder is of a kind that is not known here.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Result:
    """The errors of one case: name -> (error, bound); an infinite bound says nothing."""

    case: str
    errors: dict[str, tuple[float, float]]

    @property
    def passed(self) -> bool:
        # Written so that NaN fails.
        return bool(self.errors) and all(error <= bound for error, bound in self.errors.values())

    def __str__(self) -> str:
        parts = (
            f"{name} {error:.1e} (<= {bound:.0e})" for name, (error, bound) in self.errors.items()
        )
        return f"{'ok  ' if self.passed else 'FAIL'} {self.case}: {', '.join(parts)}"


Checker = Callable[
    [dict[str, Any], dict[str, Any], dict[str, np.ndarray], str], dict[str, tuple[float, float]]
]


def checker_for(folder: Path, description: dict[str, Any]) -> Checker:
    """Return the comparison for a folder's kind.

    Raises:
        ValueError: a kind that is not known here.
    """
    config = description.get("config", {})
    if "arch" in config:
        from nova_case import check_nova

        return check_nova
    if "diffloss_d" in config:
        from mar_case import check_mar

        return check_mar
    if "block_out_channels" in config:
        from vae_case import check_vae

        return check_vae
    raise ValueError(f"{folder}: not a kind of golden that is known here")


def check_folder(folder: Path, device: str = "cpu") -> Iterator[Result]:
    """Compare each case of a folder, computed on a device.

    Raises:
        ValueError: no `case.json`, a kind that is not known here, or a case without its arrays.
    """
    if (folder / "model_index.json").is_file():
        from checkpoint_case import check_checkpoint

        for suffix in (".json", ".npz"):
            if not folder.with_suffix(suffix).is_file():
                raise ValueError(f"{folder}: no {folder.with_suffix(suffix).name} beside it")
        for name, errors in check_checkpoint(folder, device):
            yield Result(f"{folder.name}/{name}", errors)
        return
    path = folder / "case.json"
    if not path.is_file():
        raise ValueError(f"{folder}: no case.json in it")
    description = json.loads(path.read_text())
    check = checker_for(folder, description)
    cases = description.get("cases", {})
    if not cases:
        raise ValueError(f"{folder}: case.json lists no cases")
    for name, case in cases.items():
        file = folder / f"{name}.npz"
        if not file.is_file():
            raise ValueError(f"{folder}: no {name}.npz in it")
        with np.load(file) as archive:
            arrays = dict(archive)
        yield Result(f"{folder.name}/{name}", check(description, case, arrays, device))


def main(arguments: list[str]) -> int:
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    reader.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    asked = reader.parse_args(arguments)
    passed = True
    for folder in asked.folders:
        try:
            for result in check_folder(folder, asked.device):
                print(result, flush=True)
                passed &= result.passed
        except ValueError as error:
            print(f"FAIL {error}", flush=True)
            passed = False
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
