"""What the site's builder gathers and finds fault with."""

from pathlib import Path

from build_site import faults, gather


def test_pages_are_gathered_with_what_they_link_to_and_links_lead_there(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name, text in {
        "README.md": "# A\n\n[page](docs/page.md#b) and ![a](docs/images/a.png)\n",
        "CHANGELOG.md": "# C\n",
        "CONTRIBUTING.md": "# D\n",
        "docs/page.md": "# P\n\n[`f`](../code.py)\n\n```python no-run\n[x](../code.py)\n```\n",
        "docs/images/a.png": "",
        "code.py": "import os\n\n\ndef f(): ...\n",
        "unlinked.py": "",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    gather(root, out := tmp_path / "out")
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert files == {
        *("index.md", "changelog.md", "contributing.md", "page.md"),
        *("images/a.png", "source/code.py.md"),
    }
    assert "[page](page.md#b) and ![a](images/a.png)" in (out / "index.md").read_text()
    page = (out / "page.md").read_text()
    assert "[`f`](source/code.py.md#__codelineno-0-4)" in page  # the line that defines it
    assert "```python\n[x](../code.py)\n```" in page


def test_links_that_lead_nowhere_and_what_comes_from_elsewhere_are_faults(tmp_path: Path) -> None:
    (tmp_path / "other.html").write_text('<h1 id="here">A</h1>')
    (tmp_path / "page.html").write_text(
        '<a href="other.html#here"></a><a href="https://elsewhere.example"></a>'
        '<a href="gone.html"></a><a href="other.html#gone"></a><a href="#top"></a>'
        '<script src="https://elsewhere.example/x.js"></script><img src="gone.png">'
    )
    assert sorted(faults(tmp_path)) == [
        "page.html links to #top, where there is no such place",
        "page.html links to gone.html, which is not there",
        "page.html links to gone.png, which is not there",
        "page.html links to other.html#gone, where there is no such place",
        "page.html loads https://elsewhere.example/x.js",
    ]
