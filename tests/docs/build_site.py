"""The site in site/, of the Markdown that is in the repository: `make docs`.

Pages, notebooks and what they link to are gathered in build/docs, where mkdocs.yml finds them;
Zensical makes the site; every link and picture of it has to lead somewhere within it.
"""

import ast
import base64
import json
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")  # and all of docs/
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!`)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")
COPIED = (".png", ".js", ".css")  # as they are
LOADED = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "manifest"}  # by <link>
STYLED = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^\s"')]+)""")  # from elsewhere
OUTSIDE = ("http:", "https:", "mailto:", "data:", "javascript:")


def place_of(path: str) -> str:
    """Return where a file of the repository is in the site's sources."""
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/").replace(".ipynb", ".md")
    if path.endswith(COPIED):
        return f"source/{path}"
    if path.endswith(".md"):
        return path.lower() if "/" not in path else f"source/{path.replace('README', 'readme')}"
    return f"source/{path}.md"


def line_of(source: str, name: str) -> int | None:
    """Return the line that defines a name of a file, as `Class.method`; None if none does."""
    body: list[ast.stmt] = ast.parse(source).body
    line = None
    for part in name.split("."):
        found = [node for node in body if part in names_of(node)]
        if not found:
            return None
        line, body = found[-1].lineno, getattr(found[-1], "body", [])
    return line


def names_of(node: ast.stmt) -> list[str]:
    """Return the names that a statement defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


class Gathering:
    """Copies pages to `out`, and what they link to, page after page."""

    def __init__(self, root: Path, out: Path) -> None:
        self.root, self.out, self.done = root, out, set[str]()

    def add(self, path: str) -> None:
        """Add a file or folder of the repository, and what it links to."""
        if path in self.done:
            return
        self.done.add(path)
        source, place = self.root / path, self.out / place_of(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            place.write_text(self.rewritten(path, listing(source)), encoding="utf-8")
        elif path.endswith(".ipynb"):
            place.write_text(self.rewritten(path, notebook_page(source)), encoding="utf-8")
            shutil.copy(source, place.parent)
        elif path.endswith(".md"):
            text = source.read_text(encoding="utf-8")
            place.write_text(self.rewritten(path, text), encoding="utf-8")
        elif path.endswith(COPIED):
            shutil.copy(source, place)
        else:
            text = source.read_text(encoding="utf-8")
            kind = {".py": "python", ".json": "json", ".toml": "toml"}.get(source.suffix, "text")
            place.write_text(
                f'# {path}\n\n```` {{.{kind} linenums="1"}}\n{text}\n````\n', encoding="utf-8"
            )

    def rewritten(self, path: str, text: str) -> str:
        """Return a page's text with links that lead to the places of what they name."""
        here = path if (self.root / path).is_dir() else posixpath.dirname(path)
        start = posixpath.dirname(place_of(path))

        def link(match: re.Match[str]) -> str:
            label, target, anchor = match[1], match[2], match[3] or ""
            label = LINK.sub(link, label)
            file = posixpath.normpath(posixpath.join(here, unquote(target)))
            if file.startswith("build") or not (self.root / file).exists():
                return match[0]  # a picture of a notebook, or left for the check to find
            self.add(file)
            to = place_of(file)
            if file.endswith(".py") and label.startswith("`") and not anchor:
                line = line_of((self.root / file).read_text(encoding="utf-8"), label.strip("`"))
                anchor = f"#__codelineno-0-{line}" if line else ""
            return f"[{label}]({posixpath.relpath(to, start or '.')}{anchor})"

        parts = FENCE.split(text.replace("```python no-run", "```python"))
        return "".join(x if n % 2 else LINK.sub(link, x) for n, x in enumerate(parts))


def listing(folder: Path) -> str:
    """Return a page that names a folder's files."""
    lines = [f"- [{x.name}]({x.name})" for x in sorted(folder.iterdir()) if x.suffix in TEXTS]
    return f"# {folder.name}\n\n" + "\n".join(lines) + "\n"


TEXTS = (".md", ".json", ".py")


def notebook_page(path: Path) -> str:
    """Return a notebook as a page: its texts, its code and what it put out."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                picture = "".join(data["image/png"]).replace("\n", "")
                base64.b64decode(picture, validate=True)
                parts.append(
                    f'<img alt="what the cell draws" src="data:image/png;base64,{picture}">'
                )
            elif said := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
                parts.append(f"```text\n{said}\n```")
    title, *rest = parts
    download = f'<a href="{path.name}" download>This page as a notebook</a>'
    return "\n\n".join([title, download, *rest]) + "\n"


class Page(HTMLParser):
    """What a page of the site offers and asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids, self.links, self.loads = set[str](), list[str](), list[str]()
        self.styled = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of a tag's id, of what it links to and of what it loads."""
        given = {key: value or "" for key, value in attrs}
        self.ids |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and "href" in given and LOADED & {*given.get("rel", "").split()}:
            self.loads.append(given["href"])
        self.loads += [given[key] for key in ("src", "poster") if given.get(key)]
        if not given.get("srcset", "").startswith("data:"):  # which holds commas
            self.loads += [
                part.split()[0] for part in given.get("srcset", "").split(",") if part.strip()
            ]
        self.loads += STYLED.findall(given.get("style", ""))
        self.styled = tag == "style"

    def handle_data(self, data: str) -> None:
        """Take note of what a style sheet within the page loads."""
        if self.styled:
            self.loads += STYLED.findall(data)

    def handle_endtag(self, tag: str) -> None:
        """Leave a style sheet."""
        self.styled = False


def faults(site: Path) -> Iterator[str]:
    """Yield links that lead nowhere or out of the site, and what it would load from elsewhere."""
    site = site.resolve()
    for path in site.rglob("*.css"):
        for link in STYLED.findall(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(site)} loads {link}"
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    for path, page in pages.items():
        name = path.relative_to(site)
        for link in (*page.links, *page.loads):
            if link.startswith(OUTSIDE) or link.startswith("//"):
                if link in page.loads and not link.startswith("data:"):
                    yield f"{name} loads {link}"
                continue
            split = urlsplit(link)
            target = (path.parent / unquote(split.path)).resolve() if split.path else path
            target = target / "index.html" if target.is_dir() else target
            if name.name == "404.html":
                continue
            if not target.is_relative_to(site):
                yield f"{name} links to {link}, which is not in the site"
            elif not target.exists():
                yield f"{name} links to {link}, which is not there"
            elif not (place := unquote(split.fragment)):
                continue
            elif target not in pages or place not in pages[target].ids:
                yield f"{name} links to {link}, where there is no such place"


def gather(root: Path, out: Path) -> None:
    """Put the sources of the site into `out`."""
    shutil.rmtree(out, ignore_errors=True)
    gathering = Gathering(root, out)
    inside = sorted((root / "docs").rglob("*"))
    files = [
        str(x.relative_to(root)) for x in inside if x.suffix in (".md", ".ipynb", ".js", ".css")
    ]
    for path in (*PAGES, *files):
        gathering.add(path)


def main() -> None:
    """Build the site and check it; leave with 1 where something is wrong."""
    gather(ROOT, ROOT / "build" / "docs")
    shutil.rmtree(ROOT / "site", ignore_errors=True)
    subprocess.run(
        [Path(sys.executable).with_name("zensical"), "build", "--clean", "--strict"],
        cwd=ROOT,
        check=True,
    )
    wrong = list(faults(ROOT / "site"))
    print(*wrong, sep="\n")
    count = sum(1 for _ in (ROOT / "site").rglob("*.html"))
    print(f"site/: {count} pages, {len(wrong)} faults")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
