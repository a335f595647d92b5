"""Tables and figures of DemiNet (arXiv 2109.12512).

The paper varies K and the graph operator in figures without printed numbers. Its settings: Adam,
batches of 256 samples, embeddings of 16 for all models, K = 8 on Taobao, else 4. It trains all
models at a learning rate of 1e-3; here each model chooses its own, so that none is judged at the
learning rate of another.

All rows have the same kind of head. The networks of the baselines get the widths of DemiNet's
experts and, like them, batch normalisation. Every network reads the sum of the history and its
product with the candidate, as the published code of DIN, DIEN and DMIN does: the paper does not
mention it, and it would be an advantage for a row that alone had it.
"""

from pipeline.experiments.recipe import LEARNING_RATES, Content, Row, Table, parse_published

_DATA_SETS = ("Taobao", "Amazon(Book)", "RetailRocket")
_PROTOCOL = "time_split"
_BATCH_SAMPLES = 256
_SETTINGS: Content = {"model": {"embedding_size": 16, "batch_norm": True, "history_sum": True}}
_LEVEL = 0.01
_UNITS = {"units": [200, 80]}

# AUC and log loss of each data set.
_PUBLISHED = parse_published(
    """
    DIN          | 0.8731 0.2235  0.7469 0.2912  0.6838 0.3212
    DIEN         | 0.8738 0.2237  0.7503 0.2902  0.6842 0.3177
    MIND         | 0.8695 0.2228  0.7453 0.2921  0.6925 0.3160
    ComiRec DR   | 0.8696 0.2241  0.7429 0.2923  0.6832 0.3224
    ComiRec SA   | 0.8768 0.2186  0.7517 0.2891  0.6937 0.3150
    DMIN         | 0.8852 0.2171  0.7537 0.2881  0.6967 0.3143
    Hard-Routing | 0.8953 0.2133  0.7568 0.2873  0.6990 0.3141
    Multi-Avg    | 0.8987 0.2125  0.7590 0.2868  0.7018 0.3128
    MoE          | 0.9010 0.2118  0.7612 0.2857  0.7042 0.3110
    DemiNet      | 0.9053 0.2045  0.7642 0.2830  0.7059 0.3096
    w/o DHA      | 0.8925 0.2162  0.7551 0.2890  0.6979 0.3167
    w/o SSL      | 0.9040 0.2049  0.7633 0.2841  0.7049 0.3107
    w/o IE       | 0.8943 0.2158  0.7561 0.2880  0.6987 0.3154
    """,
    _DATA_SETS,
)


def _row(label: str, model: str, *, proposed: bool = False, units: bool = False) -> Row:
    """A row with the number of interests that the paper chose for each data set."""
    has_interests = model.startswith(("deminet", "mind", "comirec"))
    return Row(
        label=label,
        settings={"model": {"name": model, **(_UNITS if units else {})}},
        by_data={"Taobao": {"model": {"interests": 8}}} if has_interests else {},
        published=_PUBLISHED.get(label, {}),
        proposed=proposed,
    )


def _sweep(series: str, setting: str, values: tuple[float, ...]) -> list[Row]:
    return [
        Row(
            label=f"{series} = {value:g}",
            settings={"model": {"name": "deminet", setting: value}},
            by_data={} if setting == "interests" else {"Taobao": {"model": {"interests": 8}}},
            series=series,
            x=value,
        )
        for value in values
    ]


def _table(number: str, title: str, claim: str, rows: list[Row], inside: str = "") -> Table:
    return Table(
        id=f"deminet/{number}",
        title=title,
        protocol=_PROTOCOL,
        data_sets=_DATA_SETS,
        reference="Amazon(Book)",
        claim=claim,
        settings=_SETTINGS,
        batch_samples=_BATCH_SAMPLES,
        learning_rates=LEARNING_RATES,
        rows=rows,
        level=_LEVEL,
        inside=inside,
    )


_DEMINET = _row("DemiNet", "deminet", proposed=True)

TABLES = (
    Table(
        id="deminet/1",
        title="Statistics of the data sets",
        protocol=_PROTOCOL,
        data_sets=_DATA_SETS,
        reference="Amazon(Book)",
        claim="",
        counts={
            "Taobao": {
                "users": 987_994,
                "items": 4_162_024,
                "categories": 9_439,
                "samples": 11_526_010,
            },
            "Amazon(Book)": {
                "users": 603_668,
                "items": 367_982,
                "categories": 1_602,
                "samples": 4_736_082,
            },
            "RetailRocket": {
                "users": 422_274,
                "items": 417_053,
                "categories": 1_669,
                "samples": 4_926_539,
            },
        },
    ),
    _table(
        "2",
        "DemiNet and other models",
        "DemiNet is best on all data sets; of the baselines of the first group DMIN, of the "
        "ensembles MoE.",
        [
            _row("DIN", "din", units=True),
            _row("DIEN", "dien", units=True),
            _row("MIND", "mind", units=True),
            _row("ComiRec DR", "comirec_dr", units=True),
            _row("ComiRec SA", "comirec_sa", units=True),
            _row("DMIN", "dmin", units=True),
            _row("Hard-Routing", "deminet_hard_routing"),
            _row("Multi-Avg", "deminet_multi_avg"),
            _row("MoE", "deminet_moe"),
            _DEMINET,
        ],
    ),
    _table(
        "3",
        "DemiNet without its parts",
        "Every part helps, the graph attention most, self-supervision least.",
        [
            _row("w/o DHA", "deminet_wo_dha"),
            _row("w/o SSL", "deminet_wo_ssl"),
            _row("w/o IE", "deminet_wo_ie"),
            _DEMINET,
        ],
    ),
    _table(
        "fig3a",
        "Number of interests K, and threshold t of similar items",
        "More interests are better, up to saturation. (The paper searches t and shows only K.)",
        [
            *_sweep("K", "interests", (2, 4, 8, 16)),
            *_sweep("t", "threshold", (0.6, 0.7, 0.8)),
        ],
    ),
    _table(
        "fig3b",
        "Graph operators",
        "DHA is best on all data sets; attention (GAT, DHA) is slightly better than GCMC and LGC.",
        [
            _row("GCMC", "deminet_gcmc"),
            _row("LGC", "deminet_lgc"),
            _row("GAT", "deminet_gat"),
            _row("DHA", "deminet", proposed=True),
        ],
    ),
    _table(
        "fig4",
        "Interests of users in two dimensions (t-SNE)",
        "Vectors of one interest lie together.",
        [_DEMINET],
        inside="Interests",
    ),
    _table(
        "fig5",
        "Confidence in the interest experts by candidate",
        "Items of similar categories trust the same expert, others another one.",
        [_DEMINET],
        inside="Confidence",
    ),
)
