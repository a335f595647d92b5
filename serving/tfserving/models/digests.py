"""Checksums of an exported version, which keep damaged or mixed-up files from being served.

`assets/digests.json` maps every file that determines the answers of a version (graph, weights,
assets) to its SHA-256. A vocabulary that was truncated in transit, or weights of another version,
would change scores without any other sign. Warm-up requests are left out: they do not change
scores, and operators replace them with their own.
"""

import json
import logging
import pathlib

from preprocessing.data_dir import sha256_file, write_json
from serving.tfserving.status import Code, ServingError

_LOG = logging.getLogger(__name__)

DIGESTS = pathlib.PurePath("assets", "digests.json")
_FIX = "copy the version anew from where it was exported, or export it again"


def write(version: pathlib.Path) -> None:
    """Writes the digests of a version, after all its other files.

    Args:
        version: Directory that holds saved_model.pb.
    """
    files = [version / "saved_model.pb"]
    files += [
        path
        for folder in ("assets", "variables")
        for path in sorted((version / folder).rglob("*"))
        if path.is_file() and path != version / DIGESTS
    ]
    write_json(
        version / DIGESTS,
        {path.relative_to(version).as_posix(): sha256_file(path) for path in files},
    )


def check(version: pathlib.Path) -> None:
    """Compares the files of a version with its digests; a version without digests passes.

    Raises:
        ServingError: DATA_LOSS, with the name of the first file that is missing or differs.
    """
    file = version / DIGESTS
    if not file.exists():
        if (version / "assets" / "schema.json").exists():  # exported before there were digests
            _LOG.warning("%s has no %s: that its files are whole is not checked", version, DIGESTS)
        return
    try:
        digests = dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise _lost(f"Expected the digests of a version in {file}, found: {error}") from None
    for name, expected in digests.items():
        path = version / name
        if not path.is_file():
            raise _lost(f"Expected {name} in {version}, found no such file")
        actual = sha256_file(path)
        if actual != expected:
            raise _lost(
                f"Expected the {name} that was exported in {version} (SHA-256 {expected[:12]}), "
                f"found another one ({actual[:12]})"
            )


def _lost(message: str) -> ServingError:
    return ServingError(Code.DATA_LOSS, f"{message}: {_FIX}")
