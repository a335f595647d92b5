"""Proves that a data set keeps its promises, from the written shards alone.

    python -m pipeline.audit DATA

Prints one line per promise and, for each broken one, the first requests that break it; the exit
status is then 1. How order is proved in logs whose unit of time is a day: a request id ends in
the index of its positive among the events of its user, so step k of a history of L steps before
index i is event i - L + k, and all requests must agree on what event j of a user was and when.
Values out of vocabulary share an id and cannot be told apart here; they are left out where that
matters.
"""

import collections
import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from absl import flags
from tqdm import tqdm

from pipeline import statistics
from pipeline.audit_impressions import ImpressionChecks
from pipeline.audit_requests import Requests, read_requests
from pipeline.audit_statistics import StatisticsChecks
from preprocessing import cli, splits
from preprocessing.data_dir import DataDir
from preprocessing.encoders import FittedEncoder
from preprocessing.errors import UserError
from preprocessing.files import AnyPath
from preprocessing.fingerprint import fingerprint64
from preprocessing.schema import candidate_key, encoded_keys, history_key

CHECKS = {
    "hashes": "every file has the SHA-256 of the manifest",
    "ids": "every id is a row of its embedding table, every number is finite",
    "candidates": "every request has one positive and N distinct negatives (or what was shown)",
    "order": "no event of a history comes at or after the positive in the order of (time, row)",
    "complete": "histories hold the most recent events, up to max_length",
    "negatives": "no negative is an item of its user, in any split",
    "unique": "no request occurs twice, in one split or in two",
    "protocol": "the positives of each split are those of the protocol",
    "vocabulary": "every value of a vocabulary occurs in a training request",
    "statistics": "stats.json describes the requests; encoders learnt from those of train alone",
    "conservation": "rows and requests add up to what the manifest counts",
}
"""Promises by name."""

_SHOWN = 5
_COMPACT_EVERY = 64


@dataclasses.dataclass
class Finding:
    """A broken promise: how often, and the first places."""

    count: int = 0
    examples: list[str] = dataclasses.field(default_factory=list)


def audit(path: str | AnyPath) -> dict[str, Finding]:
    """Audits a data set.

    Args:
        path: The data directory.

    Returns:
        Broken promises by name (see `CHECKS`); empty if all are kept.

    Raises:
        UserError: The directory is no complete data set, or a shard does not match its hash.
    """
    data = DataDir.open(path)
    statistics.require(data)
    return _Audit(data).run()


class _Audit:
    """Reads all requests once; then compares what it has kept of them."""

    def __init__(self, data: DataDir) -> None:
        self._data = data
        self._schema = data.schema
        self._findings: collections.defaultdict[str, Finding] = collections.defaultdict(Finding)
        self._ids: list[pa.Array] = []
        self._split: list[np.ndarray] = []
        self._times: list[np.ndarray] = []
        self._positives: list[np.ndarray] = []  # rows: user, index
        self._events: list[np.ndarray] = []  # rows: user, index, item, time
        self._negatives: list[np.ndarray] = []  # rows: user, item, number of the request
        self._trained = {
            feature.name: np.zeros(data.encoders[feature.name].cardinality, bool)
            for feature in (*data.schema.user_features, *data.schema.history_features)
            if data.encoders[feature.name].num_oov
        }
        self._num_requests = 0
        self._impressions = self._impression_checks()
        self._statistics = StatisticsChecks(data)

    def run(self) -> dict[str, Finding]:
        total = sum(self._data.num_requests(split) for split in splits.SPLITS)
        with tqdm(total=total, desc="Auditing", unit=" requests", leave=False, disable=None) as bar:
            for split, name in enumerate(splits.SPLITS):
                first = self._num_requests
                for batch in read_requests(self._data, name):
                    self._check_alone(batch)
                    self._keep(batch, split)
                    self._statistics.add(batch, split)
                    bar.update(len(batch))
                found, expected = self._num_requests - first, self._data.num_requests(name)
                if found != expected:
                    self._fail("conservation", f"{name}: {found} requests, not {expected}")
        self._check_conservation()
        self._check_vocabularies()
        for problem in self._statistics.problems():
            self._fail("statistics", problem)
        if self._num_requests:
            self._check_together()
        return dict(self._findings)

    def _fail(self, check: str, example: str, count: int = 1) -> None:
        finding = self._findings[check]
        finding.count += count
        if len(finding.examples) < _SHOWN:
            finding.examples.append(example)

    def _fail_rows(self, check: str, bad: np.ndarray, example: Callable[[int], str]) -> None:
        """Counts every row that is marked, and describes the first ones."""
        rows = np.flatnonzero(bad).tolist()
        if rows:
            finding = self._findings[check]
            finding.count += len(rows)
            finding.examples += map(example, rows[: _SHOWN - len(finding.examples)])

    def _fail_where(self, check: str, ids: pa.Array, bad_B: np.ndarray, why: str) -> None:
        def example(row: int) -> str:
            name = ids[row].as_py().decode("utf-8", errors="backslashreplace")
            return f"request {name}: {why}"

        self._fail_rows(check, bad_B, example)

    def _check_alone(self, batch: Requests) -> None:
        """What one request shows by itself."""
        schema, encoders = self._schema, self._data.encoders
        for key, feature in encoded_keys(schema):
            values, cardinality = batch.values[key], encoders[feature.name].cardinality
            lowest = int(feature in (schema.user_key, schema.item_key))  # keys are never padding
            bad = ~np.isfinite(values)
            if feature.is_categorical:
                bad = (values < lowest) | (values >= cardinality)
            bad_B = (bad & batch.mask(key)).reshape(len(batch), -1).any(axis=1)
            self._fail_where("ids", batch.ids, bad_B, f"{key} is out of range")

        if self._impressions is not None:
            for check, bad_B, why in self._impressions.alone(batch):
                self._fail_where(check, batch.ids, bad_B, why)
            return
        item_BN = np.sort(batch.values[candidate_key(schema.item_key.name)], axis=1)
        repeated_BN = (np.diff(item_BN, axis=1) == 0) & (item_BN[:, 1:] >= self._first_known)
        bad_B = batch.is_candidate_BN.sum(axis=1) != 1 + self._argument("negatives")
        bad_B |= (batch.label_BN == 1).sum(axis=1) != 1
        bad_B |= repeated_BN.any(axis=1)
        self._fail_where("candidates", batch.ids, bad_B, "candidates are miscounted or repeated")

        late_BL = batch.history_time_BL > batch.timestamp_B[:, None]
        bad_B = (late_BL & batch.is_event_BL).any(axis=1)
        self._fail_where("order", batch.ids, bad_B, "its history holds a later event")
        _, index_B = batch.user_and_index()
        bad_B = batch.lengths_B != np.minimum(index_B, schema.history.max_length)
        self._fail_where("complete", batch.ids, bad_B, "its history is not that of its index")

    def _keep(self, batch: Requests, split: int) -> None:
        """Keeps what requests are compared with."""
        self._num_requests += len(batch)
        self._split.append(np.full(len(batch), split))
        self._times.append(batch.timestamp_B)
        self._ids.append(batch.ids)
        if split == splits.TRAIN:
            self._keep_trained(batch)
        if self._impressions is not None:
            self._impressions.keep(batch, split)
            return
        item = self._schema.item_key
        user_B, index_B = batch.user_and_index()
        start_B = index_B - batch.lengths_B
        row, step = np.nonzero(batch.is_event_BL)
        self._events += [
            np.stack([user_B, index_B, batch.positives(item), batch.timestamp_B]),
            np.stack(
                [
                    user_B[row],
                    start_B[row] + step,
                    batch.values[history_key(item.name)][row, step],
                    batch.history_time_BL[row, step],
                ]
            ),
        ]
        if len(self._events) >= _COMPACT_EVERY:
            self._events = [np.unique(np.hstack(self._events), axis=1)]
        row, position = np.nonzero(batch.is_candidate_BN & (batch.label_BN == 0))
        drawn = batch.values[candidate_key(item.name)][row, position]
        first = self._num_requests - len(batch)
        self._negatives.append(np.stack([user_B[row], drawn, first + row]))
        self._positives.append(np.stack([user_B, index_B]))

    def _keep_trained(self, batch: Requests) -> None:
        """Marks the values of vocabularies that training requests hold, negatives aside."""
        for key, feature in encoded_keys(self._schema):
            is_sampled = key.startswith(candidate_key("")) and self._impressions is None
            if feature.name in self._trained and not is_sampled:
                self._trained[feature.name][batch.values[key][batch.mask(key)]] = True
        for feature in self._schema.history_features:
            if feature.name in self._trained:
                self._trained[feature.name][batch.positives(feature)] = True

    def _check_together(self) -> None:
        """What only several requests show."""
        ids = pa.concat_arrays(self._ids)
        split_R = np.concatenate(self._split)
        keys_R = fingerprint64(ids)
        order = np.argsort(keys_R, kind="stable")
        again_R = np.zeros(len(ids), bool)
        again_R[order[1:]] = keys_R[order[1:]] == keys_R[order[:-1]]
        self._fail_where("unique", ids, again_R, "occurs more than once")
        if self._argument("protocol") == "time_split":
            cutoffs = self._data.manifest["cutoffs"]
            ends = np.array([cutoffs["train_end"], cutoffs["validation_end"]], np.int64)
            bad_R = np.searchsorted(ends, np.concatenate(self._times)) != split_R
            self._fail_where("protocol", ids, bad_R, "is in the wrong split")
        if self._impressions is not None:
            for check, bad_R, why in self._impressions.together():
                self._fail_where(check, ids, bad_R, why)
        else:
            self._check_clicks(ids, split_R)

    def _check_clicks(self, ids: pa.Array, split_R: np.ndarray) -> None:
        """Histories, negatives and leave_last_out, by the index of each positive."""
        user, index, item, time = np.unique(np.hstack(self._events), axis=1)
        same_user = user[1:] == user[:-1]
        self._fail_rows(
            "order",
            same_user & (index[1:] == index[:-1]),
            lambda row: f"two versions of event {index[row]} of one user",
        )
        self._fail_rows(
            "order",
            same_user & (time[1:] < time[:-1]),
            lambda row: f"event {index[row + 1]} of a user is earlier than the one before",
        )

        users, event_user = np.unique(user, return_inverse=True)
        rows_of_table = self._data.encoders[self._schema.item_key.name].cardinality
        owned = np.unique(event_user * rows_of_table + item)
        drawn_user, drawn_item, request = np.hstack(self._negatives)
        drawn = np.searchsorted(users, drawn_user) * rows_of_table + drawn_item
        bad_R = np.zeros(len(ids), bool)
        bad_R[request[np.isin(drawn, owned) & (drawn_item >= self._first_known)]] = True
        self._fail_where("negatives", ids, bad_R, "a negative is an item of its user")

        if self._argument("protocol") == "leave_last_out":
            positive_user, index_R = np.hstack(self._positives)
            bad_R = self._not_leave_last_out(
                np.searchsorted(users, positive_user), index_R, split_R
            )
            self._fail_where("protocol", ids, bad_R, "is in the wrong split")

    def _not_leave_last_out(
        self, user_R: np.ndarray, index_R: np.ndarray, split_R: np.ndarray
    ) -> np.ndarray:
        """Requests that leave_last_out would not put into their split."""
        last_U = np.zeros(user_R.max() + 1, np.int64)
        np.maximum.at(last_U, user_R, index_R)
        from_end_R = last_U[user_R] - index_R
        bad_R = from_end_R != splits.TEST - split_R
        if self._argument("train_prefixes") == "all":
            bad_R &= (split_R != splits.TRAIN) | (from_end_R < splits.TEST)
        return bad_R

    def _check_vocabularies(self) -> None:
        for name, trained in self._trained.items():
            encoder = self._data.encoders[name]
            unknown = np.flatnonzero(~trained[encoder.num_oov + 1 :]) + encoder.num_oov + 1
            if len(unknown):
                value = encoder.decode(unknown[:1])[0]
                self._fail(
                    "vocabulary", f"{name}: {value!r} is in no training request", len(unknown)
                )

    def _check_conservation(self) -> None:
        account = self._data.manifest["conservation"]
        parts = [account["used"], *account["filtered"].values(), *account["rejected"].values()]
        if account["read"] != sum(parts):
            self._fail("conservation", f"{account['read']} rows read, {sum(parts)} accounted for")

    def _impression_checks(self) -> ImpressionChecks | None:
        """What is checked of an impression log in place of negatives and indices."""
        if not self._schema.is_impression_log:
            return None
        is_last_out = self._argument("protocol") == "leave_last_out"
        train_prefixes = self._argument("train_prefixes") if is_last_out else None
        first_user = _first_known(self._data.encoders[self._schema.user_key.name])
        return ImpressionChecks(self._schema, first_user, train_prefixes)

    @property
    def _first_known(self) -> int:
        return _first_known(self._data.encoders[self._schema.item_key.name])

    def _argument(self, name: str) -> Any:
        return self._data.manifest["arguments"][name]


def _first_known(encoder: FittedEncoder) -> int:
    """The lowest id that stands for one value; ids that values may share are below."""
    return encoder.num_oov + 1 if encoder.num_oov else encoder.cardinality


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("data", None, "The data directory; may be given without --data.")


def main() -> int:
    """Audits a data set and prints the result; 1 if a promise is broken."""
    if flags.FLAGS.data is None:
        raise UserError("Expected a data directory, found none.", "python -m pipeline.audit DATA")
    findings = audit(flags.FLAGS.data)
    for name, promise in CHECKS.items():
        finding = findings.get(name, Finding())
        verdict = f"FAILED {finding.count} times" if finding.count else "ok"
        sys.stdout.write(f"{name:12} {verdict}: {promise}\n")
        for example in finding.examples:
            sys.stdout.write(f"{'':12}   {example}\n")
    return 1 if findings else 0


def console_main() -> None:
    """Entry point of `ctr-audit`."""
    define_flags()
    cli.run(main, __doc__, positional="data")


if __name__ == "__main__":
    console_main()
