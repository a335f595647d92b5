"""Baselines without a trained model: the yardsticks reported beside every AUC.

All of them use the clicks of the training split only (its histories and its positives), and rank
the candidates of another split:

    popularity   number of users who clicked the item
    unknown      whether the item is out of the training vocabulary: the gain that a model can have
                 from this bit alone (in either direction)
    item-kNN     mean cosine between the users of the item and those of the history's items
    PPMI-SVD     cosine of the item with the history, in vectors that factorise the positive
                 pointwise mutual information of clicks by one user (Levy and Goldberg, 2014)

Shapes: C candidates, R requests, U users, V ids of the item vocabulary, D width.
"""

import functools
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.utils.extmath import randomized_svd

from models.core import run_directory
from models.evaluation.metrics import defined, grouped_auc, overall_auc
from preprocessing import dataset, known_items
from preprocessing.data_dir import DataDir
from preprocessing.encoders.fitted import FittedEncoder
from preprocessing.example_keys import LABEL, REQUEST_USER, candidate_key, history_key
from preprocessing.features.feature import PAD_ID
from preprocessing.storage import files

FILE = "yardsticks.json"
UNKNOWN_ITEM = "unknown item"
"""Names of the file in a run directory, and of the yardstick of unknown items."""


WIDTH = 32
"""Default width D of PPMI-SVD, wide enough for logs of some ten thousand items."""

_BATCH_SIZE = 2048
_MOST_TRAINING_REQUESTS = 1_000_000
_MOST_RANKED_REQUESTS = 100_000
_MOST_PAIRS = 50_000_000
"""Bounds on requests read and on pairs of clicks by one user, so that measuring takes seconds."""
_CANDIDATES_AT_ONCE = 20_000
_SVD_ITERATIONS = 4


class Yardstick(NamedTuple):
    """Metrics of a baseline on a split.

    Attributes:
        name: Name of the method.
        auc: AUC over all candidates.
        gauc: AUC within users, weighted by their number of candidates.
        auc_known: AUC over the candidates whose items are in the training vocabulary.

    Undefined metrics are None, see `models.evaluation.metrics`.
    """

    name: str
    auc: float | None
    gauc: float | None
    auc_known: float | None


class Candidates(NamedTuple):
    """Candidates to be ranked.

    Attributes:
        history_RV: 1 where the history of a request holds an item.
        request_C: Row of each candidate's request in `history_RV`.
        user_C: User of each candidate.
        item_C: Encoded item of each candidate.
        label_C: Label of each candidate, 0 or 1.
    """

    history_RV: sp.csr_matrix
    request_C: np.ndarray
    user_C: np.ndarray
    item_C: np.ndarray
    label_C: np.ndarray


class ClickCounts:
    """The clicks of a training split, and the scores of the baselines.

    Args:
        clicks_UV: 1 where a user clicked an item; columns of ids outside the vocabulary are 0.
    """

    def __init__(self, clicks_UV: sp.csr_matrix) -> None:
        self._clicks_UV = clicks_UV
        self.users_V = np.asarray(clicks_UV.sum(axis=0)).ravel()

    @functools.cached_property
    def _together_VV(self) -> sp.csr_matrix:
        """Number of users who clicked both of two items; 0 on the diagonal."""
        clicks_UV = self._clicks_UV
        pairs_U = np.square(np.diff(clicks_UV.indptr).astype(np.float64))
        if pairs_U.sum() > _MOST_PAIRS:
            order_U = np.random.default_rng(0).permutation(len(pairs_U))
            clicks_UV = clicks_UV[order_U[np.cumsum(pairs_U[order_U]) <= _MOST_PAIRS]]
        together_VV = (clicks_UV.T @ clicks_UV).tocsr()
        together_VV.setdiag(0)
        together_VV.eliminate_zeros()
        return together_VV

    def popularity(self, candidates: Candidates) -> np.ndarray:
        """Scores [C]: number of users who clicked the item."""
        return self.users_V[candidates.item_C]

    def item_knn(self, candidates: Candidates) -> np.ndarray:
        """Scores [C]: mean cosine between the users of the item and of the history's items."""
        scale_VV = sp.diags(1.0 / np.sqrt(np.maximum(self.users_V, 1.0)))
        cosine_VV = (scale_VV @ self._together_VV @ scale_VV).tocsr()
        length_R = np.maximum(np.diff(candidates.history_RV.indptr), 1)
        scores_C = np.empty(len(candidates.item_C))
        for start in range(0, len(scores_C), _CANDIDATES_AT_ONCE):
            part = slice(start, start + _CANDIDATES_AT_ONCE)
            history_CV = candidates.history_RV[candidates.request_C[part]]
            similar_CV = cosine_VV[candidates.item_C[part]].multiply(history_CV)
            scores_C[part] = np.asarray(similar_CV.sum(axis=1)).ravel()
        return scores_C / length_R[candidates.request_C]

    def ppmi_svd(self, candidates: Candidates, width: int) -> np.ndarray:
        """Scores [C]: cosine of the item's vector with the mean of the history's unit vectors.

        Args:
            candidates: Candidates to rank.
            width: Width D of the vectors.
        """
        vector_VD = _unit(self._vectors(width))
        history_RD = _unit(candidates.history_RV @ vector_VD)
        return np.einsum("cd,cd->c", history_RD[candidates.request_C], vector_VD[candidates.item_C])

    def _vectors(self, width: int) -> np.ndarray:
        """Left singular vectors [V, D] of the PPMI matrix, times the roots of the values."""
        pairs = self._together_VV.tocoo()
        margin_V = np.asarray(self._together_VV.sum(axis=1)).ravel()
        with np.errstate(divide="ignore"):
            information = np.log(
                pairs.data * pairs.data.sum() / (margin_V[pairs.row] * margin_V[pairs.col])
            )
        positive = information > 0
        ppmi_VV = sp.csr_matrix(
            (information[positive], (pairs.row[positive], pairs.col[positive])), pairs.shape
        )
        if not ppmi_VV.nnz:
            return np.zeros((pairs.shape[0], width))
        width = min(width, pairs.shape[0] - 1)
        left_VD, value_D, _ = randomized_svd(ppmi_VV, width, n_iter=_SVD_ITERATIONS, random_state=0)
        return left_VD * np.sqrt(value_D)


def _unit(vector_XD: np.ndarray) -> np.ndarray:
    return vector_XD / np.maximum(np.linalg.norm(vector_XD, axis=-1, keepdims=True), 1e-12)


def measure(data: DataDir, split: str, widths: Iterable[int] = (WIDTH,)) -> list[Yardstick]:
    """The yardsticks of a split.

    Args:
        data: The data set.
        split: validation or test.
        widths: Widths D of PPMI-SVD; one yardstick each.

    Returns:
        One yardstick per method; none if the split has no positive or no negative.

    Raises:
        UserError: A shard is damaged.
    """
    candidates = _read_candidates(data, split)
    label_C = candidates.label_C
    if not len(label_C) or label_C.min() == label_C.max():
        return []
    counts = ClickCounts(_read_clicks(data))
    known_C = ~known_items.are_unknown(_item_encoder(data), candidates.item_C)
    scores = {
        "popularity": counts.popularity(candidates),
        UNKNOWN_ITEM: _either_way(~known_C, label_C),
        "item-kNN": counts.item_knn(candidates),
    }
    scores |= {
        f"PPMI-SVD, {width} wide": counts.ppmi_svd(candidates, width)
        for width in sorted(set(widths))
    }
    return [
        Yardstick(
            name,
            auc=defined(overall_auc(label_C, score_C)),
            gauc=defined(grouped_auc(candidates.user_C, label_C, score_C)),
            auc_known=defined(overall_auc(label_C[known_C], score_C[known_C])),
        )
        for name, score_C in scores.items()
    ]


def _either_way(is_unknown_C: np.ndarray, label_C: np.ndarray) -> np.ndarray:
    """Scores [C] of the bit alone, with the sign that gives an AUC of at least 0.5."""
    auc = known_items.UnknownItems.of(is_unknown_C, label_C).auc
    return is_unknown_C.astype(np.float64) * (-1.0 if auc is not None and auc < 0.5 else 1.0)


def _item_encoder(data: DataDir) -> FittedEncoder:
    return data.encoders[data.schema.item_key.name]


def _batches(data: DataDir, split: str, most_requests: int) -> Iterator[dict[str, np.ndarray]]:
    batches = dataset.read(
        data, split, batch_size=_BATCH_SIZE, shuffle_seed=None, with_users=True
    ).take(-(-most_requests // _BATCH_SIZE))
    with dataset.reading(data):
        yield from batches.as_numpy_iterator()


def _read_clicks(data: DataDir) -> sp.csr_matrix:
    """The clicks of users on known items in the training split, [U, V] of 0 and 1."""
    item = data.schema.item_key.name
    users, items = [], []
    for batch in _batches(data, "train", _MOST_TRAINING_REQUESTS):
        history_BL, candidate_BN = batch[history_key(item)], batch[candidate_key(item)]
        clicked_BX = np.concatenate([history_BL, candidate_BN * (batch[LABEL] > 0)], axis=1)
        row_E, place_E = np.nonzero(clicked_BX >= known_items.first_known(_item_encoder(data)))
        users.append(batch[REQUEST_USER][row_E])
        items.append(clicked_BX[row_E, place_E])
    user_E, names = pd.factorize(np.concatenate(users))
    return _binary(user_E, np.concatenate(items), (len(names), _num_ids(data)))


def _read_candidates(data: DataDir, split: str) -> Candidates:
    """The candidates of a split; of its first requests only, if there are very many."""
    item = data.schema.item_key.name
    requests, parts = 0, []
    for batch in _batches(data, split, _MOST_RANKED_REQUESTS):
        candidate_BN, history_BL = batch[candidate_key(item)], batch[history_key(item)]
        row_C, place_C = np.nonzero(candidate_BN != PAD_ID)
        row_E, place_E = np.nonzero(history_BL >= known_items.first_known(_item_encoder(data)))
        parts.append(
            (
                row_E + requests,
                history_BL[row_E, place_E],
                row_C + requests,
                batch[REQUEST_USER][row_C],
                candidate_BN[row_C, place_C],
                batch[LABEL][row_C, place_C],
            )
        )
        requests += len(candidate_BN)
    if not parts:
        empty = np.zeros(0, np.int64)
        return Candidates(sp.csr_matrix((0, 0)), empty, empty, empty, empty)
    request_E, event_E, *columns = map(np.concatenate, zip(*parts, strict=True))
    return Candidates(_binary(request_E, event_E, (requests, _num_ids(data))), *columns)


def _num_ids(data: DataDir) -> int:
    return _item_encoder(data).cardinality


def _binary(row_E: np.ndarray, column_E: np.ndarray, shape: tuple[int, int]) -> sp.csr_matrix:
    """A matrix that is 1 at each of the positions, even if one is repeated."""
    matrix = sp.csr_matrix((np.ones(len(row_E)), (row_E, column_E)), shape)
    matrix.data[:] = 1.0
    return matrix


def of_run(run: run_directory.Run, split: str) -> list[Yardstick]:
    """The yardsticks of a run's split, cached in its directory; PPMI-SVD also in its model's width.

    Args:
        run: The run.
        split: validation or test.
    """
    return of_data(run.data, split, {run.config.model.embedding_size}, run.path)


def of_data(
    data: DataDir, split: str, widths: Iterable[int], directory: pathlib.Path
) -> list[Yardstick]:
    """The yardsticks of a split, measured once and cached in a file.

    Args:
        data: The data set.
        split: validation or test.
        widths: Further widths D of PPMI-SVD, beside `WIDTH`; 0 is ignored.
        directory: Directory of yardsticks.json, which must belong to this data set.
    """
    file = directory / FILE
    stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    all_widths = sorted({WIDTH, *widths} - {0})
    key = f"{split} {all_widths}"
    if key not in stored:
        stored[key] = [yardstick._asdict() for yardstick in measure(data, split, all_widths)]
        directory.mkdir(parents=True, exist_ok=True)
        files.write_bytes(file, f"{json.dumps(stored, indent=2)}\n".encode())
    return [Yardstick(**yardstick) for yardstick in stored[key]]
