"""Drafts schema.json from a log, with a reason for every column.

    python -m pipeline.infer_schema --input=log.csv [--output=schema.json]

Looks at the first 100,000 rows of the log (CSV, JSON lines, both also .gz, or Parquet) and prints a
table: the role of each column, its type and encoder, how many rows lack it, how many values it has,
and why it is taken so or left out. Names of columns propose what the user, the item, the time and
the label are, and the data must agree; whether anything else describes the user, the item or the
moment follows from the data: nearly every user, or nearly every item, has one value of it, or
neither has (docs/schema.md).

Where something else could be meant, the role is marked as uncertain, and a line below the table
says what to edit. The schema is written to --output, or printed below the table without it. It is a
draft: read the reasons before you build with it. The exit status is 1 only if no column can be the
user or the item.
"""

import json
import sys
from collections.abc import Sequence

from absl import flags

from pipeline.drafting import sample, table
from pipeline.drafting.draft import Draft, draft
from pipeline.log import readers, topic_files
from pipeline.log.csv_dialect import Dialect
from pipeline.log.input_files import list_inputs
from pipeline.log.raw_batch import InputFile
from pipeline.log.topics.topic import PREFIX, Topic
from preprocessing import cli
from preprocessing.errors import UserError, explained_write_errors
from preprocessing.storage import files


def infer(patterns: str, dialect: Dialect | None = None, kafka_config: str | None = None) -> Draft:
    """The draft for a log.

    Args:
        patterns: Files of the log, see `list_inputs`, or a topic, as kafka://HOST:PORT/TOPIC.
        dialect: Dialect of CSV files, if not the default one.
        kafka_config: File with settings of the client of Kafka, or None.

    Raises:
        UserError: A file is missing or unreadable, or its columns have another delimiter.
    """
    if PREFIX in patterns:
        log = topic_files.list_topic(Topic.parse(patterns, kafka_config))
    else:
        log = list_inputs(patterns, dialect=dialect)
    with topic_files.explained_broker_errors():
        return _draft(log)


def _draft(log: Sequence[InputFile]) -> Draft:
    columns = readers.columns_of_files(log)
    for file, names in columns.items():
        if flag := file.dialect.other_delimiter(names):
            raise UserError(
                f"Expected several columns in {file.path}, found only {names[0]!r}.",
                f"name what separates them: {flag}.",
            )
    return draft(sample.read(columns).columns)


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string(
        "input",
        None,
        "Log files: paths, directories and glob patterns, separated by commas; or a topic, "
        "kafka://HOST:PORT/TOPIC.",
        required=True,
    )
    flags.DEFINE_string(
        "kafka_config", None, "Topics: file with settings of the client, such as SASL and TLS."
    )
    flags.DEFINE_string("output", None, "schema.json to write; a file that exists is kept.")
    flags.DEFINE_string(
        "csv_delimiter", ",", "What separates the values of CSV files: a character, or tab."
    )
    flags.DEFINE_string(
        "csv_escape",
        None,
        r"What escapes quotation marks in CSV files, such as \; default: nothing.",
    )


def main() -> None:
    """Prints the table, then writes or prints the schema."""
    output = None if flags.FLAGS.output is None else files.path(flags.FLAGS.output, "--output")
    if output is not None and output.exists():
        raise UserError(
            f"--output: expected a file that does not exist yet, found {output}.",
            "choose another name, or remove the file.",
        )
    dialect = Dialect.from_flags(flags.FLAGS.csv_delimiter, flags.FLAGS.csv_escape)
    result = infer(flags.FLAGS.input, dialect, flags.FLAGS.kafka_config)
    sys.stdout.write(table.table(result))
    if result.schema is None:
        raise UserError(
            f"Expected columns for the user and the item in {flags.FLAGS.input}, found that "
            f"{'; '.join(result.doubts)}.",
            "write the schema by hand (docs/schema.md), if the log has these columns.",
        )
    if output is None:
        sys.stdout.write(f"\n{json.dumps(result.schema.to_json(), indent=2)}\n")
        return
    with explained_write_errors("--output", output):
        result.schema.save(output)
    sys.stdout.write(f"\nwrote {output}\n")


def console_main() -> None:
    """Entry point of `ctr-infer-schema`."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
