"""docs/models.md names every model and every setting, as they are."""

import dataclasses

from models import registry
from tests import model_page


def test_the_page_is_up_to_date():
    current = model_page.PAGE.read_text(encoding="utf-8")
    assert current == model_page.page(), "run python -m tests.model_page"


def test_every_name_and_setting_is_on_the_page():
    text = model_page.PAGE.read_text(encoding="utf-8")
    for entries, load in (
        (registry.MODELS, registry.load_model_class),
        (registry.SSL, registry.load_ssl_class),
    ):
        for name in entries:
            assert f"| `{name}` |" in text
            for field in dataclasses.fields(load(name)[0].Config):
                assert f"| `{field.name}` |" in text
