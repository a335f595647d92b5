"""The distribution that a synthesised log was drawn from, and the best scorer that knows it.

`pipeline.synthesize` says how logs are drawn and why this scorer is the best.

Shapes: U users, E events, M items, G interests, B requests, N candidates per request, H history
events of all requests.
"""

import dataclasses
import json
import pathlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from preprocessing.errors import UserError
from preprocessing.json_checks import read_json
from preprocessing.values import limits
from preprocessing.values.limits import limited

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SynthesizeArguments:
    """Parameters of the distribution that a log is drawn from.

    Attributes:
        users: Number U of users.
        items: Number M of items, dealt out evenly to the interests.
        interests: Number G of interests.
        categories_per_interest: Number C of categories per interest; they are finer than interests,
            so that a model has to learn which of them go together.
        events_per_user: Mean number of events per user; lengths are uniform within 50 % of it and
            say nothing about interests.
        concentration: Parameter a of the Dirichlet distribution; the smaller it is, the fewer
            interests a user has.
        popularity_exponent: Exponent s of the Zipf distribution of the items within an interest.
        seed: Seed of the only random generator.
    """

    users: int = limited(2000, at_least=2)
    items: int = 500
    interests: int = limited(10, at_least=2)
    categories_per_interest: int = 4
    events_per_user: int = limited(18, at_least=7)
    concentration: float = 0.1
    popularity_exponent: float = 0.5
    seed: int = limited(1, at_least=0)

    @property
    def longest(self) -> int:
        """Largest number of events of a user."""
        return self.events_per_user + self.events_per_user // 2

    @property
    def shortest(self) -> int:
        """Smallest number of events of a user."""
        return self.events_per_user - self.events_per_user // 2

    def check(self) -> None:
        """Raises `UserError` unless a log can be drawn.

        A user must never run out of items of an interest, and leave_last_out needs four events.
        """
        limits.check(self, "--")
        needed = self.interests * max(self.longest, self.categories_per_interest)
        if self.items < needed:
            raise UserError(
                f"--items: expected at least {needed} ({self.interests} interests, of each as many "
                f"items as the longest history has events), found {self.items}.",
                "raise --items or lower --interests or --events_per_user.",
            )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """The catalogue as it was drawn: with `arguments`, all that the best scorer needs.

    Attributes:
        arguments: Parameters that the log was drawn with.
        interest_M: Interest of each item, in [0, G).
        category_M: Category of each item, in [0, G C).
        weight_M: w, the probability of each item within its interest; sums to 1 per interest.
    """

    arguments: SynthesizeArguments
    interest_M: Ints
    category_M: Ints
    weight_M: Floats

    def save(self, path: str | pathlib.Path) -> None:
        """Writes truth.json; floats keep every bit."""
        content = {
            "arguments": dataclasses.asdict(self.arguments),
            "items": {
                "item_id": numbered_ids("i", len(self.interest_M)),
                "category_id": [f"c{category}" for category in self.category_M],
                "interest": self.interest_M.tolist(),
                "weight": self.weight_M.tolist(),
            },
        }
        pathlib.Path(path).write_text(json.dumps(content) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "Truth":
        """Reads what `save` wrote."""
        content = read_json(pathlib.Path(path), "the truth of a generated log")
        items = content["items"]
        return cls(
            arguments=SynthesizeArguments(**content["arguments"]),
            interest_M=np.array(items["interest"], np.int64),
            category_M=np.array([int(name[1:]) for name in items["category_id"]], np.int64),
            weight_M=np.array(items["weight"], np.float64),
        )


def oracle_scores(
    truth: Truth, histories: Sequence[Sequence[str]], candidates: Sequence[Sequence[str]]
) -> Floats:
    """Scores of the best possible scorer of (history, candidate): log odds of being the positive.

    Exact if a request holds the event that follows a whole history and negatives drawn uniformly
    from the items that the user, with that event, does not have: the test split of
    leave_last_out with histories that are not cut off.

    Args:
        truth: The catalogue.
        histories: [B] sequences of item ids, each id at most once.
        candidates: [B, N] item ids.

    Returns:
        Scores [B, N]; -inf for a candidate that is in its history, as nobody meets an item twice.

    Raises:
        KeyError: An item is not in the catalogue.
    """
    index = {item: i for i, item in enumerate(numbered_ids("i", len(truth.interest_M)))}
    row_H = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    history_H = np.array([index[item] for history in histories for item in history], np.int64)
    candidate_BN = np.array([[index[item] for item in row] for row in candidates], np.int64)
    return log_odds(truth, row_H, history_H, candidate_BN)


def log_odds(truth: Truth, row_H: Ints, history_H: Ints, candidate_BN: Ints) -> Floats:
    """`oracle_scores` on item numbers; `row_H` is the request of each history event."""
    args = truth.arguments
    B, M, G = len(candidate_BN), len(truth.interest_M), args.interests
    cell_H = row_H * G + truth.interest_M[history_H]
    count_BG = np.bincount(cell_H, minlength=B * G).reshape(B, G)
    seen_BG = np.bincount(cell_H, truth.weight_M[history_H], minlength=B * G).reshape(B, G)
    interest_BN = truth.interest_M[candidate_BN]
    in_history_BN = contains(
        np.sort(row_H * M + history_H), np.arange(B)[:, None] * M + candidate_BN
    )
    length_B1 = count_BG.sum(axis=1, keepdims=True)
    interest_probability_BG = (count_BG + args.concentration) / (length_B1 + G * args.concentration)
    # An interest whose every item is seen leaves no weight; its items are all -inf below.
    unseen_BG = np.maximum(1 - seen_BG, np.finfo(np.float64).tiny)
    p_BN = truth.weight_M[candidate_BN] * np.take_along_axis(
        interest_probability_BG / unseen_BG, interest_BN, axis=1
    )
    p_BN[in_history_BN] = 0.0
    with np.errstate(divide="ignore"):
        return np.log(p_BN) - np.log1p(-p_BN) + np.log(M - length_B1 - 1)


def pooled_auc(positive_B: Floats, negative_BN: Floats) -> tuple[float, float]:
    """AUC of all pairs, and its standard error with one independent unit per row.

    Uses the structural components of DeLong et al. (1988): the wins of a row's positive over all
    negatives, and the losses of its negatives to all positives. They are added per row before
    taking the variance, as both depend on one history.
    """
    B = len(positive_B)
    win_B = _mid_rank(np.sort(negative_BN, axis=None), positive_B) / negative_BN.size
    loss_BN = _mid_rank(np.sort(positive_B), negative_BN) / B
    error = np.std(win_B - loss_BN.mean(axis=1), ddof=1) / np.sqrt(B)
    return float(win_B.mean()), float(error)


def _mid_rank(ordered: Floats, values: Floats) -> Floats:
    """Number of entries of `ordered` below each value; ties count one half."""
    return (
        np.searchsorted(ordered, values, side="left")
        + np.searchsorted(ordered, values, side="right")
    ) / 2


def contains(ordered: Ints, values: Ints) -> npt.NDArray[np.bool_]:
    """Whether each value is among `ordered`."""
    if not len(ordered):
        return np.zeros(values.shape, bool)
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return ordered[places] == values


def numbered_ids(prefix: str, count: int) -> list[str]:
    """The ids prefix0, prefix1, ... of the log."""
    return [f"{prefix}{i}" for i in range(count)]
