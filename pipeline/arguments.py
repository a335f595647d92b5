"""Arguments of `pipeline.build_examples`."""

import dataclasses
import hashlib
from typing import Any

from pipeline.datasets import ADAPTERS, Adapter
from pipeline.log.csv_dialect import Dialect
from pipeline.log.topics.topic import PREFIX, Topic
from preprocessing.errors import UserError
from preprocessing.json_checks import did_you_mean
from preprocessing.splits import BY_TIME, PROTOCOLS
from preprocessing.storage import files
from preprocessing.storage.files import AnyPath
from preprocessing.values import limits
from preprocessing.values.limits import limited

TRAIN_PREFIXES = ("last", "all")
AVAILABLE_POPULARITY = "available_popularity"
AVAILABLE = ("available", AVAILABLE_POPULARITY)
"""Kinds of sampling that draw only items that had appeared by the time of the request."""
NEGATIVE_SAMPLING = ("uniform", "popularity", *AVAILABLE)
CORE_FILTERS = ("once", "fixed_point")
LATE = ("histories", "reject")

_LATER_ARGUMENTS = (
    *("base", "late", "rerank", "vocabularies", "train_from"),
    *("kafka_lost", "expire_days"),
)
"""Arguments that a manifest names only where they are used."""


DEFAULT_SHARDS = 16
"""Files of train of a data set that is not large."""

_NOT_KEPT = (
    *("output", "work_dir", "overwrite", "resume", "num_partitions", "beam_options"),
    "kafka_config",
)
"""Arguments that the content of a data set does not depend on, or that may lead to a secret."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildArguments:
    """Arguments of a build; the manifest keeps them.

    Attributes:
        input: Files, as a comma-separated list of paths, directories and glob patterns; or a topic
            of Kafka, as kafka://HOST:PORT/TOPIC.
        output: The data directory to write. Inputs and output may be on object stores.
        work_dir: Directory for intermediate files, which all workers share; None for the output.
        csv_delimiter: Delimiter of the values of CSV files, see `Dialect.from_flags`.
        csv_escape: Character that escapes a quotation mark in CSV files, or None if it is doubled.
        dataset: Name of a published log (a key of `pipeline.datasets.ADAPTERS`), or None for any
            other.
        kafka_config: File with settings of the client of Kafka, such as those of SASL and TLS. The
            manifest names neither the file nor what it holds.
        kafka_lost: Number of offsets that the topic may have lost since the base.
        metadata: Files that describe the items of a published log, if it has such files.
        behaviours: Kinds of events of a published log that count; empty for those of the paper.
        schema: Path of schema.json; None to take the schema of the published log, or to infer it.
        base: Data set whose tails the log continues, or None for a log that stands for itself.
        late: What becomes of events that are earlier than the base's latest: they join `histories`
            from now on, or are rejected (`reject`).
        rerank: Whether the vocabularies are ranked anew, and numbers fitted anew, from all that the
            base and the log count; else the base's ids keep their meaning and new values follow.
        vocabularies: Data set whose encoders to take over as they are, or None to learn them.
        train_from: Time from which on events are requests, as text; earlier ones are histories.
        expire_days: Days after whose end a value that no event has is out of vocabulary, counted
            back from the first request of a build with a base or `train_from`; 0 for never.
        protocol: One of `preprocessing.splits.PROTOCOLS`.
        split_fraction: `time_split`: share of the rows in train and validation together.
        validation_fraction: `time_split`: share of those rows in validation; `day`: share of all
            rows, 0 for none.
        train_prefixes: `leave_last_out`: `last` or `all`, see `preprocessing.splits`.
        min_history: Number of events that must precede a positive.
        min_user_events: Users with fewer events are filtered.
        min_item_events: Events of items with fewer events are filtered, before users are counted.
        core_filter: `once` to apply these two filters once, `fixed_point` to apply them in turns
            until nothing changes.
        negatives: Number of sampled candidates per request.
        negative_sampling: `uniform` over the items, or by `popularity` (number of events);
            `available`, `available_popularity`: the same among the items that had appeared by the
            time of the request, by the number of events until then.
        seed: Seed of negatives and candidate order.
        num_shards: Number of files of train; validation and test get a quarter of it, at least one.
            None for `DEFAULT_SHARDS`, or more if files would be large.
        deduplicate: Whether rows that say the same of the same moment are one event: those with the
            same user, item and time, in logs of impressions also request and label.
        max_user_events: Number of events per user; of more the most recent ones are kept.
        max_bad_fraction: Share of rejected rows above which the build fails.
        overwrite: Whether to replace a completed data set.
        resume: Whether to go on with an unfinished build of the same arguments, if there is one.
        num_partitions: Number of partitions by user, or None to derive it from the size of the
            input. The shards do not depend on it.
        beam_options: Options passed on to Beam, such as `--runner=FlinkRunner`.
    """

    input: str
    output: str
    work_dir: str | None = None
    csv_delimiter: str = ","
    csv_escape: str | None = None
    kafka_config: str | None = None
    kafka_lost: int = limited(0, at_least=0)
    dataset: str | None = None
    metadata: str | None = None
    behaviours: tuple[str, ...] = ()
    schema: str | None = None
    base: str | None = None
    late: str = "histories"
    rerank: bool = False
    vocabularies: str | None = None
    train_from: str | None = None
    expire_days: int = limited(0, at_least=0)
    protocol: str = "leave_last_out"
    split_fraction: float = limited(0.8, above=0, below=1)
    validation_fraction: float = limited(0.1, at_least=0, below=1)
    train_prefixes: str = "last"
    min_history: int = limited(1, at_least=0)
    min_user_events: int = limited(1, at_least=1)
    min_item_events: int = limited(1, at_least=1)
    core_filter: str = "once"
    negatives: int = limited(1, at_least=0)
    negative_sampling: str = "uniform"
    seed: int = 1
    num_shards: int | None = limited(None, at_least=1)
    deduplicate: bool = False
    max_user_events: int = limited(10_000, at_least=1)
    max_bad_fraction: float = limited(0.01, at_least=0, at_most=1)
    overwrite: bool = False
    resume: bool = False
    num_partitions: int | None = None
    beam_options: tuple[str, ...] = ()

    @property
    def output_path(self) -> AnyPath:
        """The data directory."""
        return files.path(self.output, "--output")

    @property
    def work_path(self) -> AnyPath:
        """Directory of intermediate files; no other output has the same one."""
        if self.work_dir is None:
            return self.output_path / "_work"
        build = hashlib.sha256(self.output.encode()).hexdigest()[:16]
        return files.path(self.work_dir, "--work_dir") / f"_work-{build}"

    @property
    def reads_topic(self) -> bool:
        """Whether the log is a topic of Kafka."""
        return PREFIX in self.input

    @property
    def adapter(self) -> type[Adapter] | None:
        """The adapter of the published log, None for any other log."""
        return None if self.dataset is None else ADAPTERS[self.dataset]

    @property
    def draws_available(self) -> bool:
        """Whether a request draws only items that had appeared by then."""
        return self.negative_sampling in AVAILABLE

    @property
    def dialect(self) -> Dialect:
        """The dialect of the CSV files of the log."""
        dialect = Dialect.from_flags(self.csv_delimiter, self.csv_escape)
        header = None if self.adapter is None else self.adapter.header
        return dataclasses.replace(dialect, header=header)

    def shards(self, split: str) -> int:
        """Number of files of a split."""
        assert self.num_shards is not None  # a build replaces it once it has counted requests
        return self.num_shards if split == "train" else max(1, self.num_shards // 4)

    def to_json(self) -> dict[str, Any]:
        """The arguments in the manifest: all that the content of the data set depends on."""
        record = dataclasses.asdict(self)
        for name in _NOT_KEPT:
            del record[name]
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in _LATER_ARGUMENTS:
            if record[name] == defaults[name]:
                del record[name]
        return record

    def check(self) -> None:
        """Raises `UserError` on the first argument out of range."""
        for name, choices in (
            ("protocol", PROTOCOLS),
            ("train_prefixes", TRAIN_PREFIXES),
            ("negative_sampling", NEGATIVE_SAMPLING),
            ("core_filter", CORE_FILTERS),
            ("late", LATE),
        ):
            if getattr(self, name) not in choices:
                raise UserError(
                    f"--{name}: expected one of {', '.join(choices)}, found "
                    f"{getattr(self, name)!r}."
                )
        self._check_dataset()
        self._check_parts()
        Dialect.from_flags(self.csv_delimiter, self.csv_escape)
        limits.check(self, "--")
        self._check_topic()
        if self.num_partitions is not None and self.num_partitions < 1:
            raise ValueError(f"expected at least one partition, found {self.num_partitions}")

    def _check_topic(self) -> None:
        """Raises `UserError` where the log is no topic that can be read, or flags need a topic."""
        if self.reads_topic:
            Topic.parse(self.input)
        for name, is_useful, needs in (
            ("kafka_config", self.reads_topic, f"a topic ({PREFIX}HOST:PORT/TOPIC) as --input"),
            ("kafka_lost", self.reads_topic and self.base is not None, "a topic and a --base"),
        ):
            if getattr(self, name) != getattr(BuildArguments, name) and not is_useful:
                raise UserError(f"--{name}: expected {needs} beside it, found none.")

    def _check_parts(self) -> None:
        """Raises `UserError` where flags of parts of a log do not go together."""
        if not self.validation_fraction and self.protocol == "time_split":
            raise UserError(
                "--validation_fraction: expected more than 0 with --protocol=time_split, found 0.",
                "use --protocol=day, which can do without a validation split.",
            )
        for name in ("late", "rerank"):
            if self.base is None and getattr(self, name) != getattr(BuildArguments, name):
                raise UserError(f"--{name}: expected a --base beside it, found none.")
        for name in ("base", "train_from"):
            if getattr(self, name) is not None and self.protocol not in BY_TIME:
                raise UserError(
                    f"--{name}: expected a protocol that splits by time, found "
                    f"--protocol={self.protocol}.",
                    f"use one of {', '.join(BY_TIME)}.",
                )
        if self.base is None:
            return
        for name, why in (
            ("train_from", "the requests of a base's log are in the base"),
            ("vocabularies", "those of the base are continued"),
            ("min_user_events", "tails do not tell who was filtered"),
            ("min_item_events", 'tails do not tell what was filtered ("min_count" does)'),
        ):
            if getattr(self, name) != getattr(BuildArguments, name):
                raise UserError(
                    f"--{name}: expected no such flag beside --base: {why}.", "leave it out."
                )
        if self.negative_sampling == AVAILABLE_POPULARITY:
            raise UserError(
                f"--negative_sampling={AVAILABLE_POPULARITY}: expected another one beside --base: "
                "it draws from every event of the whole log, which tails do not keep.",
                "use available.",
            )

    def _check_dataset(self) -> None:
        if self.dataset is not None and self.dataset not in ADAPTERS:
            raise UserError(
                f"--dataset: expected one of {', '.join(ADAPTERS)}, found {self.dataset!r}.",
                did_you_mean(self.dataset, ADAPTERS)
                or "leave it out for a log with a schema or with canonical columns.",
            )
        adapter = self.adapter
        describes_items = adapter is not None and adapter.describes_items
        if describes_items and self.metadata is None:
            raise UserError(
                f"--dataset={self.dataset}: expected the files that describe its items, found "
                "no --metadata.",
                "see docs/datasets.md for their names.",
            )
        if self.metadata is not None and not describes_items:
            raise UserError(
                f"--metadata: expected a --dataset with files that describe items, found "
                f"{self.dataset}."
            )
        has_behaviours = adapter is not None and adapter.behaviour_column is not None
        if self.behaviours and (not has_behaviours or self.schema is not None):
            raise UserError(
                "--behaviours: expected a --dataset with several kinds of events and no --schema, "
                f"found --dataset={self.dataset}{' and --schema' if self.schema else ''}.",
                "name the kinds that count in the schema (history.behaviours).",
            )
