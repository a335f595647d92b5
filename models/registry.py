"""Classes of models and self-supervision by name. A new model needs one file and one line here."""

import importlib.util
from typing import TYPE_CHECKING, Any, NamedTuple

from preprocessing.errors import UserError
from preprocessing.json_checks import did_you_mean

if TYPE_CHECKING:
    from models.backbone_api import Backbone, SelfSupervision
    from models.user_code import Part


class Entry(NamedTuple):
    """The path of a class, and the settings of a named variant of it."""

    path: str
    settings: dict[str, Any] = {}


_DEMINET = "models.backbones.deminet:DemiNet"

MODELS: dict[str, Entry] = {
    "din": Entry("models.backbones.din:DIN"),
    "dien": Entry("models.backbones.dien:DIEN"),
    "mind": Entry("models.backbones.mind:MIND"),
    "comirec_sa": Entry("models.backbones.comirec:ComiRecSA"),
    "comirec_dr": Entry("models.backbones.comirec:ComiRecDR"),
    "dmin": Entry("models.backbones.dmin:DMIN"),
    "sim": Entry("models.backbones.sim:SIM"),
    "deminet": Entry(_DEMINET),
    "deminet_wo_dha": Entry(_DEMINET, {"operator": "none", "ssl_weight": 0.0}),
    "deminet_wo_ssl": Entry(_DEMINET, {"ssl_weight": 0.0}),
    "deminet_wo_ie": Entry(_DEMINET, {"aggregation": "single"}),
    "deminet_gat": Entry(_DEMINET, {"operator": "gat"}),
    "deminet_lgc": Entry(_DEMINET, {"operator": "lgc"}),
    "deminet_gcmc": Entry(_DEMINET, {"operator": "gcmc"}),
    "deminet_multi_avg": Entry(_DEMINET, {"aggregation": "average"}),
    "deminet_hard_routing": Entry(_DEMINET, {"aggregation": "hard_routing"}),
    "deminet_moe": Entry(_DEMINET, {"aggregation": "moe"}),
    "deminet_plus": Entry(_DEMINET, {"selective": True, "disagreement": 0.01}),
    "lr": Entry("models.backbones.lr:LR"),
    "fm": Entry("models.backbones.fm:FM"),
    "deepfm": Entry("models.backbones.deepfm:DeepFM"),
    "ipnn": Entry("models.backbones.ipnn:IPNN"),
    "dcn": Entry("models.backbones.dcn:DCN"),
    "dcn_v2": Entry("models.backbones.dcn:DCN", {"cross": "matrix"}),
    "xdeepfm": Entry("models.backbones.xdeepfm:XDeepFM"),
    "autoint": Entry("models.backbones.autoint:AutoInt"),
    "fignn": Entry("models.backbones.fignn:FiGNN"),
    "dmr": Entry("models.backbones.dmr:DMR"),
}

SSL: dict[str, Entry] = {
    "miss": Entry("models.ssl.miss:MISS"),
    # Without feature-level correlations (F), union-wise interests (U), long-range dependencies (L)
    # or multiple interests (M): table VI of MISS.
    "miss_wo_f": Entry("models.ssl.miss:MISS", {"heights": 0}),
    "miss_wo_u": Entry("models.ssl.miss:MISS", {"widths": 1}),
    "miss_wo_l": Entry("models.ssl.miss:MISS", {"distances": 1}),
    "miss_wo_m": Entry("models.ssl.miss:MISS", {"extractor": "sample"}),
    "miss_wo_fu": Entry("models.ssl.miss:MISS", {"heights": 0, "widths": 1}),
    "miss_wo_fl": Entry("models.ssl.miss:MISS", {"heights": 0, "distances": 1}),
    "miss_wo_ful": Entry("models.ssl.miss:MISS", {"heights": 0, "widths": 1, "distances": 1}),
    "miss_wo_mful": Entry("models.ssl.miss:MISS", {"heights": 0, "extractor": "sample"}),
    "miss_sa": Entry("models.ssl.miss:MISS", {"extractor": "sa"}),
    "miss_lstm": Entry("models.ssl.miss:MISS", {"extractor": "lstm"}),
    "rule": Entry("models.ssl.rule:Rule"),
    "irssl": Entry("models.ssl.irssl:IRSSL"),
    "s3rec": Entry("models.ssl.s3rec:S3Rec"),
    "cl4srec": Entry("models.ssl.cl4srec:CL4SRec"),
}

NO_SSL = "none"
ALIASES = {"miss": ("din", "miss")}
"""Names that stand for a model together with a self-supervision."""


def model_entry(name: str) -> Entry:
    """The entry of a model's name; that of a dotted path is the path itself.

    Raises:
        UserError: There is no such name.
    """
    return _entry(name, MODELS, "model")


def ssl_entry(name: str) -> Entry:
    """The entry of a self-supervised loss, as `model_entry` returns that of a model."""
    return _entry(name, SSL, "ssl")


def load_model_class(name: str) -> "tuple[type[Backbone], dict[str, Any]]":
    """The class of a model and the settings of the named variant.

    Args:
        name: A name of `MODELS`, or `package.module` or `package.module:Class` of a user.

    Raises:
        UserError: There is no such name or class; see also `load_class`.
    """
    entry = model_entry(name)
    # They load TensorFlow, for which a name that is wrong need not wait.
    from models.backbone_api import Backbone
    from models.user_code import load_class

    return load_class(entry.path, Backbone, "model"), dict(entry.settings)


def load_ssl_class(name: str) -> "tuple[type[SelfSupervision], dict[str, Any]]":
    """The class of a self-supervised loss and the settings of the named variant.

    Raises:
        UserError: There is no such name or class; see also `load_class`.
    """
    entry = ssl_entry(name)
    from models.backbone_api import SelfSupervision
    from models.user_code import load_class

    return load_class(entry.path, SelfSupervision, "ssl"), dict(entry.settings)


def user_parts(model_name: str, ssl_name: str) -> "list[Part]":
    """The user-defined parts among a model and its self-supervision."""
    from models.user_code import Part

    parts = []
    if model_name not in MODELS:
        parts.append(Part("model", model_name, load_model_class(model_name)[0]))
    if ssl_name not in SSL and ssl_name != NO_SSL:
        parts.append(Part("ssl", ssl_name, load_ssl_class(ssl_name)[0]))
    return parts


def _entry(name: str, known: dict[str, Entry], flag: str) -> Entry:
    is_path = any(mark in name for mark in ".:/")
    if name not in known and not is_path and not _is_module(name):
        raise UserError(
            f"Expected --{flag} to be one of {', '.join(known)} or a dotted path, found {name!r}.",
            did_you_mean(name, known),
        )
    return known.get(name, Entry(name))


def _is_module(name: str) -> bool:
    """Whether there is a module of that name; the module is not imported."""
    return name.isidentifier() and importlib.util.find_spec(name) is not None
