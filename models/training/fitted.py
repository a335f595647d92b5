"""A run directory of a model that `fit` of Keras trained, for every command that takes a run."""

import dataclasses
import pathlib

from models.core import run_directory
from models.core.base import CTRModel
from models.evaluation.scoring import Scorer, record
from preprocessing.data_dir import DataDir
from preprocessing.errors import UserError


def save_run(
    model: CTRModel, data: DataDir, path: str | pathlib.Path
) -> dict[str, dict[str, float | None]]:
    """Writes the weights that a model has now, its configuration, and its scores.

    Evaluation, reports, exports and servers then take it as any run. It holds no optimisers and no
    history, so that `models.train --resume` and `--continue` have nothing to go on with.

    Args:
        model: Model of `models.build_model`, or one that Keras has loaded.
        data: Data set that it was trained on.
        path: Run directory, new or empty.

    Returns:
        Metrics of the splits that have requests, see `ranking_metrics`.

    Raises:
        UserError: There is something in the directory; the data set has another schema than the
            model or vocabularies of other sizes; the model was built by hand.

    Example:
        >>> from models import build_model, configure
        >>> data = DataDir.open("work/data")  # from pipeline.run --workdir=work
        >>> config = configure({"data": str(data.path), "model": {"name": "din"}})
        >>> metrics = save_run(build_model(config, data), data, "fitted")
        >>> sorted(metrics)
        ['test', 'validation']
    """
    path = pathlib.Path(path)
    recipe = model.recipe
    if path.exists() and any(path.iterdir()):
        raise UserError(
            f"Expected an empty directory for the run, found files in {path}.",
            "choose another one, or remove it.",
        )
    model.schema.require_equal(data.schema, "the model", str(data.path))
    sizes = {name: encoder.cardinality for name, encoder in data.encoders.items()}
    if sizes != dict(recipe.cardinalities):
        name = next(name for name in sizes if sizes[name] != recipe.cardinalities.get(name))
        raise UserError(
            f"Expected the data set that the model was trained on, with "
            f"{recipe.cardinalities.get(name)} ids of {name}, found {sizes[name]} in {data.path}.",
            "open the data set whose batches fit had.",
        )
    run_directory.begin(path, dataclasses.replace(recipe.config, data=str(data.path)), data)
    run_directory.save_best(run_directory.best_checkpoint(model, path))
    scorer = Scorer(model, data)
    return {
        split: record(path, split, scorer.score(split), data)
        for split in ("validation", "test")
        if data.num_requests(split)
    }
