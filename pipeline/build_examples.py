"""Turns raw logs into a data set of sequence examples.

    python -m pipeline.build_examples --input='logs/*.parquet' --output=DATA
        [--schema=schema.json] [--protocol=leave_last_out|time_split|day] [--negatives=1] ...

    python -m pipeline.build_examples --dataset=taobao --input=UserBehavior.csv --output=DATA ...

    python -m pipeline.build_examples --base=DATA --input=logs/day2.csv --output=DATA2 ...

Logs are CSV, JSON lines (both also .gz) or Parquet, one row per event; --csv_delimiter and
--csv_escape say how CSV is written (docs/schema.md). --input=kafka://HOST:PORT/TOPIC reads what a
topic of JSON messages holds when the command begins (docs/operations.md, "Fresh in minutes").
--dataset names a published log of the papers in its raw form (docs/datasets.md). Of any other,
without --schema, the log needs the columns user_id and item_id; its order is timestamp, or position
(the place of an event among those of its user), or else the order of rows; every further column
describes the item. In a log of other columns they are recognised as pipeline.infer_schema does it,
if the data leaves no doubt. The schema is then printed and written.

--base names the data set that the log continues, and reads the log of the new day alone: every
event of the day is a request, histories reach back into what DATA keeps of each user, and known
values keep their ids (docs/operations.md, "A new day").

Bad rows go to DATA/rejected with file, line (or topic, partition, offset) and reason; more than
--max_bad_fraction of them fail the build. What speaks against the data set (a split without a
positive, a feature that is missing throughout, ...) is printed as findings, a line each. The same
log and the same flags give byte-identical shards for any number of workers. A build that was cut
off leaves its finished steps in DATA; the same command with --resume goes on with the one that it
was at.
Flags that are not listed below go to Beam, for example --runner=FlinkRunner or
--direct_num_workers=4 --direct_running_mode=multi_threading.
"""

import dataclasses
import sys
import time
from typing import Any

from absl import flags
from tqdm import tqdm

from pipeline.arguments import (
    CORE_FILTERS,
    LATE,
    NEGATIVE_SAMPLING,
    TRAIN_PREFIXES,
    BuildArguments,
)
from pipeline.datasets import ADAPTERS
from pipeline.job import log_schema
from pipeline.job.log_schema import CheckedLog
from pipeline.job.output import OtherBuildError
from pipeline.log import file_accounts
from preprocessing import cli, splits
from preprocessing.data_dir import DataDir
from preprocessing.values.limits import with_limit


def build_examples(arguments: BuildArguments, log: CheckedLog | None = None) -> DataDir:
    """Builds a data set.

    Args:
        arguments: Arguments of the build.
        log: The log as `log_schema.check` found it with these arguments, if that was done already.

    Returns:
        The data set, opened.

    Raises:
        UserError: Wrong arguments, an unreadable log, too many bad rows, nothing left to train on,
            a full disk.
    """
    start = time.perf_counter()
    log = log or log_schema.check(arguments)
    from pipeline.job import build, manifest  # They load Beam, which a wrong log need not wait for.

    is_new = build.build(log)
    data = DataDir.open(arguments.output_path, verify=False)
    if not is_new:
        tqdm.write(f"{data.path} is complete: nothing to resume.", file=sys.stderr)
        return data
    for line in file_accounts.remarks(data.manifest["inputs"]):
        tqdm.write(line, file=sys.stderr)
    tqdm.write(manifest.summary(data, time.perf_counter() - start), file=sys.stderr)
    return data


def build_or_resume(arguments: BuildArguments, log: CheckedLog | None = None) -> DataDir:
    """Builds a data set, and goes on with what an interruption of the same build has left of it.

    Args:
        arguments: Arguments of the build.
        log: As in `build_examples`.

    Returns:
        The data set, opened.

    Raises:
        UserError: The conditions of `build_examples`.
    """
    log = log or log_schema.check(arguments)
    try:
        return build_examples(arguments, log.resuming())
    except OtherBuildError as other:
        sys.stdout.write(f"the data set is begun anew: {other.changed}\n")
        return build_examples(arguments, log)


def define_log_flags() -> None:
    """Defines the flags of a build, all but --output."""
    default: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(BuildArguments)}

    def text(name: str, meaning: str) -> None:
        flags.DEFINE_string(name, None, meaning)

    def integer(name: str, meaning: str) -> None:
        flags.DEFINE_integer(name, default[name], with_limit(meaning, BuildArguments, name))

    def number(name: str, meaning: str) -> None:
        flags.DEFINE_float(name, default[name], with_limit(meaning, BuildArguments, name))

    def choice(name: str, choices: tuple[str, ...], meaning: str) -> None:
        flags.DEFINE_enum(name, default[name], choices, meaning)

    with cli.flag_group("The log"):
        text(
            "input",
            "Log files: paths, directories and glob patterns, separated by commas; or a topic, "
            "kafka://HOST:PORT/TOPIC.",
        )
        flags.mark_flag_as_required("input")
        text("schema", "schema.json; inferred if left out.")
        flags.DEFINE_enum("dataset", None, list(ADAPTERS), "A published log, in its raw form.")
        text("kafka_config", "Topics: file with settings of the client, such as SASL and TLS.")
        integer("kafka_lost", "Topics, --base: messages that may be deleted before they were read.")
        text("metadata", "--dataset: files that describe the items.")
        flags.DEFINE_list("behaviours", [], "--dataset: kinds of events that count.")
        flags.DEFINE_string(
            "csv_delimiter", ",", "What separates the values of CSV files: a character, or tab."
        )
        text(
            "csv_escape", r"What escapes quotation marks in CSV files, such as \; default: nothing."
        )
        flags.DEFINE_bool(
            "deduplicate",
            False,
            "Count rows of the same user, item and time once (with request and label, where rows "
            "have these).",
        )
        number("max_bad_fraction", "Share of bad rows above which the build fails.")
    with cli.flag_group("A new day"):
        text("base", "Data set that the log continues: only the log is read, histories reach back.")
        choice(
            "late",
            LATE,
            "--base: what becomes of events before its latest one: they join histories, or are "
            "rejected.",
        )
        flags.DEFINE_bool("rerank", False, "--base: rank and fit all vocabularies anew.")
        text("vocabularies", "Data set whose vocabularies to take over instead of learning them.")
        integer(
            "expire_days",
            "Days without an event after which a value is out of vocabulary, its id reserved; "
            "0: never.",
        )
        text("train_from", "Time at which requests begin; events before it are histories only.")
    with cli.flag_group("Splits"):
        choice(
            "protocol",
            splits.PROTOCOLS,
            "How events are split into train, validation and test; with --base the default is day: "
            "train, then validation.",
        )
        number("split_fraction", "time_split: share of the rows in train and validation.")
        number("validation_fraction", "time_split, day: share of these rows in validation.")
        choice("train_prefixes", TRAIN_PREFIXES, "leave_last_out: train positives per user.")
        integer("min_history", "Events that must precede a positive.")
    with cli.flag_group("Filters"):
        integer("min_user_events", "Filter users with fewer events.")
        integer("min_item_events", "Filter events of items with fewer events.")
        choice("core_filter", CORE_FILTERS, "Filter items, then users, once or until none is left.")
        integer("max_user_events", "Number of most recent events of a user to keep.")
    with cli.flag_group("Sampled candidates"):
        integer("negatives", "Sampled candidates per request.")
        choice(
            "negative_sampling",
            NEGATIVE_SAMPLING,
            "Weights of sampled candidates: equal, or events of the item; available...: the same "
            "among the items that had appeared by the time of the request, and events until then.",
        )
        integer("seed", "Seed of negatives and candidate order.")
    with cli.flag_group("The data set"):
        integer(
            "num_shards",
            "Files of train; validation and test get a quarter of it. Default: 16, or as many as "
            "keep every file below about 256 MB.",
        )
        flags.DEFINE_bool("overwrite", False, "Replace a complete data set in --output.")
        text(
            "work_dir",
            "Directory for intermediate files, shared by all workers; default: --output.",
        )
        flags.DEFINE_multi_string(
            "beam_options", [], "Options of Beam; flags that are not listed here are added to them."
        )


def arguments_from_flags(output: str, hint: cli.Hint | None = None) -> BuildArguments:
    """The arguments that the flags of `define_log_flags` give.

    Args:
        output: The data directory to write.
        hint: Hint of the command for unknown flags, see `cli.run`.

    Raises:
        UserError: There is a flag that neither this command nor Beam knows.
    """
    values: dict[str, Any] = {
        field.name: flags.FLAGS[field.name].value
        for field in dataclasses.fields(BuildArguments)
        if field.name in flags.FLAGS
    }
    if values["base"] is not None and flags.FLAGS["protocol"].using_default_value:
        values["protocol"] = "day"
    if values["beam_options"]:
        from pipeline.job.runner import check_options  # loads Beam

        check_options(values["beam_options"], list(flags.FLAGS), hint)
    for name in ("beam_options", "behaviours"):
        values[name] = tuple(values[name])
    return BuildArguments(**{**values, "output": output})


_FEW = 0.2
"""Share of the rows below which training requests are few."""


def hints(data: DataDir) -> list[str]:
    """What a first build leaves unused and most users want: a line each, [] if there is nothing.

    Args:
        data: A data set that was just built.
    """
    arguments, account = data.manifest["arguments"], data.manifest["conservation"]
    if arguments["protocol"] != "leave_last_out" or arguments["train_prefixes"] != "last":
        return []
    rows = account["used"] + account["filtered"].get("protocol", 0)
    requests = data.num_requests("train")
    if requests >= _FEW * rows:
        return []
    return [
        f"{requests:,} training requests of {rows:,} rows, since leave_last_out trains on "
        "one per user, as the papers do. With --train_prefixes=all every earlier row is one as "
        "well, on the same validation and test requests: often worth more than another model."
    ]


def define_flags() -> None:
    """Defines the flags of this command."""
    define_log_flags()
    with cli.flag_group("The data set"):
        flags.DEFINE_string("output", None, "Data directory to write.", required=True)
        flags.DEFINE_bool("resume", False, "Go on with an unfinished build of the same arguments.")


def main() -> None:
    """Builds a data set as the flags say, prints its findings, and writes its data card."""
    data = build_examples(arguments_from_flags(flags.FLAGS.output))
    sys.stdout.write("".join(f"finding: {line}\n" for line in data.findings))
    sys.stdout.write("".join(f"hint: {line}\n" for line in hints(data)))
    from pipeline import data_card  # loads Matplotlib, which nothing else here needs

    data_card.write_card(data.path)


def console_main() -> None:
    """Entry point of `ctr-build-examples`."""
    define_flags()
    cli.run(main, __doc__, rest="beam_options")


if __name__ == "__main__":
    console_main()
