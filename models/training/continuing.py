"""Goes on with a run on the data of the next day: `models.train --continue`.

A run that continues another one has its weights, the moments of its optimisers, its batch
statistics and its step count, all as they were at the best evaluation. Only the tables differ: a
row belongs to a value, and goes to the id that the value has now. A value that is new was one
unknown value among others until now, and begins with the row of the out-of-vocabulary bucket that
it fell into. So before its first step the model scores every request as the earlier run would.
"""

from collections.abc import Iterator

import numpy as np

from models.config import pretrained
from models.config.run_config import RunConfig
from models.core import run_directory
from models.core.base import CTRModel
from models.core.checkpoints import restore_best_state
from models.core.factory import build_model, compile_model
from models.core.optimizer_pairs import slots_by_weight
from models.keras import tf
from models.training.row_growth import Growth
from models.training.warm_start import require_same_settings, rescale_projections
from preprocessing.data_dir import DataDir
from preprocessing.encoders.fitted import BucketisedEncoder, NumericEncoder
from preprocessing.errors import UserError

_STATEFUL_SETTINGS = ("embedding_optimizer", "joint", "ssl_steps", "precision")
_FIX = "build the new days with --base, which keeps them, or take --warm_start."


def continue_run(model: CTRModel, data: DataDir, config: RunConfig) -> list[str]:
    """Copies the state of the run `config.continues` into a new model and its optimisers.

    Args:
        model: New model, compiled, with its optimisers built.
        data: Data set of the new run.
        config: Configuration of the new run.

    Returns:
        A line per table on its rows, and one on everything else.

    Raises:
        UserError: There is no such run, or it has no checkpoint of its best evaluation, or its
            features, settings or intervals are others, or a table cannot grow.
    """
    if config.train.distribute == "parameter_server":
        raise UserError(
            "Expected one process or multi_worker with --continue, found parameter_server, whose "
            "optimisers' state is cut into shards.",
            "take --warm_start, which copies the weights alone.",
        )
    run = run_directory.open_run(config.continues)
    run.data.schema.require_equal(data.schema, f"{run.data.path}", f"{data.path}")
    require_same_settings(run, config, "model")
    require_same_settings(run, config, "ssl")
    require_same_settings(run, config, "train", _STATEFUL_SETTINGS)
    pretrained.require_same_form(run.config.pretrained, config.pretrained, str(run.path))
    warnings = list(_changed_numbers(run.data, data))
    source = build_model(run.config, run.data, run.config.train.precision)
    compile_model(source, run.config)
    source.build_optimizers()
    restore_best_state(source, run.path / run_directory.CHECKPOINTS)
    growth = {
        name: Growth.between(run.data.encoders[name], encoder)
        for name, encoder in data.encoders.items()
        if encoder.cardinality
    }
    for name in model.embedder.quotients:
        if growth[name].moves:
            raise UserError(
                f"Expected the vocabulary of {run.data.path} for {name!r}, whose table is "
                f"compressed, found another one in {data.path}: ids that share rows cannot move.",
                "take --warm_start, or leave model.compressed_features out.",
            )
    take_over_state(source, model, growth)
    rescale_projections(run.data.encoders, model, data.encoders, list(data.encoders))
    lines = [
        f"{name}: all rows stay the vectors of its file"
        if name in model.embedder.fixed
        else f"{name}: {(~rows.is_new).sum():,} rows taken over, {rows.is_new.sum():,} new with "
        f"{_beginning(model, name)}, {rows.gone:,} left behind"
        for name, rows in growth.items()
    ]
    steps = int(model.optimizer.iterations.numpy())
    return [
        *warnings,
        *lines,
        f"all other weights and the optimisers taken over, at step {steps:,}",
    ]


def _beginning(model: CTRModel, name: str) -> str:
    """What the rows of new values begin with."""
    is_filled = name in model.embedder.pretrained
    return "the vector of its file" if is_filled else "the row of an unknown value"


def take_over_state(source: CTRModel, model: CTRModel, growth: dict[str, Growth]) -> None:
    """Copies weights, and the state of the optimisers, between models of the same settings.

    Args:
        source: Trained model, with its optimisers built.
        model: Model to change, with its optimisers built.
        growth: Growth of the table of each feature that has one.
    """
    feature_by_table = {table.ref(): name for table, name in _tables(model)}
    embedder = model.embedder
    filled = {embedder.tables[name].ref() for name in embedder.pretrained}
    fixed = {embedder.tables[name].ref() for name in embedder.fixed}
    for theirs, ours in zip(source.weights, model.weights, strict=True):
        name = feature_by_table.get(ours.ref())
        if name is None or name in model.embedder.quotients:
            ours.assign(theirs)
            continue
        rows = tf.gather(theirs, growth[name].sources)
        if ours.ref() in filled:  # New values keep the vectors of the file.
            rows = tf.where(growth[name].is_new[:, None], ours, rows)
        if ours.ref() not in fixed:
            ours.assign(rows)
    if source.loss_scale is not None and model.loss_scale is not None:
        for theirs, ours in zip(
            source.loss_scale.variables, model.loss_scale.variables, strict=True
        ):
            ours.assign(theirs)
    # Those of self-supervision come last. A run that took its steps ahead only goes on without.
    pairs = zip(source.optimizers(), model.optimizers(), strict=False)
    for (theirs, _), (ours, weights) in pairs:
        ours.iterations.assign(theirs.iterations)
        slots = zip(
            slots_by_weight(theirs, weights),
            slots_by_weight(ours, weights),
            weights,
            strict=True,
        )
        for their_slots, our_slots, weight in slots:
            name = feature_by_table.get(weight.ref())
            for before, after in zip(their_slots, our_slots, strict=True):
                if name is None or name in model.embedder.quotients:
                    after.assign(before)
                else:
                    rows = growth[name]
                    # What moments a new value would have is not known: they begin as any do.
                    after.assign(
                        tf.where(rows.is_new[:, None], after, tf.gather(before, rows.sources))
                    )


def _tables(model: CTRModel) -> Iterator[tuple[tf.Variable, str]]:
    """The tables of a model with the features that their rows belong to."""
    for name, table in [*model.embedder.tables.items(), *model.embedder.quotients.items()]:
        yield table, name
    for table in model.backbone.tables:
        yield table, model.schema.item_key.name


def _changed_numbers(before: DataDir, after: DataDir) -> Iterator[str]:
    """Lines on numeric features that are scaled in another way than before.

    Raises:
        UserError: A bucketised feature has other intervals, whose rows mean something else.
    """
    for name, then in before.encoders.items():
        now = after.encoders[name]
        if isinstance(then, BucketisedEncoder) and isinstance(now, BucketisedEncoder):
            if not np.array_equal(then.boundaries, now.boundaries):
                raise UserError(
                    f"Expected the intervals of {before.path} for {name!r}, found others in "
                    f"{after.path}.",
                    _FIX,
                )
        elif isinstance(then, NumericEncoder) and then.numbers() != now.numbers():
            yield (
                f"WARNING: {name} is scaled by mean and deviation of these days, which the model "
                f"does not know ({then.numbers()} before, {now.numbers()} now). Fix: {_FIX}"
            )
