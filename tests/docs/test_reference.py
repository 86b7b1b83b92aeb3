"""The reference names what is public, and the site's list of pages names every page."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ENTRY = re.compile(r"^::: (\S+)$", re.MULTILINE)


def names_of(path: Path) -> list[str]:
    """Return the names in a file's `__all__`; none where it has no such line."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def public() -> dict[str, list[str]]:
    """Return the modules without underscore, each with the names that are its own to hand out."""
    found = {}
    for package in ("contar", "recipes"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            if not any(part.startswith("_") for part in parts) and (names := names_of(path)):
                found[".".join(parts)] = names
    return found


PUBLIC = public()
ENTRIES = [
    entry
    for page in sorted((DOCS / "reference").glob("*.md"))
    for entry in ENTRY.findall(page.read_text(encoding="utf-8"))
]


def test_the_rooms_and_recipes_are_found() -> None:
    rooms = {path.parent.name for path in (ROOT / "contar").glob("[a-z]*/__init__.py")}
    assert {f"contar.{room}" for room in rooms} | {"recipes.nova", "recipes.mar"} <= set(PUBLIC)


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_has_an_entry_in_the_reference(module: str) -> None:
    above = module.rpartition(".")[0]  # which may hand a name out, as `recipes.moving_digits` does
    missing = [n for n in PUBLIC[module] if not {f"{module}.{n}", f"{above}.{n}"} & {*ENTRIES}]
    assert not missing, f"add a line `::: {module}.{missing[0]}` to a page of docs/reference"


def test_every_entry_of_the_reference_is_a_public_name_and_stands_once() -> None:
    assert sorted({*ENTRIES}) == sorted(ENTRIES)
    assert {*ENTRIES} <= {f"{module}.{name}" for module in PUBLIC for name in PUBLIC[module]}


def test_the_list_of_the_site_has_every_page_and_no_other() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r": (\S+\.md)$", config.partition("\nnav:\n")[2], re.MULTILINE)
    pages = [x for kind in ("*.md", "*.ipynb") for x in DOCS.rglob(kind)]
    there = [x.relative_to(DOCS).with_suffix(".md").as_posix() for x in pages]
    assert sorted(listed) == sorted([*there, "index.md", "changelog.md", "contributing.md"])


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_a_page_says_what_to_call_before_its_first_long_text(page: Path) -> None:
    if page.stem in ("architecture", "gallery"):
        return
    above, fence, _ = page.read_text(encoding="utf-8").partition("\n```")
    assert fence
    assert len(above.split()) < 140
