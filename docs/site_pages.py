"""A hook of mkdocs: README.md and other files at the root as pages of the site, with links that fit it."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
PAGES |= {"CHANGELOG.md": "changelog.md", "SECURITY.md": "security.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, and the examples that they link to."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=with_links(ROOT.joinpath(source).read_text("utf-8"))))
    for path in sorted(ROOT.joinpath("examples").rglob("*.*")):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Let pages in docs/ link to the examples, which the site has beside them."""
    return markdown.replace("](../examples/", "](examples/")


def with_links(text: str) -> str:
    """Return ``text`` of a file at the root with links to other pages as they are in the site."""
    for source, page in {"docs/": "", **PAGES}.items():
        text = text.replace(f"]({source}", f"]({page}")
    return text
