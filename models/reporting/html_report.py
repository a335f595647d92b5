"""What generated pages share: parts of a page, templates, the look of figures.

A figure has one colour scheme for light and dark readers: its colours stand in the SVG as CSS
variables, which the skeleton of the page sets for both.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
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
"""Each colour as a CSS variable, on white and on near-black; by itself it is legible on both."""

WIDTH = 4.4
"""Of a figure, in inches: a point is about a pixel on a phone."""

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
        title: Its name, short.
        caption: What is drawn, for a reader who does not know the field.
        svg: Of `svg`.
        text: What it shows, in numbers: the text alternative, which Markdown prints.
    """

    title: str
    caption: str
    svg: str
    text: str = ""


class Grid(NamedTuple):
    """A table of text on a page; the first columns hold names, the others numbers.

    Attributes:
        title: Above it; "" for none.
        names: How many columns hold names.
        columns: Their titles.
        rows: Of cells.
        notes: Below it.
        folded: Whether a reader has to open it.
    """

    title: str
    names: int
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    folded: bool = False


class Section(NamedTuple):
    """A part of a page with a heading; what it lacks is left out.

    Attributes:
        title: The heading.
        grids: Tables.
        figures: Below the tables that are not folded.
        paragraphs: Below the heading.
        points: A list, below them.
        commands: To copy, at the end.
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
        package: The package whose `templates` directory holds the two templates.
        template: Their name, without `.html.j2` and `.md.j2`; the former extends `page.html.j2`.
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
    environment.globals["themes"] = list(_THEMES.values())
    output = files.path(output)
    for ending in (".html", ".md"):
        text = environment.get_template(f"{template}{ending}.j2").render(content)
        output.with_suffix(ending).write_text(text, encoding="utf-8")
    return output


class _PlainNumbers(ticker.LogFormatter):
    """Writes 0.1 where others write a formula, which `STYLE` does not know."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def log_scale(axes: Axes, *names: str) -> None:
    """Makes the axes with these names (x, y) logarithmic."""
    for name in names:
        axes.set(**{f"{name}scale": "log"})
        axis = {"x": axes.xaxis, "y": axes.yaxis}[name]
        axis.set_major_formatter(_PlainNumbers())
        axis.set_minor_formatter(_PlainNumbers(labelOnlyBase=False))


def svg(figure: plt.Figure) -> str:
    """The figure without the XML header, fit to stand inside HTML; closes it."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    plt.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Names such as "axes_1", which nothing refers to, would be there once for each figure.
    text = re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", text)
    for colour, (variable, _, _) in _THEMES.items():
        text = text.replace(colour, f"var({variable}, {colour})")
    return text
