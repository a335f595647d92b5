"""Shared parts of generated pages: sections, templates, and the style of figures.

Figures support light and dark themes: their colours are CSS variables in the SVG, which the base
template sets for both themes.
"""

import io
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import markupsafe
import matplotlib

from preprocessing.storage import files
from preprocessing.storage.files import AnyPath

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib import rcsetup, ticker
from matplotlib.axes import Axes

INK = "#7a8290"
BLUE, ORANGE, GREEN = "#3b82f6", "#f59e0b", "#10b981"
_VIOLET, _PINK, _TEAL, _LIME = "#8b5cf6", "#ec4899", "#06b6d4", "#84cc16"
SERIES = (BLUE, ORANGE, GREEN, _VIOLET, _PINK, _TEAL, _LIME, INK)
_THEMES = {
    BLUE: ("--blue", "#2563eb", "#60a5fa"),
    ORANGE: ("--orange", "#c2410c", "#fb923c"),
    GREEN: ("--green", "#047857", "#34d399"),
    _VIOLET: ("--violet", "#7c3aed", "#a78bfa"),
    _PINK: ("--pink", "#be185d", "#f472b6"),
    _TEAL: ("--teal", "#0e7490", "#22d3ee"),
    _LIME: ("--lime", "#4d7c0f", "#a3e635"),
    INK: ("--ink-of-figures", "#5d6675", "#9aa3b2"),
}
"""CSS variable of each colour, with its values for the light and the dark theme; the colour itself
is legible on both."""

WIDTH = 4.4
"""Width of a figure in inches: a point is about a pixel on a phone."""

_FEW_COLUMNS, _WIDTH_IN_LETTERS = 6, 80
"""A table of more columns and letters than these is wide."""

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.parse_math": False,  # A dollar in a value of the log is a dollar.
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.prop_cycle": rcsetup.cycler(color=SERIES),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.figsize": (WIDTH, 2.8),
    "figure.constrained_layout.use": True,
}


class Figure(NamedTuple):
    """A figure of a page.

    Attributes:
        title: Short name of the figure.
        caption: Explanation of the figure for readers who do not know the field.
        svg: SVG text, as `svg` returns it.
        text: Text alternative with the main numbers, which Markdown prints.
    """

    title: str
    caption: str
    svg: str
    text: str = ""


class Grid(NamedTuple):
    """A table of text on a page; the first columns hold names, the others numbers.

    Attributes:
        title: Title above the table; "" for none.
        names: Number of columns that hold names.
        columns: Titles of the columns.
        rows: Rows of cells.
        notes: Notes below the table.
        folded: Whether the table is collapsed until a reader opens it.
    """

    title: str
    names: int
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    folded: bool = False


class Section(NamedTuple):
    """A part of a page with a heading; empty parts are left out.

    Attributes:
        title: Heading of the section.
        grids: Tables.
        figures: Figures, below the tables that are not folded.
        paragraphs: Paragraphs below the heading.
        points: Items of a list below the paragraphs.
        commands: Commands to copy, at the end.
    """

    title: str
    grids: Sequence[Grid] = ()
    figures: Sequence[Figure] = ()
    paragraphs: Sequence[str] = ()
    points: Sequence[str] = ()
    commands: Sequence[str] = ()


def write(
    package: str, template: str, content: Mapping[str, Any], output: str | AnyPath
) -> AnyPath:
    """Writes a page as HTML and, beside it, as Markdown.

    Args:
        package: Package whose `templates` directory holds the two templates.
        template: Name of the templates without `.html.j2` and `.md.j2`; the former extends
            `page.html.j2`.
        content: Values of the variables of the templates.
        output: The HTML file; the Markdown file has the same name with the ending .md.

    Returns:
        The path of the HTML file.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(package), jinja2.PackageLoader("models.reporting")]
        ),
        autoescape=jinja2.select_autoescape(["html.j2", "html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "breakable": _breakable,
        "is_wide": _is_wide,
        "with_flags": _with_flags,
        "with_spread": _with_spread,
    }
    environment.globals["themes"] = list(_THEMES.values())
    output = files.path(output)
    for ending in (".html", ".md"):
        text = environment.get_template(f"{template}{ending}.j2").render(content)
        output.with_suffix(ending).write_text(text, encoding="utf-8")
    return output


def _breakable(text: object) -> markupsafe.Markup:
    """A name or path that may be broken behind its separators; other text breaks at its spaces."""
    escaped = markupsafe.escape(text)
    if " " in escaped:
        return escaped
    return markupsafe.Markup(re.sub(r"(?<=[\w>][_./])(?=[^\W\d])", "<wbr>", escaped))


def _is_wide(table: Grid | Mapping[str, Any]) -> bool:
    """Whether a table of many columns needs smaller letters to fit a desk."""
    rows = table["rows"] if isinstance(table, Mapping) else table.rows
    columns = itertools.zip_longest(*rows, fillvalue="")
    lengths = [max(len(str(cell)) for cell in column) for column in columns]
    return len(lengths) > _FEW_COLUMNS and sum(lengths) > _WIDTH_IN_LETTERS


def _with_flags(text: object) -> markupsafe.Markup:
    """Text whose flags each stay on one line as far as that is wide enough."""
    escaped = str(markupsafe.escape(text))
    flags = re.sub(r"(?<!\S)(?:&#39;)?--\w\S*", r'<span class="flag">\g<0></span>', escaped)
    return markupsafe.Markup(flags)


def _with_spread(number: object) -> str:
    """A number that may be broken before its spread, and not behind the sign."""
    return str(number).replace("± ", "±\N{NO-BREAK SPACE}")


class _PlainNumbers(ticker.LogFormatter):
    """Formats ticks as plain numbers; the default needs MathText, which `STYLE` disables."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def log_scale(axes: Axes, *names: str) -> None:
    """Makes the axes with these names (x, y) logarithmic."""
    for name in names:
        axes.set(**{f"{name}scale": "log"})
        axis = {"x": axes.xaxis, "y": axes.yaxis}[name]
        axis.set_major_formatter(_PlainNumbers())
        axis.set_minor_formatter(_PlainNumbers(labelOnlyBase=False))


def shortened(text: str, width: int = 22) -> str:
    """The text of a label, cut to a number of characters so that it leaves space for the axes.

    What is cut stands in the middle, since paths and ids differ at their ends.

    Example:
        >>> shortened("https://shop.example/products/1540")
        'https://sh…oducts/1540'
    """
    if len(text) <= width:
        return text
    tail = width // 2
    return f"{text[: width - 1 - tail]}…{text[-tail:]}"


def svg(figure: plt.Figure) -> str:
    """The figure as SVG without the XML header, to embed in HTML; closes the figure."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    plt.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Ids such as "axes_1" are unused, and would repeat in every figure of a page.
    text = re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", text)
    for colour, (variable, _, _) in _THEMES.items():
        text = text.replace(colour, f"var({variable}, {colour})")
    return text
