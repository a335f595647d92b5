"""Tables and figures of MISS (Guo et al., ICDE 2022).

The defaults of models are this paper's: embeddings of 10, networks of 40, 40, 40, 1 without batch
normalisation. Batches of 128 samples, and learning rates that each row chooses on the validation
split, are also the paper's. The paper tunes the settings of MISS in the same way and does not print
the results; here they are the defaults, and self-supervision trains by its default schedule.
"""

from pipeline.experiments.recipe import LEARNING_RATES, Content, Row, Table, parse_published

DATA_SETS = ("Amazon-Cds", "Amazon-Books", "Alipay")
BATCH_SAMPLES = 128
_PRETRAINING_PASSES = 40

# AUC and log loss of each data set, tables III to VIII.
_PUBLISHED = parse_published(
    """
    LR                 | 0.6918 0.6308  0.7350 0.5968  0.7848 0.5578
    FM                 | 0.7585 0.5851  0.7653 0.5745  0.8470 0.4859
    DeepFM             | 0.8039 0.5369  0.8056 0.5310  0.8718 0.4464
    IPNN               | 0.8053 0.5364  0.8051 0.5308  0.8823 0.4299
    DCN                | 0.7994 0.5412  0.7982 0.5390  0.8700 0.4494
    DCN-M              | 0.8050 0.5363  0.8070 0.5293  0.8757 0.4403
    xDeepFM            | 0.8034 0.5370  0.8028 0.5336  0.8777 0.4382
    DIN                | 0.8055 0.5357  0.8074 0.5289  0.9098 0.3734
    DIEN               | 0.7928 0.5479  0.8016 0.5352  0.9004 0.3950
    SIM(soft)          | 0.7977 0.5437  0.7951 0.5430  0.9101 0.3729
    DMR                | 0.8115 0.5289  0.8082 0.5282  0.9148 0.3642
    AutoInt+           | 0.8008 0.5398  0.8045 0.5317  0.8705 0.4479
    FiGNN              | 0.8012 0.5391  0.8006 0.5366  0.8716 0.4467
    MISS               | 0.8867 0.4357  0.9180 0.3730  0.9327 0.3295
    DIN-MISS           | 0.8867 0.4357  0.9180 0.3730  0.9327 0.3295
    IPNN-MISS          | 0.8858 0.4368  0.9146 0.3778  0.9004 0.4006
    FiGNN-MISS         | 0.8828 0.4410  0.9170 0.3746  0.8947 0.4160
    IPNN-Rule          | 0.8101 0.5303  0.8497 0.4788  0.8818 0.4321
    IPNN-IRSSL         | 0.8050 0.5371  0.8065 0.5295  0.8821 0.4314
    IPNN-S3Rec         | 0.8065 0.5343  0.8073 0.5286  0.8826 0.4299
    IPNN-CL4SRec       | 0.8372 0.5057  0.8759 0.4553  0.8865 0.4250
    DIN-Rule           | 0.8068 0.5349  0.8397 0.4925  0.9113 0.3719
    DIN-IRSSL          | 0.8058 0.5352  0.8064 0.5295  0.9098 0.3744
    DIN-S3Rec          | 0.8073 0.5348  0.8076 0.5286  0.9100 0.3728
    DIN-CL4SRec        | 0.8364 0.5082  0.8756 0.4563  0.9141 0.3686
    IPNN-MISS/F        | 0.8741 0.4506  0.9122 0.3880  0.8973 0.4044
    IPNN-MISS/F/U      | 0.8620 0.4649  0.8946 0.4116  0.8937 0.4120
    IPNN-MISS/F/L      | 0.8549 0.4769  0.8931 0.4209  0.8885 0.4214
    IPNN-MISS/F/U/L    | 0.8480 0.4829  0.8739 0.4625  0.8871 0.4220
    IPNN-MISS/M/F/U/L  | 0.8393 0.4953  0.8449 0.4933  0.8838 0.4265
    DIN-MISS/F         | 0.8813 0.4419  0.9136 0.3823  0.9300 0.3357
    DIN-MISS/F/U       | 0.8636 0.4642  0.8978 0.4100  0.9260 0.3446
    DIN-MISS/F/L       | 0.8568 0.4807  0.8937 0.4188  0.9236 0.3499
    DIN-MISS/F/U/L     | 0.8514 0.4869  0.8717 0.4642  0.9222 0.3509
    DIN-MISS/M/F/U/L   | 0.8429 0.4978  0.8425 0.4948  0.9188 0.3579
    MISS-SA            | 0.8042 0.5385  0.8128 0.5225  0.9092 0.3758
    MISS-LSTM          | 0.8106 0.5299  0.8172 0.5178  0.9096 0.3753
    MISS-CNN           | 0.8867 0.4357  0.9180 0.3730  0.9327 0.3295
    MISS-Joint         | 0.8867 0.4357  0.9180 0.3730  0.9327 0.3295
    MISS-Pre           | 0.8848 0.4381  0.9170 0.3746  0.9313 0.3328
    """,
    DATA_SETS,
)
# AUC of DIN and of DIN-MISS on Amazon-Cds and Amazon-Books, tables IX and X.
_SAMPLED = {
    0.8: (0.7913, 0.8779, 0.7932, 0.9107),
    0.9: (0.7988, 0.8814, 0.7998, 0.9152),
    1.0: (0.8055, 0.8867, 0.8074, 0.9180),
}
_NOISY = {
    0.0: (0.8055, 0.8867, 0.8074, 0.9180),
    0.1: (0.7768, 0.8652, 0.7775, 0.8877),
    0.2: (0.7413, 0.8331, 0.7384, 0.8678),
}
_VARIANTS = {
    "MISS": "miss",
    "MISS/F": "miss_wo_f",
    "MISS/F/U": "miss_wo_fu",
    "MISS/F/L": "miss_wo_fl",
    "MISS/F/U/L": "miss_wo_ful",
    "MISS/M/F/U/L": "miss_wo_mful",
}
RIVALS = {"Rule": "rule", "IRSSL": "irssl", "S3Rec": "s3rec", "CL4SRec": "cl4srec", "MISS": "miss"}
_BACKBONES = {"IPNN": "ipnn", "DIN": "din", "FiGNN": "fignn"}


def _row(
    label: str,
    model: str,
    ssl: str = "none",
    *,
    proposed: bool = False,
    baseline: str | None = None,
    train: Content | None = None,
) -> Row:
    settings: dict[str, Content] = {"model": {"name": model}, "ssl": {"name": ssl}}
    return Row(
        label=label,
        settings={**settings, "train": train or {}},
        published=_PUBLISHED.get(label, {}),
        proposed=proposed,
        baseline=baseline,
    )


def with_ssl(backbones: tuple[str, ...], tasks: dict[str, str]) -> list[Row]:
    """Each backbone alone, then with each self-supervised loss, compared with it alone.

    Args:
        backbones: Labels of models.
        tasks: Names of self-supervised losses, by the suffix that they add to the label.
    """
    rows = []
    for backbone in backbones:
        model = _BACKBONES[backbone]
        rows.append(_row(backbone, model))
        rows += [
            _row(f"{backbone}-{name}", model, ssl, baseline=backbone) for name, ssl in tasks.items()
        ]
    return rows


def _stressed(
    setting: str, name: str, published: dict[float, tuple[float, float, float, float]]
) -> list[Row]:
    """DIN and DIN-MISS at each rate; the latter is compared with the former at the same rate."""
    rows = []
    for rate, (din_cds, miss_cds, din_books, miss_books) in published.items():
        plain = f"DIN, {name} {rate:.0%}"
        for label, ssl, cds, books, baseline in (
            (plain, "none", din_cds, din_books, None),
            (f"DIN-MISS, {name} {rate:.0%}", "miss", miss_cds, miss_books, plain),
        ):
            rows.append(
                Row(
                    label=label,
                    settings={
                        "model": {"name": "din"},
                        "ssl": {"name": ssl},
                        "train": {setting: rate},
                    },
                    published={"Amazon-Cds": [cds], "Amazon-Books": [books]},
                    baseline=baseline,
                )
            )
    return rows


def _sweep(series: str, setting: str) -> list[Row]:
    return [
        Row(
            label=f"{series} = {value:g}",
            settings={"model": {"name": "din"}, "ssl": {"name": "miss", setting: value}},
            series=series,
            x=value,
        )
        for value in (0.05, 0.1, 0.5, 1.0, 5.0)
    ]


def _table(number: str, title: str, claim: str, rows: list[Row], curve: str = "") -> Table:
    return Table(
        id=f"miss/{number}",
        title=title,
        protocol="leave_last_out",
        data_sets=DATA_SETS,
        reference="Amazon-Cds",
        claim=claim,
        batch_samples=BATCH_SAMPLES,
        learning_rates=LEARNING_RATES,
        rows=rows,
        curve=curve,
    )


_EXTRACTORS = [
    _row("MISS-SA", "din", "miss_sa", baseline="DIN"),
    _row("MISS-LSTM", "din", "miss_lstm", baseline="DIN"),
    _row("MISS-CNN", "din", "miss", baseline="DIN"),
]

TABLES = (
    Table(
        id="miss/2",
        title="Statistics of the data sets",
        protocol="leave_last_out",
        data_sets=DATA_SETS,
        reference="Amazon-Cds",
        claim="",
        counts={
            "Amazon-Cds": {
                "users": 75_258,
                "items": 64_443,
                "instances": 150_516,
                "features": 140_167,
                "fields": 5,
            },
            "Amazon-Books": {
                "users": 158_650,
                "items": 128_939,
                "instances": 317_300,
                "features": 288_577,
                "fields": 5,
            },
            "Alipay": {
                "users": 326_577,
                "items": 451_631,
                "instances": 653_154,
                "features": 788_166,
                "fields": 7,
            },
        },
    ),
    _table(
        "3",
        "MISS and other models",
        "MISS is best on all data sets by a wide margin; the best baseline is DMR.",
        [
            _row("LR", "lr"),
            _row("FM", "fm"),
            _row("DeepFM", "deepfm"),
            _row("IPNN", "ipnn"),
            _row("DCN", "dcn"),
            _row("DCN-M", "dcn_v2"),
            _row("xDeepFM", "xdeepfm"),
            _row("DIN", "din"),
            _row("DIEN", "dien"),
            _row("SIM(soft)", "sim"),
            _row("DMR", "dmr"),
            _row("AutoInt+", "autoint"),
            _row("FiGNN", "fignn"),
            _row("MISS", "din", "miss", proposed=True),
        ],
    ),
    _table(
        "4",
        "MISS with other models",
        "MISS improves every model that it is added to.",
        with_ssl(("DIN", "IPNN", "FiGNN"), {"MISS": "miss"}),
    ),
    _table(
        "5",
        "MISS and other self-supervised losses",
        "MISS is best, CL4SRec second; S3Rec and IRSSL hardly help.",
        with_ssl(("IPNN", "DIN"), RIVALS),
    ),
    _table(
        "6",
        "MISS without its parts",
        "Features (F), unions (U), long range (L) and several interests (M) all help, M most.",
        with_ssl(("IPNN", "DIN"), _VARIANTS),
    ),
    _table(
        "7",
        "Extractors of interests",
        "Convolution beats self-attention and LSTM, which add little.",
        [_row("DIN", "din"), *_EXTRACTORS],
    ),
    _table(
        "8",
        "Joint training and pre-training",
        "Joint training is slightly better than pre-training.",
        [
            _row("DIN", "din"),
            _row("MISS-Joint", "din", "miss", baseline="DIN"),
            _row(
                "MISS-Pre",
                "din",
                "miss",
                baseline="DIN",
                train={"pretrain_epochs": _PRETRAINING_PASSES, "ssl_steps": 0},
            ),
        ],
    ),
    _table(
        "9",
        "Fewer training labels",
        "The fewer labels, the larger the relative improvement.",
        _stressed("sampling_rate", "labels kept", _SAMPLED),
    ),
    _table(
        "10",
        "Flipped training labels",
        "The more noise, the larger the relative improvement.",
        _stressed("label_noise", "labels flipped", _NOISY),
    ),
    _table(
        "fig5",
        "Similarity of the two interests of a pair during training",
        "Close to 1 with self-attention and LSTM, between .7 and .8 with convolution.",
        [
            _row("MISS-SA", "din", "miss_sa"),
            _row("MISS-LSTM", "din", "miss_lstm"),
            _row("MISS-CNN", "din", "miss"),
        ],
        curve="diagnostics/miss_interest/interest_similarity",
    ),
    _table(
        "fig6",
        "Weight of the self-supervised losses",
        "Better up to a weight of 1, worse beyond it.",
        _sweep("alpha", "alpha"),
    ),
    _table(
        "fig7",
        "Temperature of the self-supervised losses",
        "Best at 0.1 on all data sets.",
        _sweep("tau", "temperature"),
    ),
)
