"""Proves that a data set keeps its promises, from the written shards, and counts the log once more.

    python -m pipeline.audit DATA

Prints one line per promise and, for each broken one, the first requests that break it; the exit
status is then 1. Below come what an independent count says of each file of the log, as long as it
is where it was, and the first and last time of each split, in units of the log. Values out of
vocabulary share an id and cannot be told apart here; they are left out where that matters. A log
without times does not show in the requests when an item appeared; that is said, too.
"""

import collections
import dataclasses
import sys

import numpy as np
import pyarrow as pa
from absl import flags
from tqdm import tqdm

from pipeline.auditing import log, times
from pipeline.auditing.clicks import ClickChecks
from pipeline.auditing.impressions import ImpressionChecks
from pipeline.auditing.log_checks import LogChecks
from pipeline.auditing.requests import Requests, Verdict, not_sets, request_batches
from pipeline.auditing.statistics import StatisticsChecks
from pipeline.log import file_accounts
from pipeline.requests import base
from pipeline.stats import statistics
from preprocessing import cli, splits, time_units
from preprocessing.data_dir import MANIFEST, DataDir
from preprocessing.encoders.fitted import VocabularyEncoder
from preprocessing.errors import UserError, shown
from preprocessing.schema import encoded_keys
from preprocessing.storage.files import AnyPath
from preprocessing.values.farmhash import fingerprint64

CHECKS = {
    "hashes": "every file has the SHA-256 of the manifest",
    "ids": "every id is a row of its table, that of the user the user's; every number is finite",
    "candidates": "every request has one positive and N distinct negatives (or what was shown)",
    "order": "no event of a history comes at or after the positive in the order of (time, row)",
    "times": "hours, weekdays and gaps follow from the times of the request and its events",
    "complete": "histories hold the most recent events, up to max_length",
    "negatives": "no negative is an item of its user, in any split",
    "available": "with --negative_sampling=available every negative had appeared by its request",
    "unique": "no request occurs twice, in one split or in two",
    "protocol": "the positives of each split are those of the protocol",
    "base": "with --base histories go on where its tails end, and lack nothing of them",
    "vocabulary": "every value of a vocabulary occurs in a training request, if it is new here",
    "statistics": "stats.json describes the requests; encoders learnt from those of train alone",
    "conservation": "rows and requests add up to what the manifest counts, for every file",
    "log": "every line of the log is a row that was read, a header, blank, or continues a value",
}
"""Descriptions of the promises by name."""

_SHOWN = 5
_SHOWN_FILES = 20


@dataclasses.dataclass
class Finding:
    """A broken promise: number of violations, and the first examples."""

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
    return Audit(path).run()


class Audit:
    """Reads all requests once, keeps a summary of them, and checks both.

    Args:
        path: The data directory, see `audit`.
    """

    def __init__(self, path: str | AnyPath) -> None:
        data = DataDir.open(path)
        statistics.require(data)
        if "inputs" not in data.manifest:
            raise UserError(
                f"Expected the key 'inputs' in {data.path / MANIFEST}, found none: an earlier "
                "version of the code built the data set.",
                "run python -m pipeline.build_examples again.",
            )
        if data.manifest.get("tails", {}).get("files"):
            base.verify(data)
        self._data = data
        self._schema = data.schema
        self._findings: collections.defaultdict[str, Finding] = collections.defaultdict(Finding)
        self._ids: list[pa.Array] = []
        self._split: list[np.ndarray] = []
        self._times: list[np.ndarray] = []
        self._trained = {
            feature.name: np.zeros(data.encoders[feature.name].cardinality, bool)
            for feature in (*data.schema.user_features, *data.schema.step_features)
            if data.encoders[feature.name].num_oov
        }
        self._num_requests = 0
        self._remarks: list[str] = []
        kind = ImpressionChecks if data.schema.is_impression_log else ClickChecks
        self._checks: LogChecks = kind.of(data)
        self._statistics = StatisticsChecks(data, self._checks)

    @property
    def has_base(self) -> bool:
        """Whether the data set was built on another one."""
        return "base" in self._data.manifest

    def run(self) -> dict[str, Finding]:
        """Broken promises by name, see `audit`."""
        total = sum(self._data.num_requests(split) for split in splits.SPLITS)
        with tqdm(total=total, desc="Auditing", unit=" requests", leave=False, disable=None) as bar:
            for split, name in enumerate(splits.SPLITS):
                first = self._num_requests
                for batch in request_batches(self._data, name):
                    self._check_alone(batch)
                    self._keep(batch, split)
                    self._statistics.add(batch, split)
                    bar.update(len(batch))
                num_read, expected = self._num_requests - first, self._data.num_requests(name)
                if num_read != expected:
                    self._fail("conservation", f"{name}: {num_read} requests, not {expected}")
        self._check_conservation()
        self._check_log()
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

    def _fail_where(self, ids: pa.Array, verdict: Verdict) -> None:
        """Counts the bad requests, and names the first ones."""
        bad = np.flatnonzero(verdict.bad).tolist()
        if bad:
            finding = self._findings[verdict.check]
            finding.count += int(verdict.bad.sum())
            for row in bad[: _SHOWN - len(finding.examples)]:
                finding.examples.append(f"request {shown(ids[row].as_py())}: {verdict.why}")

    def _check_alone(self, batch: Requests) -> None:
        """Checks that need one request only."""
        schema, encoders = self._schema, self._data.encoders
        for key, feature in encoded_keys(schema):
            values, cardinality = batch.values[key], encoders[feature.name].cardinality
            lowest = int(feature in (schema.user_key, schema.item_key))  # keys are never padding
            bad = ~np.isfinite(values)
            if feature.is_categorical:
                bad = (values < lowest) | (values >= cardinality)
            mask = batch.mask(key)
            mask = mask.reshape(mask.shape + (1,) * feature.axes)
            bad_B = (bad & mask).reshape(len(batch), -1).any(axis=1)
            self._fail_where(batch.ids, Verdict("ids", bad_B, f"{key} is out of range"))
            if feature.many is not None:
                why = f"{key} is no set of at most {feature.many.max} values"
                bad_B = not_sets(values, feature.many.max).reshape(len(batch), -1).any(axis=1)
                self._fail_where(batch.ids, Verdict("ids", bad_B, why))
            if feature == schema.user_key:
                is_other_user_B = ~bad_B & (values != encoders[feature.name].encode(batch.users))
                self._fail_where(
                    batch.ids, Verdict("ids", is_other_user_B, f"{key} is of another user")
                )
        if batch.weight_BN is not None:
            is_weight_BN = np.isfinite(batch.weight_BN) & (batch.weight_BN >= 0)
            bad_B = (batch.is_candidate_BN & ~is_weight_BN).any(axis=1)
            why = "it has not one weight of 0 or more per candidate"
            self._fail_where(batch.ids, Verdict("candidates", bad_B, why))
        for verdict in (*times.verdicts(schema, batch), *self._checks.alone(batch)):
            self._fail_where(batch.ids, verdict)

    def _keep(self, batch: Requests, split: int) -> None:
        """Keeps what the checks over several requests need."""
        self._num_requests += len(batch)
        self._split.append(np.full(len(batch), split))
        self._times.append(batch.timestamp_B)
        self._ids.append(batch.ids)
        if split == splits.TRAIN:
            self._keep_trained(batch)
        self._checks.keep(batch, split)

    def _keep_trained(self, batch: Requests) -> None:
        """Marks the values of vocabularies that training requests hold, negatives aside."""
        for key, feature in encoded_keys(self._schema):
            if feature.name in self._trained and not self._checks.is_sampled(key):
                self._trained[feature.name][batch.real(key, batch.mask(key))] = True
        for feature in self._schema.history_features:
            if feature.name in self._trained:
                self._trained[feature.name][batch.positives(feature)] = True

    def _check_together(self) -> None:
        """Checks that need several requests."""
        ids = pa.concat_arrays(self._ids)
        split_R = np.concatenate(self._split)
        keys_R = fingerprint64(ids)
        order = np.argsort(keys_R, kind="stable")
        again_R = np.zeros(len(ids), bool)
        again_R[order[1:]] = keys_R[order[1:]] == keys_R[order[:-1]]
        self._fail_where(ids, Verdict("unique", again_R, "occurs more than once"))
        if cutoffs := self._data.manifest["cutoffs"]:
            ends = np.array([cutoffs["train_end"], cutoffs["validation_end"]], np.int64)
            bad_R = np.searchsorted(ends, np.concatenate(self._times)) != split_R
            self._fail_where(ids, Verdict("protocol", bad_R, "is in the wrong split"))
        for verdict in self._checks.together():
            self._fail_where(ids, verdict)

    def _check_vocabularies(self) -> None:
        for name, trained in self._trained.items():
            if self._data.stats.get("cut", {}).get(name):
                continue  # a value may be beyond the `max` of every set that has it
            encoder = self._data.encoders[name]
            first = encoder.num_oov + 1 + self._data.stats["vocabularies"][name].get("given", 0)
            assert isinstance(encoder, VocabularyEncoder)
            is_expired = encoder.is_expired[first - 1 - encoder.num_oov :]
            unknown = np.flatnonzero(~trained[first:] & ~is_expired) + first
            if len(unknown):
                value = encoder.decode(unknown[:1])[0]
                self._fail(
                    "vocabulary",
                    f"{name}: {shown(value)!r} is in no training request",
                    len(unknown),
                )

    def _check_conservation(self) -> None:
        account = self._data.manifest["conservation"]
        parts = [account["used"], *account["filtered"].values(), *account["rejected"].values()]
        if account["read"] != sum(parts):
            self._fail("conservation", f"{account['read']} rows read, {sum(parts)} accounted for")
        inputs = self._data.manifest["inputs"]
        for kind, total in (
            ("read", account["read"]),
            ("used", account["used"]),
            ("filtered", sum(account["filtered"].values())),
            ("rejected", sum(account["rejected"].values())),
        ):
            file_total = sum(file[kind] for file in inputs)
            if file_total != total:
                self._fail("conservation", f"{total} rows {kind}, {file_total} of single files")
        for file in inputs:
            if file["read"] != file["used"] + file["filtered"] + file["rejected"]:
                self._fail("conservation", f"rows of {shown(file['path'])} do not add up")

    def _check_log(self) -> None:
        counts = list(log.count_files(self._data.manifest))
        for count in counts:
            if count.is_bad:
                self._fail("log", count.what)
        self._remarks += [f"log          {count.what}" for count in counts[:_SHOWN_FILES]]
        if len(counts) > _SHOWN_FILES:
            self._remarks.append(f"log          ... {len(counts) - _SHOWN_FILES} more files")
        self._remarks += file_accounts.remarks(self._data.manifest["inputs"])

    def remarks(self) -> list[str]:
        """Findings of `run` about the log and the times of requests, one line each."""
        split_R = np.concatenate([np.zeros(0, int), *self._split])
        time_R = np.concatenate([np.zeros(0, np.int64), *self._times])
        by_split = [(name, time_R[split_R == split]) for split, name in enumerate(splits.SPLITS)]
        known_lines = [
            f"known        {name}: AUC {unknown.auc:.3f} from whether training knows an item "
            f"(unknown: {unknown.positive_share:.1%} of the positives, "
            f"{unknown.negative_share:.1%} of the negatives)"
            for name, unknown in self._statistics.unknown_items()
            if unknown.auc is not None
        ]
        return [
            *self._checks.remarks(),
            *self._remarks,
            *known_lines,
            *(
                f"time         {name}: {self._time(values.min())} to {self._time(values.max())}"
                for name, values in by_split
                if len(values)
            ),
        ]

    def _time(self, time: np.integer) -> str:
        return time_units.text(self._data.schema, int(time))


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("data", None, "The data directory; may be given without --data.")


def main() -> int:
    """Audits a data set and prints the result; 1 if a promise is broken."""
    if flags.FLAGS.data is None:
        raise UserError("Expected a data directory, found none.", "python -m pipeline.audit DATA")
    audited = Audit(flags.FLAGS.data)
    findings = audited.run()
    for name, promise in CHECKS.items():
        if name == "base" and not audited.has_base:
            continue
        finding = findings.get(name, Finding())
        verdict = f"FAILED {finding.count} times" if finding.count else "ok"
        sys.stdout.write(f"{name:12} {verdict}: {promise}\n")
        for example in finding.examples:
            sys.stdout.write(f"{'':12}   {example}\n")
    sys.stdout.write("".join(f"{line}\n" for line in audited.remarks()))
    return 1 if findings else 0


def console_main() -> None:
    """Entry point of `ctr-audit`."""
    define_flags()
    cli.run(main, __doc__, positional="data")


if __name__ == "__main__":
    console_main()
