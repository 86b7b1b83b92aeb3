"""Runs the notebooks and keeps what they put out: `python tests/docs/notebooks.py [NAME …]`.

Needs nbclient and ipykernel, of the extra `docs`. The tests run them without.
"""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"


def drawn(output: nbformat.NotebookNode) -> bool:
    """Return whether an output is a picture."""
    return "image/png" in output.get("data", {})


def run_anew(path: Path) -> None:
    """Run a notebook from its first cell and write what it put out into it."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": path.parent}})
    client.execute()
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({})  # times of this run
        if cell.cell_type == "code":  # what it printed and drew; no warnings, with paths of here
            cell.outputs = [o for o in cell.outputs if o.get("name") == "stdout" or drawn(o)]
            for output in filter(drawn, cell.outputs):
                output.metadata, output.data = {}, {"image/png": output.data["image/png"]}
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for found in sorted(FOLDER.glob("*.ipynb")):
        if not sys.argv[1:] or found.stem in sys.argv[1:]:
            run_anew(found)
            print(found.name, f"{found.stat().st_size / 1024:.0f} KiB")
