"""The digests that travel with an exported version, so that no other files go live in its place.

`assets/digests.json` maps every file that decides what a version answers (graph, weights, assets)
to its SHA-256. A vocabulary that was cut short on its way, or weights of another version, would
move scores without any other sign. Warm-up requests are not among them: they do not change scores,
and operators put their own there.
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
    """Writes the digests of a version; the last thing that its exporter does.

    Args:
        version: The directory that holds saved_model.pb.
    """
    files = [version / "saved_model.pb"]
    files += [
        path
        for folder in ("assets", "variables")
        for path in sorted((version / folder).rglob("*"))
        if path.is_file()
    ]
    write_json(
        version / DIGESTS,
        {path.relative_to(version).as_posix(): sha256_file(path) for path in files},
    )


def check(version: pathlib.Path) -> None:
    """Compares the files of a version with its digests; one without digests passes.

    Raises:
        ServingError: DATA_LOSS, naming the first file that is missing or another one.
    """
    file = version / DIGESTS
    if not file.exists():
        if (version / "assets" / "schema.json").exists():  # of ours, exported before there were any
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
        found = sha256_file(path)
        if found != expected:
            raise _lost(
                f"Expected the {name} that was exported in {version} (SHA-256 {expected[:12]}), "
                f"found another one ({found[:12]})"
            )


def _lost(message: str) -> ServingError:
    return ServingError(Code.DATA_LOSS, f"{message}: {_FIX}")
