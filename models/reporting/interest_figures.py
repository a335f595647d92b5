"""Figures of the inner values of a multi-interest model (DemiNet, Figures 4 and 5).

Shapes: U users, one request of each, N candidates, K interests, L history length, D item width, R
relations between different events, Q all relations.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from models.backbone_api import Backbone
from models.core import run_directory
from models.keras import tf
from models.registry import load_model_class
from models.reporting import html_report
from models.reporting.html_report import Figure
from preprocessing import dataset
from preprocessing.data_dir import DataDir
from preprocessing.example_keys import LABEL, candidate_key, history_key
from preprocessing.features.feature import PAD_ID
from preprocessing.storage.tfrecord import read_records

_REQUESTS = 2000  # among which users and items are chosen
_USERS, _ITEMS = 3, 60
_SHOWN_ITEMS, _SHOWN_EVENTS = 10, 15
_RELATIONS = ("earlier", "later", "similar", "itself")
_MARKERS = "os^"
_COLOURS = "viridis"


def figures(run: run_directory.Run, split: str) -> list[Figure]:
    """The figures of a run's best weights; none if its model does not implement `inspect`.

    Args:
        run: A finished run.
        split: Split whose requests to show: among the first ones, which are in hash order, those
            with the longest histories. The candidates are items of these first requests.
    """
    backbone, _ = load_model_class(run.config.model_name)
    if backbone.inspect is Backbone.inspect:
        return []
    features = _sample(run.data, split)
    model = run_directory.load_model(run.path)
    tensors = model.inspect({name: tf.constant(value) for name, value in features.items()})
    values = {name: value.numpy() for name, value in tensors.items()}
    drawn = []
    if "interests_BNKD" in values:
        drawn.append(_interest_map(values["interests_BNKD"]))
    if "confidence_BNK" in values:
        labels = _labels(features, run.data)
        drawn.append(_confidence(values["confidence_BNK"][0], labels))
    if "relation_attention_BRLL" in values:
        length = np.count_nonzero(features[history_key(run.data.schema.item_key.name)][0])
        shown = slice(length - min(_SHOWN_EVENTS, length), length)
        drawn.append(
            _relations(
                values["relation_attention_BRLL"][0][:, shown, shown],
                values["relation_weight_BQL"][0][:, shown],
            )
        )
    return drawn


def _sample(data: DataDir, split: str) -> dict[str, np.ndarray]:
    """Encoded requests of the chosen users, each with all chosen items as candidates."""
    schema = data.schema
    records = itertools.chain.from_iterable(read_records(path) for path in data.shards(split))
    chosen = list(itertools.islice(records, _REQUESTS))
    features = {
        name: value.numpy() for name, value in dataset.parse(schema, tf.constant(chosen)).items()
    }
    lengths = np.count_nonzero(features[history_key(schema.item_key.name)], axis=1)
    users = np.argsort(-lengths, kind="stable")[:_USERS]
    items = features[candidate_key(schema.item_key.name)].ravel()
    _, first = np.unique(items, return_index=True)
    first = np.sort(first[items[first] != PAD_ID])[:_ITEMS]
    sample = {name: value[users] for name, value in features.items()}
    for name in [LABEL] + [candidate_key(feature.name) for feature in schema.item_features]:
        values = features[name].reshape(-1, *features[name].shape[2:])[first]
        sample[name] = np.repeat(values[None], len(users), axis=0)
    return sample


def _labels(features: Mapping[str, np.ndarray], data: DataDir) -> list[str]:
    """A label for each candidate: its values of the history's features, the item key last."""
    chosen = [feature for feature in data.schema.history_features if feature.is_categorical]
    values: list[Sequence[str]] = []
    for feature in sorted(chosen, key=data.schema.item_key.__eq__):
        ids_N = features[candidate_key(feature.name)][0]
        texts_N = data.encoders[feature.name].decode(ids_N).astype(str)
        if feature.many is None:
            values.append(texts_N.tolist())
        else:
            rows = zip(texts_N, ids_N, strict=True)
            values.append([", ".join(texts_M[ids_M != PAD_ID]) for texts_M, ids_M in rows])
    return [" · ".join(parts) for parts in zip(*values, strict=True)]


def _interest_map(interests_UNKD: np.ndarray) -> Figure:
    """Interest vectors in two dimensions: colours are interests, markers are users."""
    users, items, interests, width = interests_UNKD.shape
    points = interests_UNKD.reshape(-1, width).astype(np.float64)
    perplexity = min(30.0, (len(points) - 1) / 3)
    with threadpool_limits(1):  # With several threads it is slower if any core is busy.
        placed = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(points)
    placed = placed.reshape(users, items, interests, 2)
    with plt.rc_context(html_report.STYLE):
        figure, axes = plt.subplots(figsize=(html_report.WIDTH, 3.8))
        for user, interest in np.ndindex(users, interests):
            axes.scatter(
                placed[user, :, interest, 0],
                placed[user, :, interest, 1],
                s=12,
                marker=_MARKERS[user % len(_MARKERS)],
                color=f"C{interest}",
                alpha=0.7,
                linewidths=0,
                label=f"interest {interest + 1}" if user == 0 else None,
            )
        axes.set(xticks=[], yticks=[])
        figure.legend(loc="outside upper center", ncols=4, fontsize=8)
        svg = html_report.svg(figure)
    caption = (
        f"The {interests} interests of {users} users (markers) for {items} candidates each, placed "
        "by t-SNE so that similar vectors lie together. Colours that form groups of their own are "
        "interests that differ."
    )
    units_KUND = np.moveaxis(_unit_vectors(interests_UNKD), 2, 0)
    same_cosine = _mean_cosine(units_KUND.reshape(interests, -1, width))
    other_cosine = _mean_cosine(units_KUND.reshape(interests, -1, width).swapaxes(0, 1))
    text = (
        f"Mean cosine of the same interest over users and candidates: {same_cosine:.2f}"
        + (
            f"; of different interests for one candidate: {other_cosine:.2f}"
            if interests > 1
            else ""
        )
        + "."
    )
    return Figure("Interests", caption, svg, text)


def _unit_vectors(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _mean_cosine(units_GMD: np.ndarray) -> float:
    """Mean cosine of the pairs of different unit vectors within each of G groups of M."""
    count = units_GMD.shape[1]
    if count < 2:
        return float("nan")
    sums = np.square(units_GMD.sum(axis=1)).sum(axis=-1)
    lengths = np.square(units_GMD).sum(axis=(1, 2))
    return float((sums - lengths).mean() / (count * (count - 1)))


def _confidence(confidence_NK: np.ndarray, labels: list[str]) -> Figure:
    """A heat map of experts and candidates."""
    order = sorted(range(len(labels)), key=labels.__getitem__)
    # Pairs at even distances in the sorted candidates, so that a category has more than one.
    starts = np.linspace(0, max(len(order) - 2, 0), _SHOWN_ITEMS // 2).astype(int)
    shown = [
        order[place] for place in sorted({p for s in starts for p in (s, s + 1)} - {len(order)})
    ]
    values_NK = confidence_NK[shown]
    with plt.rc_context(html_report.STYLE):
        figure, axes = plt.subplots(figsize=(html_report.WIDTH, 0.8 + 0.27 * len(shown)))
        image = axes.imshow(values_NK, cmap=_COLOURS, aspect="auto", vmin=0.0)
        for place, expert in np.ndindex(*values_NK.shape):
            value = values_NK[place, expert]
            axes.text(
                expert, place, f"{value:.2f}", ha="center", va="center", fontsize=7,
                color=_legible_on(np.asarray(image.cmap(image.norm(value)))),
            )  # fmt: skip
        axes.set(
            xticks=range(values_NK.shape[1]),
            xticklabels=[f"expert {k + 1}" for k in range(values_NK.shape[1])],
            yticks=range(len(shown)),
            yticklabels=[html_report.shortened(labels[place], 28) for place in shown],
        )
        axes.tick_params(length=0, labelsize=7)
        figure.colorbar(image, ax=axes)
        svg = html_report.svg(figure)
    caption = (
        "How much each expert counts for candidates of one user, ordered by category; a row sums "
        "to 1. Rows that differ mean that the experts have different competences."
    )
    parts = (
        f"expert {k + 1} {weight_N.min():.2f} to {weight_N.max():.2f}, mean {weight_N.mean():.2f}"
        for k, weight_N in enumerate(confidence_NK.T)
    )
    text = f"Over {len(confidence_NK)} candidates: {'; '.join(parts)}."
    return Figure("Confidence", caption, svg, text)


def _legible_on(colour: Sequence[float] | np.ndarray) -> str:
    """Black or white, whichever has more contrast with a colour (WCAG 2, relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = float(np.dot(linear, [0.2126, 0.7152, 0.0722]))
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"


def _relations(attention_RLL: np.ndarray, weight_QL: np.ndarray) -> Figure:
    """Attention within each relation, and the weights of the relations, event by event."""
    with plt.rc_context(html_report.STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(html_report.WIDTH, 4.2))
        for panel, name, attention_LL in zip(axes.flat, _RELATIONS, attention_RLL, strict=False):
            panel.imshow(attention_LL, cmap=_COLOURS, vmin=0.0, vmax=1.0)
            panel.set_title(name, fontsize=9)
            panel.set(xticks=[], yticks=[], xlabel="from event", ylabel="to event")
        last = axes.flat[-1]
        image = last.imshow(weight_QL, cmap=_COLOURS, vmin=0.0, vmax=1.0, aspect="auto")
        last.set_title("weight of the relations", fontsize=9)
        last.set(xticks=[], yticks=range(len(_RELATIONS)), xlabel="event")
        last.set_yticklabels(_RELATIONS, fontsize=7)
        figure.colorbar(image, ax=axes)
        svg = html_report.svg(figure)
    caption = (
        f"The last {weight_QL.shape[1]} events of one user: from which others each receives, "
        "within every relation of the graph, and how much the relations and the event itself count."
    )
    weights = zip(_RELATIONS, weight_QL.mean(axis=1), strict=True)
    text = f"Mean weights: {', '.join(f'{name} {weight:.2f}' for name, weight in weights)}."
    return Figure("Relations of events", caption, svg, text)
