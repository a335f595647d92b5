"""Tables that no paper has: MISS with every model, scaling curves, logs whose truth is known.

The settings are those of MISS's experiments (`pipeline.experiments.miss`), except for DemiNet,
which keeps its embeddings of 16 and its experts; a sweep gives all its models the same width. The
learning rate is the default one, except in `beyond/rivals`, which extends `miss/5`.
"""

import dataclasses

from models.ops.choices import SSL_SCHEDULE
from pipeline.experiments import miss
from pipeline.experiments.recipe import LEARNING_RATES, Content, Row, Table

_MODELS = {
    "FM": "fm",
    "DeepFM": "deepfm",
    "IPNN": "ipnn",
    "DCN-M": "dcn_v2",
    "xDeepFM": "xdeepfm",
    "AutoInt+": "autoint",
    "FiGNN": "fignn",
    "DIN": "din",
    "DIEN": "dien",
    "SIM(soft)": "sim",
    "DMR": "dmr",
    "MIND": "mind",
    "ComiRec DR": "comirec_dr",
    "ComiRec SA": "comirec_sa",
    "DMIN": "dmin",
    "DemiNet": "deminet",
}
_SCALED = {"DIN": ("din", "none"), "DIN-MISS": ("din", "miss"), "DemiNet": ("deminet", "none")}
_CANDIDATES = {"DIN": "din", "FM": "fm", "DMR": "dmr", "ComiRec DR": "comirec_dr"}
"""One of each kind, all of them fast: attention, products of fields, both, interests."""
_SIMULATED = {
    "DIN": ("din", "none"),
    "DIN-MISS": ("din", "miss"),
    "ComiRec SA": ("comirec_sa", "none"),
    "DemiNet": ("deminet", "none"),
    "DemiNet-MISS": ("deminet", "miss"),
}


def _settings(model: str, ssl: str, train: Content | None = None) -> Content:
    return {"model": {"name": model}, "ssl": {"name": ssl}, "train": train or {}}


def _with_and_without_miss() -> list[Row]:
    rows = []
    for label, model in _MODELS.items():
        rows.append(Row(label=label, settings=_settings(model, "none")))
        miss_settings = _settings(model, "miss")
        rows.append(Row(label=f"{label}-MISS", settings=miss_settings, baseline=label))
    return rows


def _sweep(section: str, setting: str, title: str, values: tuple[float, ...]) -> list[Row]:
    """Each model of `_SCALED` with each value of a setting."""
    rows = []
    for label, (model, ssl) in _SCALED.items():
        for value in values:
            settings = {**_settings(model, ssl)}
            settings[section] = {**settings[section], setting: value}
            rows.append(
                Row(
                    label=f"{label}, {title} {value:g}",
                    settings=settings,
                    series=f"{title}, {label}",
                    x=value,
                )
            )
    return rows


def _schedules() -> list[Row]:
    """DIN-MISS with its default schedule and with others; each is compared with DIN as wide.

    A network on top of the embedding tables overfits a small log in two or three passes, while the
    self-supervised loss learns in forty; tables with a low learning rate keep what they learnt.
    """
    slow = {"embedding_learning_rate": SSL_SCHEDULE["embedding_learning_rate"]}
    summed: Content = {"joint": True, "ssl_steps": 0, "embedding_learning_rate": 0.0}
    first: Content = {"pretrain_epochs": 40}
    variants: list[tuple[str, str, Content]] = [
        ("DIN", "none", {}),
        ("DIN, slow tables", "none", slow),
        ("MISS, one optimiser", "miss", summed),
        ("MISS-Joint", "miss", {}),
        ("MISS-Pre", "miss", {**first, "ssl_steps": 0}),
        ("MISS-Pre, then joint", "miss", first),
    ]
    return [
        Row(
            label=f"{label}, width {width}",
            settings={
                "model": {"name": "din", "embedding_size": width},
                "ssl": {"name": ssl},
                "train": train,
            },
            baseline=None if label == "DIN" else f"DIN, width {width}",
        )
        for width in (10, 32)
        for label, ssl, train in variants
    ]


def _simulated() -> list[Row]:
    return [
        Row(
            label=label if noise == 0.0 else f"{label}, {noise:.0%} of the labels flipped",
            settings=_settings(model, ssl, {"label_noise": noise}),
        )
        for noise in (0.0, 0.2)
        for label, (model, ssl) in _SIMULATED.items()
    ]


def _table(name: str, title: str, rows: list[Row], along: str = "", choice: bool = False) -> Table:
    return Table(
        id=f"beyond/{name}",
        title=title,
        protocol="leave_last_out",
        data_sets=(),
        reference="",
        claim="",
        batch_samples=miss.BATCH_SAMPLES,
        rows=rows,
        along=along,
        choice=choice,
    )


TABLES = (
    _table("miss", "Every model with and without MISS", _with_and_without_miss()),
    dataclasses.replace(
        _table(
            "rivals",
            "Every self-supervised loss with every model of table IV",
            miss.with_ssl(("DIN", "IPNN", "FiGNN"), miss.RIVALS),
        ),
        data_sets=miss.DATA_SETS,
        reference="Amazon-Cds",
        claim="MISS is best, CL4SRec second; S3Rec and IRSSL hardly help.",
        learning_rates=LEARNING_RATES,
    ),
    _table("schedules", "When and how long to train MISS", _schedules(), choice=True),
    _table(
        "data",
        "AUC by the number of training samples",
        _sweep("train", "sampling_rate", "share of the training samples", (0.1, 0.3, 1.0)),
    ),
    _table(
        "width",
        "AUC by the width of the embeddings",
        _sweep("model", "embedding_size", "embedding width", (4, 8, 16, 32)),
    ),
    _table(
        "history",
        "AUC by the length of the histories",
        [Row(label=label, settings=_settings(*names)) for label, names in _SCALED.items()],
        along="longest history",
    ),
    _table(
        "simulation",
        "Share of the reachable AUC on generated logs",
        _simulated(),
        along="interests",
    ),
    _table(
        "features",
        "AUC by the features of the items",
        [
            Row(label="DIN", settings=_settings("din", "none")),
            Row(label="DemiNet", settings=_settings("deminet", "none")),
        ],
    ),
    _table(
        "events",
        "AUC by what is known of the events",
        [Row(label="DIN", settings=_settings("din", "none"))],
    ),
    _table(
        "best",
        "The best model for a log, chosen by validation AUC",
        [
            Row(label=label, settings={"model": {"name": model, "embedding_size": 16}})
            for label, model in _CANDIDATES.items()
        ],
        choice=True,
    ),
)
