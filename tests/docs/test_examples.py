"""The examples in docstrings give what they say, and every layer has one."""

import doctest
import importlib
import inspect

import httpx
import pytest

from tests import room_page
from tests.helpers import toy_runs

MODULES = [
    module
    for module, path in room_page.modules().items()
    if ">>>" in path.read_text(encoding="utf-8")
]
_INPUTS = {
    name: {"dtype": "DT_STRING", "tensor_shape": {"dim": [{}] * rank}}
    for name, rank in (("user_id", 1), ("history_item_id", 2), ("candidate_item_id", 2))
}
_SIGNATURES = {"signature_def": {"serving_default": {"inputs": _INPUTS}}}
_REPLIES = {
    "GET": {"metadata": {"signature_def": _SIGNATURES}},
    "POST": {"outputs": [[0.5]]},
}


@pytest.fixture(scope="module", autouse=True)
def surroundings(tmp_path_factory):
    """What examples ask for: the directory `work` of `pipeline.run`, and a served model."""
    home = tmp_path_factory.mktemp("home")
    data = toy_runs.write_data(home / "work" / "data")
    toy_runs.write_run(home / "work" / "run", data, "lr")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(
            httpx.Client,
            "request",
            lambda _, verb, url, **rest: httpx.Response(200, json=_REPLIES[verb]),
        )
        yield


@pytest.mark.parametrize("module", MODULES)
def test_examples_give_what_they_say(module):
    failed, attempted = doctest.testmod(importlib.import_module(module))
    assert attempted
    assert not failed


def test_every_layer_has_an_example():
    missing = [
        f"{module}.{name}"
        for module in room_page.modules()
        if module.startswith("models.layers.")
        for name, value in vars(importlib.import_module(module)).items()
        if inspect.isclass(value) and value.__module__ == module and not name.startswith("_")
        if ">>>" not in (value.__doc__ or "")
    ]
    assert not missing
