"""The table of costs in docs/choosing_a_model.md, and the command that measures it."""

import re

from markdown_blocks import ROOT

from models import registry
from tests.bench import model_costs

TEXT = (ROOT / "docs" / "choosing_a_model.md").read_text(encoding="utf-8")
ROWS = {
    name.replace("` + `", "+"): [float(cell.replace(",", "")) for cell in cells.split(" | ")]
    for name, cells in re.findall(
        r"^\| `([\w` +]+)` \| ([\d,.]+(?: \| [\d.]+){2}) \|$", TEXT, re.MULTILINE
    )
}


def test_every_model_has_a_row():
    assert set(ROWS) >= set(registry.MODELS)
    assert set(ROWS) > {"din+miss", "din+cl4srec"}
    assert ROWS[model_costs.BASELINE][1:] == [1, 1]


def test_costs_are_measured():
    """FM has its bias beside the tables."""
    fm = model_costs.Subject("fm", requests=4, candidates=3)
    costs, _ = model_costs.measure(fm, fm, repeats=1)
    assert costs.weights == 1
    assert costs.step > 0
    assert costs.scoring > 0
    twice = model_costs.Costs(weights=2, step=2 * costs.step, scoring=costs.scoring / 2)
    assert model_costs.row("din+miss", twice, costs) == "| `din` + `miss` | 2 | 2 | 0.5 |"
