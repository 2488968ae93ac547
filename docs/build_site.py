"""What mkdocs does not do by itself: pages from outside docs/, the notebook as a page, and links to files of the
repository, which lead to pages that show them.

An *origin* is a path relative to the repository (``docs/model.md``), a *page* one relative to the site (``model.md``).
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "docs/quickstart.ipynb": "quickstart.md",
}
ORIGINS = {page: origin for origin, page in PAGES.items()}
SHOWN = "source/"  # pages that show a file or a folder of the repository
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)(?=[)#])")
ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):(?=<code>)")
BLOCK_FOLLOWS = re.compile(r"<p>::</p>|(?<=:):(?=</p>)")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".sh": "bash", ".json": "json"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that come from outside docs/, and one for every file or folder that a page points at."""
    texts = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    for origin, page in PAGES.items():
        texts[origin] = _markdown_of(ROOT / origin)
        files.append(File.generated(config, page, content=texts[origin]))
    targets = {_target(origin, link) for origin, text in texts.items() for link in LINK.findall(text)}
    for target in sorted(target for target in targets if _page_of(target).startswith(SHOWN)):
        content = _shown(ROOT / target, target)
        files.append(File.generated(config, _page_of(target), content=content, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Makes links between files of the repository links between pages."""
    here = page.file.src_uri
    if here.startswith(SHOWN):
        return markdown
    origin, folder = ORIGINS.get(here, f"docs/{here}"), posixpath.dirname(here) or "."
    return LINK.sub(lambda link: posixpath.relpath(_page_of(_target(origin, link[1])), folder), markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Takes the marks of reStructuredText out of docstrings, which are Markdown here."""
    html = ROLE.sub("", html)
    return BLOCK_FOLLOWS.sub("", html)


def _target(origin: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))


def _page_of(target: str) -> str:
    """Where a file or folder of the repository stands in the site. Nothing is there for one that does not exist, which
    mkdocs then reports."""
    if target in PAGES and target != "docs/quickstart.ipynb":  # a link to the notebook is there to get the file
        return PAGES[target]
    if target.startswith("docs/") or not (ROOT / target).exists():
        return target.removeprefix("docs/")
    return f"{SHOWN}{target}.md" if (ROOT / target).is_file() else f"{SHOWN}{target}/index.md"


def _markdown_of(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".ipynb":
        return text
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return "\n\n".join(source if kind == "markdown" else f"```python\n{source}\n```" for kind, source in cells)


def _shown(place: Path, name: str) -> str:
    """A file as a block of code, a folder as the blocks of its files."""
    if place.is_dir():
        files = sorted(file for file in place.iterdir() if file.suffix in LANGUAGES)
        return f"# {name}/\n\n" + "\n\n".join(f"## {file.name}\n\n{_fenced(file)}" for file in files)
    return f"# {name}\n\n{_fenced(place)}"


def _fenced(file: Path) -> str:
    return f"````{LANGUAGES.get(file.suffix, 'text')}\n{file.read_text(encoding='utf-8').rstrip()}\n````"
