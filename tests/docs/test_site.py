"""The site of the documentation: it builds without a warning, and no link in it is dead."""

import html.parser
import pathlib
import subprocess
import sys
import urllib.parse

import markdown_blocks
import pytest
from markdown_blocks import PAGES, ROOT

from tests.helpers import browsers


class _Page(html.parser.HTMLParser):
    """Anchors of a page, and what it refers to."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__()
        self.anchors, self.references = {"", "top"}, []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors.add(given.get("id"))
        self.references += [given[key] for key in ("href", "src") if given.get(key)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """As `make docs` builds it."""
    path = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    built = subprocess.run(
        [*command, "-d", str(path / "doctrees"), str(ROOT / "docs"), str(path / "html")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return path / "html"


def test_every_page_is_in_the_navigation(site):
    names = {page.stem for page in PAGES if page.parent == ROOT / "docs"}
    assert len(names) > 10
    listed = _Page(site / "index.html").references
    assert {f"{name}.html" for name in names - {"index"}} <= set(listed)


def test_every_link_and_anchor_exists(site):
    pages = {path: _Page(path) for path in site.rglob("*.html")}
    dead, checked = [], 0
    for path, page in pages.items():
        for reference in page.references:
            address = urllib.parse.urlsplit(reference)
            if address.scheme or address.netloc:
                continue
            checked += 1
            target = path
            if address.path:
                target = (path.parent / urllib.parse.unquote(address.path)).resolve()
            fragment = urllib.parse.unquote(address.fragment)
            if not target.exists() or (target in pages and fragment not in pages[target].anchors):
                dead.append(f"{path.name}: {reference}")
    assert checked > 500
    assert not dead


@pytest.mark.parametrize("name", ["README.md", "BUILD_NOTES.md"])
def test_links_of_pages_outside_the_site_exist(name):
    """As they are read in the repository."""
    page = ROOT / name
    addresses = [urllib.parse.urlsplit(link) for link in markdown_blocks.links(page)]
    paths = [page.parent / address.path for address in addresses if not address.scheme]
    assert paths
    assert [path for path in paths if not path.exists()] == []


def test_the_site_loads_nothing_from_elsewhere(site):
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert '<script src="http' not in text
        assert '<link rel="stylesheet" type="text/css" href="http' not in text


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["index", "commands", "results/index"])
@pytest.mark.browser
@pytest.mark.skipif(browsers.CHROMIUM is None, reason="found no Chromium")
def test_no_page_scrolls_sideways(site, browser, name, width):
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.goto((site / f"{name}.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.close()
