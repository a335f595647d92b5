"""Sphinx configuration of the documentation's site, which `make docs` builds into build/docs.

The pages are plain Markdown that reads as well on GitHub. The order of the site's navigation is
that of the lists in index.md, so that no page has to hold a directive.
"""

import re
from typing import Any

from pygments.lexers.special import TextLexer

project = "sequence-ctr"
author = "The authors of sequence-ctr"
copyright = "the authors of sequence-ctr, under the Apache License 2.0"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
highlight_language = "none"  # of blocks without a language
smartquotes = False  # They would make a dash of the hyphens of a flag.
myst_heading_anchors = 4  # slugs as GitHub makes them

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_title = "sequence-ctr"
html_show_sphinx = False
html_copy_source = False
html_use_index = False
html_theme_options = {"navigation_with_keys": True}

_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_PAGE = re.compile(r"^\* \[[^\]]+\]\(([\w/-]+)\.md\)", re.MULTILINE)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.add_lexer("mermaid", TextLexer)  # Drawn on GitHub; readable as text here.
    app.connect("source-read", _add_navigation)


def _add_navigation(app: Any, name: str, source: list[str]) -> None:
    """Adds to an index a hidden table of contents for each of its sections that lists pages."""
    del app
    if name.rpartition("/")[2] != "index":
        return
    head, *parts = _SECTION.split(source[0])
    for title, text in zip(["", *parts[::2]], [head, *parts[1::2]], strict=True):
        if pages := _PAGE.findall(text):
            caption = [f":caption: {title}"] if title else []
            lines = ["", "```{toctree}", ":hidden:", *caption, "", *pages, "```", ""]
            source[0] += "\n".join(lines)
