"""The page "From paper to code" names what is there, and quotes what it does."""

import ast
from pathlib import Path

import pytest
from build_site import LINK, line_of

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "paper.md").read_text(encoding="utf-8")


def names_of(text: str) -> list[tuple[str, str]]:
    return [(label, target) for label, target, _ in LINK.findall(text) if target.endswith(".py")]


LINKS = names_of(PAGE)
# Of the rows with a quoted line: what they name, and the line.
QUOTES = [
    (names_of(row), line.strip(" `"))
    for row, _, line in (row.rstrip("| ").rpartition(" | ") for row in PAGE.splitlines())
    if line.strip().startswith("`") and line.strip().endswith("`") and names_of(row)
]


def words(code: str) -> str:
    return " ".join(code.split())


def source_of(source: str, name: str) -> str:
    """Return the lines of a function, class or constant."""
    first = line_of(source, name)
    ends = [
        node.end_lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.stmt) and node.lineno == first
    ]
    return "\n".join(source.splitlines()[(first or 0) - 1 : max(filter(None, ends), default=0)])


@pytest.mark.parametrize(("label", "target"), LINKS)
def test_a_name_of_the_page_is_defined_in_the_file_that_it_leads_to(
    label: str, target: str
) -> None:
    assert label.startswith("`")
    assert line_of((DOCS / target).read_text(encoding="utf-8"), label.strip("`"))


@pytest.mark.parametrize(("links", "line"), QUOTES, ids=lambda value: str(value)[:40])
def test_a_line_that_the_page_quotes_is_in_what_its_row_names(
    links: list[tuple[str, str]], line: str
) -> None:
    files = {target: (DOCS / target).read_text(encoding="utf-8") for _, target in links}
    sources = [source_of(files[target], label.strip("`")) for label, target in links]
    assert any(words(line) in words(source) for source in sources)


def test_the_page_has_each_numbered_equation_of_both_papers_with_its_line() -> None:
    nova, mar = PAGE.split("\n## ")[1:3]
    for section, last in ((nova, 4), (mar, 3)):
        for number in range(1, last + 1):
            rows = [row for row in section.splitlines() if f", eq. {number} |" in row]
            assert any(row.endswith("` |") for row in rows)


def test_the_page_names_the_functions_of_both_papers() -> None:
    named = {Path(target).as_posix() for _, target in LINKS}
    assert {"../recipes/nova.py", "../recipes/mar.py"} <= named
    assert len(LINKS) > 50
    assert len(QUOTES) > 40


def test_a_name_that_is_not_there_has_no_line() -> None:
    source = "class A:\n    x = 1\n    def f(self): ...\nB = 2\n"
    assert [line_of(source, name) for name in ("A", "A.f", "B", "A.x")] == [1, 3, 4, 2]
    assert line_of(source, "f.A") is None
    assert line_of(source, "C") is None
    assert source_of(source, "A.f") == "    def f(self): ..."
