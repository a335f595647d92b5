"""A table in seconds: a few steps on a tiny generated log, to see that all of it runs.

Its numbers mean nothing.
"""

import contextlib
import dataclasses
import pathlib
import warnings
from collections.abc import Iterator, Sequence

from models import registry
from models.keras import tf
from pipeline.arguments import BuildArguments
from pipeline.build_examples import build_examples
from pipeline.experiments.recipe import Content, Row, Table, merged
from pipeline.synthesize import synthesize, write
from pipeline.synthetic.truth import SynthesizeArguments
from preprocessing import dataset
from preprocessing.data_dir import COMPLETED

_LOG = SynthesizeArguments(users=60, items=60, interests=3, events_per_user=10)
_TRAIN: Content = {"train": {"max_steps": 1}}
_SSL: Content = {"train": {"ssl_steps": 1.0}}
_BATCH_SAMPLES = 64
_PASSES: Content = {"train": {"pretrain_epochs": 1}}


def shortened(table: Table, learning_rates: Sequence[float] = ()) -> Table:
    """The same table with a few steps per run.

    Args:
        table: Recipe of the table.
        learning_rates: Learning rates to choose from; if empty, the first one of the table.
    """

    def shorten(row: Row) -> Row:
        has_passes = "pretrain_epochs" in row.settings.get("train", {})
        has_ssl = row.settings.get("ssl", {}).get("name", registry.NO_SSL) != registry.NO_SSL
        settings = merged(
            _SSL if has_ssl else {}, row.settings, _TRAIN, _PASSES if has_passes else {}
        )
        return dataclasses.replace(row, settings=settings)

    return dataclasses.replace(
        table,
        rows=[shorten(row) for row in table.rows],
        batch_samples=_BATCH_SAMPLES,
        learning_rates=learning_rates or table.learning_rates[:1],
    )


def build_data(protocol: str, workdir: pathlib.Path) -> pathlib.Path:
    """The generated data set for a protocol, built unless it exists."""
    output = workdir / "quick" / protocol
    if not (output / COMPLETED).exists():
        log = workdir / "quick" / "log.csv"
        log.parent.mkdir(parents=True, exist_ok=True)
        write(synthesize(_LOG), log)
        build_examples(
            BuildArguments(input=str(log), output=str(output), protocol=protocol, num_shards=1)
        )
    return output


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Avoids, or shares between runs, work of set-up that takes longer than a few steps.

    TensorFlow's functions are not compiled, and runs share the readers of their data sets.
    """
    tf.config.run_functions_eagerly(True)
    try:
        with warnings.catch_warnings(), dataset.shared():
            # Readers of data sets are compiled nevertheless, and each of them warns of it.
            warnings.filterwarnings("ignore", "Even though the `tf.config", UserWarning)
            yield
    finally:
        tf.config.run_functions_eagerly(False)
