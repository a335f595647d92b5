"""Runs benchmarks: prints each figure as it comes, writes bench.json."""

import difflib
import json
import os
import pathlib
import platform
from collections.abc import Callable, Sequence

from tqdm import tqdm

from models.keras import tf
from preprocessing.errors import UserError

from . import (
    build_examples,
    codec,
    compression,
    embedding_update,
    help,
    input_pipeline,
    model_steps,
    native_steps,
    new_day,
    pair_tensor,
    serving_batching,
    serving_overhead,
    serving_payload,
    serving_tail,
    startup,
    topic,
    training_peers,
    value_bags,
    workers_scaling,
)
from .figures import Figure

BENCHMARKS: dict[str, Callable[[bool], list[Figure]]] = {
    "codec": codec.measure,
    "many_codec": codec.measure_sets,
    "many_bag": value_bags.measure,
    "compression": compression.measure,
    "lazy_adam": embedding_update.measure,
    "deminet_ssl": model_steps.deminet_ssl,
    "deminet_memory": model_steps.deminet_memory,
    "deminet_flops": model_steps.deminet_flops,
    "deminet_items": model_steps.deminet_items,
    "deminet_candidates": model_steps.deminet_candidates,
    "din_miss": model_steps.din_miss,
    "din_many": model_steps.din_many,
    "din_native": native_steps.measure,
    "xla": model_steps.xla,
    "dha_pair_tensor": pair_tensor.measure,
    "training_peers": training_peers.measure,
    "input_pipeline": input_pipeline.measure,
    "workers_scaling": workers_scaling.measure,
    "startup": startup.measure,
    "help": help.measure,
    "build_examples": build_examples.measure,
    "new_day": new_day.measure,
    "topic": topic.measure,
    "serving_payload": serving_payload.measure,
    "server_overhead": serving_overhead.overhead,
    "server_throughput": serving_overhead.throughput,
    "server_tail": serving_tail.measure,
    "server_batching": serving_batching.measure,
    "server_memory": serving_overhead.memory,
}
"""Takes whether to be quick; some yield several figures."""

_ROW = "{:<19} {:>7} {:>7} {:>8}  {:<6}  {:<26}  {}"


def run(output: pathlib.Path, only: Sequence[str] = (), quick: bool = False) -> None:
    """Measures, prints and writes.

    Args:
        output: The JSON file to write: {figure: {value, unit, target, ok, baseline, command}}.
        only: Benchmarks to run; all if empty.
        quick: Smaller sizes, to see that everything runs; the ratios then mean little.

    Raises:
        UserError: No such benchmark, or `output` cannot be written.
    """
    for name in only:
        if name not in BENCHMARKS:
            close = difflib.get_close_matches(name, BENCHMARKS, 1)
            raise UserError(
                f"--only: expected names of {', '.join(BENCHMARKS)}, found {name!r}.",
                f"did you mean {close[0]!r}?" if close else "",
            )
    if not output.parent.is_dir():
        raise UserError(f"--output: expected an existing directory, found none at {output.parent}.")
    _say(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"TensorFlow {tf.__version__}{'; quick: too small for the targets' if quick else ''}"
    )
    _say(_ROW.format("figure", "best", "median", "target", "", "ours : baseline", "baseline"))
    records = {}
    with tqdm(only or BENCHMARKS, leave=False, disable=None) as names:
        for name in names:
            names.set_description(name)
            command = f"python -m tests.bench --only={name}{' --quick' if quick else ''}"
            for figure in BENCHMARKS[name](quick):
                _say(row(figure))
                records[figure.name] = figure.to_json(command)
    output.write_text(json.dumps(records, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    missed = [name for name, record in records.items() if not record["ok"]]
    _say(f"Wrote {output}. Targets missed: {', '.join(missed) or 'none'}.")


def row(figure: Figure) -> str:
    """A figure as a line of the table."""
    verdict = "" if figure.target is None else "ok" if figure.ok else "MISSED"
    return _ROW.format(
        figure.name,
        f"{figure.value:.3g}",
        f"{figure.median:.3g}",
        "" if figure.target is None else str(figure.target),
        verdict,
        figure.detail,
        figure.baseline,
    )


def _say(line: str) -> None:
    tqdm.write(line)
