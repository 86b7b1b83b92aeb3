"""What the site's builder gathers and finds fault with."""

from pathlib import Path

import pytest
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


def test_a_link_out_of_the_site_and_whatever_loads_from_elsewhere_are_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "README.md").touch()
    (tmp_path / "site").mkdir()
    monkeypatch.chdir(tmp_path)
    away = "https://elsewhere.example"
    Path("site/a.txt").touch()
    Path("site/style.css").write_text(
        f'@import "{away}/1";a {{b: url({away}/2)}}c {{d: url(data:image/png,{away})}}'
    )
    Path("site/page.html").write_text(
        f'<a href="../README.md"></a><a href="a.txt#x"></a><p style="a: url({away}/3)"></p>'
        f'<img src="a.txt" srcset="a.txt 1x, {away}/4 2x"><style>@import url("//5.example");'
        f'</style><link rel="modulepreload" href="{away}/6"><link rel="canonical" href="{away}">'
        f'<link rel="shortcut icon" href="{away}/7">url({away})'
    )
    assert sorted(faults(Path("site"))) == [
        "page.html links to ../README.md, which is not in the site",
        "page.html links to a.txt#x, where there is no such place",
        "page.html loads //5.example",
        *(f"page.html loads {away}/{n}" for n in (3, 4, 6, 7)),
        *(f"style.css loads {away}/{n}" for n in (1, 2)),
    ]
