"""What generated pages share: templates, the skeleton of an HTML page, the look of figures."""

import io
from collections.abc import Mapping
from typing import Any

import jinja2
import matplotlib

from preprocessing import files
from preprocessing.files import AnyPath

matplotlib.use("Agg")

from matplotlib import pyplot as plt

# Legible on white and on near-black, so that one file serves light and dark readers.
INK = "#7a8290"
BLUE, ORANGE, GREEN = "#3b82f6", "#f59e0b", "#10b981"
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.figsize": (5.2, 3.2),
    "figure.constrained_layout.use": True,
}

Figure = tuple[str, str, str]
"""Title, caption, SVG."""


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
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader("models")]),
        autoescape=jinja2.select_autoescape(["html.j2", "html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    output = files.path(output)
    for ending in (".html", ".md"):
        text = environment.get_template(f"{template}{ending}.j2").render(content)
        output.with_suffix(ending).write_text(text, encoding="utf-8")
    return output


def svg(figure: plt.Figure) -> str:
    """The figure without the XML header, fit to stand inside HTML; closes it."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
