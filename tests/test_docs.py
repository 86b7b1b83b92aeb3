"""The documentation runs: the pages' Python blocks, their pictures, the docstrings' examples.

    python tests/test_docs.py [PAGE ...]

draws the pictures of all pages, or of those named (as `attention`), anew into docs/images.
"""

import ast
import contextlib
import doctest
import importlib
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image

from contar.heads import registry

ROOT = Path(__file__).parents[1]
WITHOUT = ("architecture", "gallery", "paper")  # a picture of their own
CARDS = (ROOT / "recipes" / "moving_digits" / "weights").glob("*/README.md")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(CARDS)]
NEEDS = {"prepare": ("datatrove", "imagehash", "pyarrow", "rapidocr", "scenedetect")}  # extra scale
# A block that opens with another word, as ```python no-run, is shown and not run.
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PICTURE = re.compile(r"!\[[^\]]*\]\((images/[^)]+\.png)\)")
SHOWN = re.compile(r"^```python no-run\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
ANCHOR = re.compile(r"\]\(([^)#:\s]*)#([^)]+)\)")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@contextlib.contextmanager
def quiet(folder: Path) -> Iterator[None]:
    """Work in `folder`, draw into files, and leave torch and matplotlib as they were."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny tensors gain nothing from more
    mpl.use("Agg")
    try:
        with contextlib.chdir(folder), torch.random.fork_rng(devices=[]), mpl.rc_context():
            yield
    finally:
        plt.close("all")
        torch.set_num_threads(threads)


def run_blocks(page: Path) -> None:
    """Execute a page's blocks in one namespace; tracebacks show the page's own lines."""
    text = page.read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": f"docs_{page.stem}"}
    for match in BLOCK.finditer(text):
        lines_before = text.count("\n", 0, match.start(1))
        code = compile("\n" * lines_before + match[1], str(page), "exec")
        exec(code, namespace)


def pictures_of(page: Path) -> list[str]:
    return PICTURE.findall(page.read_text(encoding="utf-8"))


def is_blank(picture: Path) -> bool:
    with Image.open(picture) as image:
        extrema = image.convert("RGB").getextrema()
    return all(low == high for low, high in extrema)  # type: ignore[misc]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_examples_of_a_page_run_and_draw_its_pictures(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in NEEDS.get(page.stem, ()):
        pytest.importorskip(package)
    monkeypatch.setattr(registry, "_HEADS", dict(registry._HEADS))  # a page may name its own
    (tmp_path / "docs" / "images").mkdir(parents=True)
    with quiet(tmp_path):
        run_blocks(page)
    if page.parent.name != "docs" or page.stem in WITHOUT:
        return
    assert pictures_of(page), "the page shows no picture"
    for picture in pictures_of(page):
        drawn = tmp_path / "docs" / picture
        assert drawn.is_file(), f"no example draws {picture}"
        assert not is_blank(drawn)


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if p.parent.name == "docs" and p.stem not in ("architecture", "paper")],
    ids=name_of,
)
def test_a_page_opens_with_a_call_of_a_few_lines_and_then_its_picture(page: Path) -> None:
    opening, *_ = page.read_text(encoding="utf-8").partition("\n![")
    title, before, code, after = re.split(r"\n\n(?=\*\*)|^```.*\n", opening, flags=re.MULTILINE)
    assert title.startswith("# ")
    assert before.startswith("**")  # what the page is about, in a sentence
    assert 1 <= len(code.splitlines()) <= 9
    assert not re.search(r"^(?:#|\|)", before + after, re.MULTILINE)  # no section, no table


def test_a_model_of_ones_own_with_data_and_training_takes_less_than_60_lines() -> None:
    text = (ROOT / "docs" / "make.md").read_text(encoding="utf-8")
    model, training, _ = BLOCK.findall(text)
    assert "nn.Module" in model
    assert "backward()" in training
    assert len((model + training).splitlines()) < 60


def test_a_nova_from_nothing_takes_a_hundred_lines_of_torch_alone() -> None:
    model, *_ = BLOCK.findall((ROOT / "docs" / "nothing.md").read_text(encoding="utf-8"))
    assert "contar" not in model
    assert "recipes" not in model
    assert len([line for line in model.splitlines() if line.strip()]) <= 100


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_a_page_lead_to_files(page: Path) -> None:
    missing = [link for link in LINK.findall(prose(page)) if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_links_of_a_page_to_parts_of_pages_lead_to_headings(page: Path) -> None:
    targets = [
        (page.parent / (file or page.name), part) for file, part in ANCHOR.findall(prose(page))
    ]
    assert not [(file, part) for file, part in targets if part not in anchors(file)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_shows_and_does_not_run_is_python_and_imports_what_is_there(page: Path) -> None:
    for code in SHOWN.findall(page.read_text(encoding="utf-8")):
        body = ast.parse(code).body
        imports = (node for node in body if isinstance(node, ast.Import | ast.ImportFrom))
        exec("\n".join(map(ast.unparse, imports)), {})


def prose(page: Path) -> str:
    """Return a page without its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def anchors(page: Path) -> set[str]:
    """Return the names by which a page's headings are linked to."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    words = (re.sub(r"[^\w\s-]", "", heading.lower()) for heading in headings)
    return {re.sub(r"\s+", "-", word.strip()) for word in words}


def docstrings(path: Path) -> Iterator[tuple[str, str, int]]:
    """Yield name, text and line of a module's docstrings that hold examples.

    They are read from the source, where `doctest` would miss functions that the import hook wraps.
    """
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, kinds) and ">>>" in (text := ast.get_docstring(node) or ""):
            line = 1 if isinstance(node, ast.Module) else node.lineno
            yield getattr(node, "name", path.stem), text, line


MODULES = [
    path
    for package in ("contar", "recipes")
    for path in sorted((ROOT / package).rglob("*.py"))
    if any(docstrings(path))
]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_examples_in_the_docstrings_of_a_module_hold(path: Path, tmp_path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    with quiet(tmp_path):
        for name, text, line in docstrings(path):
            names = {**vars(module), "torch": torch}
            example = doctest.DocTestParser().get_doctest(text, names, name, str(path), line)
            runner.run(example, out=report.append)
    assert not runner.failures, "".join(report)
    assert runner.tries


def draw_anew(names: list[str]) -> None:
    for page in PAGES:
        if page.parent.name != "docs" or page.stem in WITHOUT or (names and page.stem not in names):
            continue
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "docs" / "images").mkdir(parents=True)
            with quiet(Path(folder)):
                run_blocks(page)
            for picture in pictures_of(page):
                path = page.parent / picture
                with Image.open(Path(folder) / "docs" / picture) as image:
                    packed = image.convert("RGB").quantize(128, dither=Image.Dither.NONE)
                packed.save(path, optimize=True)
                print(name_of(path), f"{path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    draw_anew(sys.argv[1:])
