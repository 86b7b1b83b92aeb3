"""The page "From paper to code" names what is there."""

from pathlib import Path

import pytest
from build_site import LINK, line_of

DOCS = Path(__file__).parents[2] / "docs"
LINKS = [
    (label, target)
    for label, target, _ in LINK.findall((DOCS / "paper.md").read_text(encoding="utf-8"))
    if target.endswith(".py")
]


@pytest.mark.parametrize(("label", "target"), LINKS)
def test_a_name_of_the_page_is_defined_in_the_file_that_it_leads_to(
    label: str, target: str
) -> None:
    assert label.startswith("`")
    assert line_of((DOCS / target).read_text(encoding="utf-8"), label.strip("`"))


def test_the_page_names_the_functions_of_both_papers() -> None:
    named = {Path(target).as_posix() for _, target in LINKS}
    assert {"../recipes/nova.py", "../recipes/mar.py"} <= named
    assert len(LINKS) > 50


def test_a_name_that_is_not_there_has_no_line() -> None:
    source = "class A:\n    x = 1\n    def f(self): ...\nB = 2\n"
    assert [line_of(source, name) for name in ("A", "A.f", "B", "A.x")] == [1, 3, 4, 2]
    assert line_of(source, "f.A") is None
    assert line_of(source, "C") is None
