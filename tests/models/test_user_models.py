"""A user's own model with a mistake gets one line that names model, place and remedy."""

import re

import pytest

from models import registry
from models.backbone_api import Backbone
from models.config import run_config
from models.training import model_checks
from models.user_code import Part, load_class
from preprocessing.errors import UserError
from tests.helpers import small_models


def _check(model, ssl="none", *overrides):
    run = small_models.config(model, ssl, *overrides)
    model_checks.check_user_parts(run, small_models.schema())


def _line_of(text):
    """File and line of a definition in user_models.py."""
    path = re.sub(r"test_user_models", "user_models", __file__)
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    return f"{path}:{lines.index(text) + 1}"


_SLOW = {
    *("WithoutWeights", "Cosine", "Frozen"),
    *("Transposed", "Softmax", "HandMade", "Keras3Nested", "AddedInCall", "Rounded", "Constant"),
}
"""Kinds for which others stand in the suite that must be quick."""


def _marked(*cases):
    return [
        pytest.param(*case, marks=[pytest.mark.slow] if case[0] in _SLOW else []) for case in cases
    ]


@pytest.mark.parametrize(
    "name", _marked(("Good",), ("WithoutWeights",), ("Cosine",), ("Small",), ("Frozen",))
)
def test_models_that_can_be_trained_pass(name):
    _check(f"user_models:{name}")


@pytest.mark.parametrize(
    ("name", "message"),
    _marked(
        ("Rank3", r"Expected logits \[B, N\] from Rank3.score \(.*/user_models.py:\d+\), found a "
                  r"tensor of rank 3. Fix: drop its last axis"),
        ("Transposed", r"logits \[B, N\] = \[5, 3\] from model user_models:Transposed .*\[3, 5\]"),
        ("Nothing", r"Expected logits \[B, N\] from Nothing.score .*, found NoneType"),
        ("Classes", "Expected logits of type float32 from Classes.score .*, found int64"),
        ("Sigmoid", "found numbers from 0 to 1 for all weights, as a sigmoid or softmax"),
        ("Softmax", "found numbers from 0 to 1 for all weights, as a sigmoid or softmax"),
        ("HandMade", "found numbers from 0 to 1 for all weights, as a sigmoid or softmax"),
        ("Keras3", r"found self.dense, a keras.src.layers.core.dense.Dense, of Keras 3, whose "
                   r"weights would never be trained. Fix: write `from models.keras import keras`"),
        ("Keras3Nested", r"found self.towers\[0\]\['first'\]\[0\], a keras.src.* of Keras 3"),
        ("Keras3Hidden", "found others, which would never be trained: .*kernel:0"),
        ("NewInCall", "weights that last longer than a call, found others, .*kernel:0"),
        ("AddedInCall", "all its weights once it is built, found new ones .*kernel:0"),
        ("AddedInTraining", "all its weights once it is built, found new ones .*kernel:0"),
        ("Forgotten", r"Expected every trainable weight of model user_models:Forgotten \(.*"
                      r"user_models.py:\d+\) to get a gradient, found none for forgotten:0"),
        ("Rounded", "to get a gradient, found none for .*kernel:0"),
        ("Constant", "found none that does, so there is nothing to train"),
        ("EmptyMean", "found NaN or infinity of a request without history"),
        ("WrongInit", r"found at .*user_models.py:\d+: KeyError: 'widths'"),
        ("WrongSignature", r"models.backbone_api, found: TypeError: WrongSignature.score\(\)"),
        ("PythonCondition", "found at .*: OperatorNotAllowed.* Fix: write tf.where, tf.cond"),
    ),
)  # fmt: skip
def test_a_mistake_of_a_model_is_one_line(name, message):
    with pytest.raises(UserError, match=message) as failed:
        _check(f"user_models:{name}")
    assert "\n" not in str(failed.value)
    assert name in str(failed.value)


def test_an_error_in_a_model_names_its_line():
    with pytest.raises(UserError) as failed:
        _check("user_models:WrongProduct")
    place = _line_of('        return tf.matmul(state["sum_BD"], candidates.target_BND)')
    message = str(failed.value)
    assert f"to compute its results, found at {place}: InvalidArgumentError: Matrix" in message
    assert "\n" not in message


def test_self_supervision_of_a_user_is_checked_likewise():
    _check("din", "user_models:GoodLoss")
    with pytest.raises(UserError, match=r"ssl user_models:NoTerms .* to fit models.backbone_api"):
        _check("din", "user_models:NoTerms")


def test_settings_of_self_supervision_that_do_not_fit_are_one_line():
    with pytest.raises(UserError, match="Expected ssl.heads to divide 16, .* found 3"):
        small_models.model(small_models.config("din", "cl4srec", "ssl.heads=3"))


def test_models_of_this_repository_are_not_looked_at(monkeypatch):
    monkeypatch.setattr(model_checks, "check_parts", None)
    _check("deminet", "miss")


_MODELS = [
    pytest.param(name, marks=() if name == "lr" else pytest.mark.slow) for name in registry.MODELS
]


@pytest.mark.parametrize("name", _MODELS)
def test_no_model_of_this_repository_is_taken_for_a_mistake(name):
    parts = [Part("model", name, registry.load_model_class(name)[0])]
    model_checks.check_parts(small_models.config(name), small_models.schema(), parts)


@pytest.mark.slow
@pytest.mark.parametrize("name", registry.SSL)
def test_no_self_supervision_of_this_repository_is_taken_for_a_mistake(name):
    parts = [Part("ssl", name, registry.load_ssl_class(name)[0])]
    model_checks.check_parts(small_models.config("din", name), small_models.schema(), parts)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a module of a user's and returns its name."""
    monkeypatch.syspath_prepend(tmp_path)
    count = iter(range(100))

    def write(text):
        name = f"{re.sub(r'[^a-z0-9]', '', tmp_path.name)}_{next(count)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


_IMPORTS = "from models.backbone_api import Backbone, ModelConfig\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nclass Model(:\n", r"found at {path}:2: SyntaxError: invalid syntax"),
        ("import no_such_library\n", r"{path}:1: ModuleNotFoundError: No module named 'no_such_l"),
        ("from models.backbone_api import Nope\n", r"{path}:1: ImportError: cannot import name"),
        ("\n\nx = {}['key']\n", r"found at {path}:3: KeyError: 'key'"),
        ("import sys\nsys.exit(2)\n", r"found at {path}:2: SystemExit: 2"),
        ("x = 1\n", r"Expected one Backbone in .*{path}\), found no class. Fix: derive"),
        ("class Model:\n    pass\n", r"found none among Model. Fix: derive the class of the model"),
        (
            _IMPORTS + "class A(Backbone):\n    pass\nclass B(Backbone):\n    pass\n",
            r"Expected one Backbone in .*, found A, B. Fix: name it: --model=.*:A",
        ),
        (
            _IMPORTS + "class A(Backbone):\n    class Config:\n        pass\n",
            r"to have a class of settings Config that derives from models.backbone_api.ModelConfig",
        ),
        (
            _IMPORTS + "class S(ModelConfig):\n    width: int = 3\n"
            "class A(Backbone):\n    Config = S\n",
            r"Expected the settings S of model .* to be a dataclass, found a plain class",
        ),
    ],
)  # fmt: skip
def test_a_module_that_cannot_be_used_is_one_line(write, tmp_path, text, message):
    name = write(text)
    path = re.escape(str(tmp_path / f"{name}.py"))
    with pytest.raises(UserError, match=message.replace("{path}", path)):
        registry.load_model_class(f"{name}")


def test_a_class_is_named_as_the_user_knows_it(write):
    name = write(
        _IMPORTS + "from user_models import Good as Elsewhere\n"
        "class Mine(Backbone):\n    pass\nclass Plain:\n    pass\n"
    )
    assert registry.load_model_class(name)[0].__name__ == "Mine"  # A module without a package, too.
    assert registry.load_model_class(f"{name}:Elsewhere")[0].__name__ == "Good"
    with pytest.raises(
        UserError, match=rf"a class Mime in {name} .* found Mine. Fix: did you mean"
    ):
        registry.load_model_class(f"{name}:Mime")
    with pytest.raises(
        UserError, match=r"Plain to derive from models.backbone_api.Backbone, found "
    ):
        registry.load_model_class(f"{name}:Plain")


def test_a_file_in_place_of_a_module_is_answered_with_the_dotted_form(tmp_path, monkeypatch):
    package = tmp_path / "home" / "mine"
    package.mkdir(parents=True)
    (package / "average.py").touch()
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.syspath_prepend(tmp_path / "home")
    for name, dotted in (
        ("./mine/average.py", "mine.average"),
        ("mine/average.py:Average", "mine.average:Average"),
        (str(package / "average.py"), "mine.average"),
        ("mine/average", "mine.average"),
    ):
        with pytest.raises(UserError, match=rf"found the file .* Fix: write --model={dotted}\.$"):
            registry.load_model_class(name)
    monkeypatch.chdir(tmp_path)
    (package / "__init__.py").touch()
    monkeypatch.setattr("sys.path", [])
    root = re.escape(str(tmp_path / "home"))
    with pytest.raises(UserError, match=rf"--model=mine.average with PYTHONPATH={root}\.$"):
        load_class("home/mine/average.py", Backbone, "model")
    with pytest.raises(UserError, match="found './nowhere.py', which is not even a file"):
        load_class("./nowhere.py", Backbone, "model")


def test_a_run_begins_with_the_checks(data, tmp_path):
    from models import train

    content = {"data": str(data.path), "model": {"name": "user_models:Sigmoid"}}
    with pytest.raises(UserError, match="found numbers from 0 to 1"):
        train.train(run_config.resolve(content), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "config.json").exists()
