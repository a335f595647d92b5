"""Pretrained tables: files of vectors that tables of features begin with.

    "pretrained": {"item_id": {"file": "vectors.parquet", "trainable": false}}

They are settings of a run, not of the schema: shards do not depend on them, and runs on one data
set may have vectors of other widths.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from preprocessing.data_dir import sha256_file
from preprocessing.errors import UserError
from preprocessing.features.encoder_specs import Vocabulary
from preprocessing.json_checks import check_keys, did_you_mean, integer, string
from preprocessing.schema import Schema
from preprocessing.storage import files
from preprocessing.values import vector_table

SECTION = "pretrained"
FACTOR = "learning_rate_factor"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrained:
    """The vectors that the table of a feature begins with.

    Attributes:
        file: Absolute path of a Parquet file with the columns `value` and `vector`.
        trainable: Whether training changes the vectors; if not, only their projection is learned.
        learning_rate_factor: Factor on the learning rate of the tables, for this one: below 1 the
            vectors stay closer to what they were. In steps of self-supervision, too.
        width: Width W of the vectors.
        sha256: SHA-256 of the file.
    """

    file: str
    trainable: bool = False
    learning_rate_factor: float = 1.0
    width: int
    sha256: str

    def is_projected(self, embedding_size: int) -> bool:
        """Whether a learned projection brings the vectors to the width of a field."""
        return not self.trainable or self.width != embedding_size


def parse(record: Any, name: str) -> Pretrained:
    """The record of a feature; what it leaves out is read from its file.

    A run stores the width and the digest of its file, so that no later command needs the file.

    Args:
        record: Object with `file` and, perhaps, `trainable`, `learning_rate_factor`, `width` and
            `sha256`; or the path of the file alone.
        name: Name of the feature.

    Raises:
        UserError: The record is not of this form, or its file is not one of vectors.
    """
    where = f"{SECTION}.{name}"
    record = located(record, pathlib.Path())
    keys = {"file", "trainable", FACTOR, "width", "sha256"}
    check_keys(record, keys, {"file"}, where)
    file = string(record["file"], f"{where}: file")
    trainable = record.get("trainable", False)
    if not isinstance(trainable, bool):
        raise UserError(f"{where}: trainable: expected true or false, found {trainable!r}.")
    factor = record.get(FACTOR, 1.0)
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor < 1e6:
        raise UserError(f"{where}: {FACTOR}: expected a number above 0, found {factor!r}.")
    if factor != 1.0 and not trainable:
        raise UserError(
            f"{where}: expected {FACTOR} for vectors that training changes, found {factor} and "
            "trainable=false.",
            'add "trainable": true, or leave the factor out.',
        )
    if "width" in record and "sha256" in record:
        width = integer(record["width"], f"{where}: width", 1)
        sha256 = string(record["sha256"], f"{where}: sha256")
    else:
        width = vector_table.width(file, where)
        sha256 = sha256_file(files.path(file))
    return Pretrained(
        file=file,
        trainable=trainable,
        learning_rate_factor=float(factor),
        width=width,
        sha256=sha256,
    )


def located(record: Any, base: pathlib.Path) -> Any:
    """A record whose file, if it is a path relative to a directory, is absolute.

    Args:
        record: Object, or the path of the file alone.
        base: The directory.
    """
    record = {"file": record} if isinstance(record, str) else record
    if not isinstance(record, Mapping) or not isinstance(record.get("file"), str):
        return record
    return {**record, "file": files.absolute(record["file"], base)}


def require_same_form(
    before: Mapping[str, Pretrained], after: Mapping[str, Pretrained], run: str
) -> None:
    """Raises `UserError` unless the tables of two runs have vectors of the same features and forms.

    Args:
        before: Vectors of the earlier run by feature.
        after: Vectors of the new run by feature.
        run: Path of the earlier run, for error messages.
    """
    forms = [
        {
            name: f"{vectors.width} wide, trainable={vectors.trainable}"
            for name, vectors in one.items()
        }
        for one in (before, after)
    ]
    if forms[0] != forms[1]:
        raise UserError(
            f"Expected the pretrained tables of {run} to go on with it ({forms[0] or 'none'}), "
            f"found {forms[1] or 'none'}.",
            "take --warm_start, which copies what fits.",
        )


def check(pretrained: Mapping[str, Pretrained], schema: Schema, compressed: Any = ()) -> None:
    """Raises `UserError` for features that cannot begin with vectors.

    Args:
        pretrained: Vectors by name of a feature.
        schema: Schema of the features.
        compressed: Names of features whose tables are compressed.
    """
    known = [f.name for f in schema.encoded_features if isinstance(f.encoder, Vocabulary)]
    for name in pretrained:
        if name not in known:
            raise UserError(
                f"Expected {SECTION} for features with a vocabulary ({', '.join(known)}), found "
                f"{name!r}.",
                did_you_mean(name, known),
            )
        if name in compressed:
            raise UserError(
                f"Expected {SECTION}.{name} or {name} in model.compressed_features, found both: "
                "the ids of a compressed table share rows.",
                "leave one of the two out.",
            )
