"""What a data set must have to be trained on."""

from preprocessing.data_dir import DataDir
from preprocessing.encoder_specs import Numeric
from preprocessing.errors import UserError
from preprocessing.json_checks import did_you_mean
from preprocessing.schema import Schema


def check_splits(data: DataDir) -> None:
    """Refuses a data set that cannot be trained on or not be judged."""
    if not data.num_requests("train"):
        raise UserError(
            f"Expected training requests in {data.path}, found none.",
            "build the data with more events per user.",
        )
    validation = data.manifest["splits"]["validation"]
    if not validation["candidates"] > validation["requests"] > 0:
        raise UserError(
            f"Expected validation requests with several candidates in {data.path}, found "
            f"{validation['requests']} requests with {validation['candidates']} candidates.",
            "build the data with --negatives of at least 1, from a longer log.",
        )


def check_sample_weight(schema: Schema, name: str) -> None:
    """Refuses weights that are not numbers as they stand in the log."""
    numeric = [
        feature.name
        for feature in schema.encoded_features
        if feature.encoder == Numeric(normalisation="none")
    ]
    if name and name not in numeric:
        raise UserError(
            "Expected train.sample_weight to name a numeric feature without normalisation "
            f"({', '.join(numeric) or 'the schema has none'}), found {name!r}.",
            did_you_mean(name, numeric),
        )
