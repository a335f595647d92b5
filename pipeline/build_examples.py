"""Turns raw logs into a data set of sequence examples.

    python -m pipeline.build_examples --input='logs/*.parquet' --output=DATA
        [--schema=schema.json] [--protocol=leave_last_out|time_split] [--negatives=1] [...]

Logs are CSV, JSON lines (both also .gz) or Parquet, one row per event. Without --schema the log needs
the columns user_id and item_id; timestamp gives the order if there is one (the order of rows
otherwise), and further columns describe the item. The schema is printed and written.

Bad rows go to DATA/rejected with file, line and reason; more than --max_bad_fraction of them fail
the build. The same log and the same flags give byte-identical shards for any number of workers.
Flags that are not listed below go to Beam, for example --runner=FlinkRunner or
--direct_num_workers=4 --direct_running_mode=multi_processing.
"""

import functools
import importlib.metadata
import json
import pathlib
import shutil
import sys
from typing import Any

import pyarrow as pa
from absl import flags

from pipeline import counting, jobs, readers, tables
from pipeline.arguments import NEGATIVE_SAMPLING, TRAIN_PREFIXES, BuildArguments
from pipeline.events import Plan
from pipeline.runner import check_options, run_stage
from pipeline.validation import columns_of
from preprocessing import cli, data_dir, encoders, splits
from preprocessing.data_dir import DataDir
from preprocessing.encoders import FittedEncoder
from preprocessing.errors import UserError
from preprocessing.schema import DType, Role, Schema, infer_schema

_PARTITION_BYTES = 32 << 20
_OURS = {"_work", "rejected", data_dir.COMPLETED, data_dir.MANIFEST, data_dir.SCHEMA,
         data_dir.STATS, data_dir.VOCABULARIES}  # fmt: skip


def build_examples(arguments: BuildArguments) -> DataDir:
    """Builds a data set.

    Args:
        arguments: What to build from what.

    Returns:
        The data set, opened.

    Raises:
        UserError: Wrong arguments, an unreadable log, too many bad rows, nothing left to train on.
    """
    arguments.check()
    files = readers.list_inputs(arguments.input)
    schema = _schema(arguments, files)
    _prepare_output(arguments)
    parts = [part for file in files for part in readers.ranges(file)]
    total_bytes = sum(file.size for file in files)
    num_partitions = arguments.num_partitions or 1 + total_bytes // _PARTITION_BYTES
    plan = Plan(arguments, schema, num_partitions)
    try:
        return _build(plan, parts)
    finally:
        shutil.rmtree(plan.work, ignore_errors=True)


def _build(plan: Plan, parts: list[readers.InputRange]) -> DataDir:
    """The stages in order; between them the driver decides."""
    arguments, schema, output = plan.arguments, plan.schema, plan.arguments.output_path
    stage = functools.partial(run_stage, beam_options=arguments.beam_options)
    num_blocks = sum(readers.num_blocks(part) for part in parts)
    stage("Reading", functools.partial(jobs.ingest, plan, parts), watch=plan.work / "read", total=num_blocks)
    counters = _counters(plan, "ingest")
    _check_bad_fraction(plan, counters)
    partitions = [i for i in range(plan.num_partitions) if plan.partition(i).exists()]
    if not partitions:
        raise UserError(
            f"Expected events in {arguments.input}, found none that count.",
            "check history.behaviours in the schema.",
        )
    if arguments.min_item_events > 1:
        known = tables.read(plan.work / "items.arrow")
        tables.write(plan.kept_items, _frequent(known, arguments.min_item_events, schema))
    if arguments.protocol == "time_split":
        stage("Cutting", functools.partial(jobs.count_times, plan, partitions), watch=plan.work / "time", total=len(partitions))
        times = tables.read(plan.work / "times.arrow")
        
    return DataDir.open(output, verify=False)
