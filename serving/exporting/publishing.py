"""The directory that servers read: versions, `models.config` with its labels, removal, rollback.

    OUTPUT/1/ 2/ 3/        versions; servers ignore every other name
    OUTPUT/.withdrawn-4/   a version that a rollback took away
    OUTPUT/models.config   what tensorflow_model_server takes as --model_config_file

`models.config` serves the version labelled `stable`, the one that was stable before it, so that a
rollback needs no load, and the one labelled `canary` if there is one.
"""

import dataclasses
import os
import pathlib
import shutil

from google.protobuf import text_format

from preprocessing.errors import UserError
from preprocessing.storage import files
from serving.tfserving.models import model_config
from serving.tfserving.protos import model_server_config_pb2

CONFIG = "models.config"
STABLE, CANARY = "stable", "canary"
_WITHDRAWN = ".withdrawn-"


@dataclasses.dataclass(frozen=True)
class Publication:
    """What `models.config` says.

    Attributes:
        name: Name of the model in requests.
        base_path: OUTPUT as the server sees it; absolute.
        stable: The version labelled so.
        previous: The version to go back to, also served.
        canary: The version labelled so.
    """

    name: str
    base_path: str
    stable: int | None = None
    previous: int | None = None
    canary: int | None = None

    @property
    def served(self) -> list[int]:
        """All versions that servers hold, in ascending order."""
        versions = (self.stable, self.previous, self.canary)
        return sorted({version for version in versions if version is not None})

    def with_version(self, version: int, *, canary: bool) -> "Publication":
        """With a new version: as the canary, or as stable with the one before at hand."""
        if canary:
            return dataclasses.replace(self, canary=version)
        return dataclasses.replace(self, stable=version, previous=self.stable, canary=None)


def versions(output: pathlib.Path) -> dict[int, pathlib.Path]:
    """The directories of all versions by number."""
    children = output.iterdir() if output.is_dir() else ()
    return {int(child.name): child for child in children if child.name.isdecimal()}


def next_version(output: pathlib.Path) -> int:
    """One more than the highest number ever used, as far as the directory tells."""
    withdrawn = output.glob(f"{_WITHDRAWN}*")
    numbers = {int(path.name.removeprefix(_WITHDRAWN)) for path in withdrawn}
    return max(versions(output).keys() | numbers, default=0) + 1


def live_version(output: pathlib.Path) -> pathlib.Path | None:
    """The version that a new one has to match: the stable one, else the highest complete one."""
    complete = {
        version: path
        for version, path in versions(output).items()
        if (path / "saved_model.pb").exists()
    }
    publication = read(output)
    if publication is not None and publication.stable in complete:
        return complete[publication.stable]
    return complete[max(complete)] if complete else None


def read(output: pathlib.Path) -> Publication | None:
    """What `models.config` says, None if there is none.

    Raises:
        UserError: It is not what `write` writes.
    """
    file = output / CONFIG
    if not file.exists():
        return None
    entries = model_config.read(file).model_config_list.config
    if len(entries) != 1:
        raise UserError(
            f"Expected one model in {file}, found {len(entries)}.",
            f"keep configs of several models outside of {output}.",
        )
    entry = entries[0]
    labels = dict(entry.version_labels)
    stable, canary = labels.get(STABLE), labels.get(CANARY)
    others = set(entry.model_version_policy.specific.versions) - {stable, canary}
    return Publication(entry.name, entry.base_path, stable, max(others, default=None), canary)


def write(output: pathlib.Path, publication: Publication) -> None:
    """Writes `models.config` in one step: readers see the old text or the new one."""
    config = model_server_config_pb2.ModelServerConfig()
    entry = config.model_config_list.config.add(
        name=publication.name, base_path=publication.base_path, model_platform="tensorflow"
    )
    entry.model_version_policy.specific.versions.extend(publication.served)
    for label, version in ((STABLE, publication.stable), (CANARY, publication.canary)):
        if version is not None:
            entry.version_labels[label] = version
    hidden = output / f".{CONFIG}-{os.getpid()}"
    hidden.write_text(text_format.MessageToString(config), encoding="utf-8")
    hidden.replace(output / CONFIG)


def prune(output: pathlib.Path, keep: int) -> list[int]:
    """Removes all but the newest versions and those that `models.config` serves.

    Args:
        output: The directory of versions.
        keep: How many of the newest to keep.

    Returns:
        The versions that were removed.
    """
    publication = read(output)
    served = set(publication.served) if publication else set()
    found = versions(output)
    removed = [version for version in sorted(found)[:-keep] if version not in served]
    for version in removed:
        # Out of sight first: a server must not find half a version.
        hidden = found[version].rename(output / f".removed-{version}-{os.getpid()}")
        shutil.rmtree(hidden)
    return removed


def rollback(
    output: str | pathlib.Path, version: int | None = None, *, withdraw: bool = False
) -> Publication:
    """Labels another version stable, and no version canary.

    Args:
        output: The directory of versions, with `models.config`.
        version: Which; None for the one that was stable before.
        withdraw: Also take all higher versions out of sight of servers that read no
            `models.config` and serve the highest version there is.

    Returns:
        What `models.config` says now.

    Raises:
        UserError: Nothing was published there, or the version is not there (any more).
    """
    files.require_local(output, "--output")
    output = pathlib.Path(output)
    publication = read(output)
    if publication is None:
        raise UserError(
            f"Expected {CONFIG} in {output}, found none.", "name the --output of serving.export."
        )
    found = versions(output)
    target = publication.previous if version is None else version
    if target not in found:
        raise UserError(
            f"Expected a version to go back to in {output}, found "
            f"{'none before the stable one' if target is None else f'no version {target}'}.",
            f"name one that is there with --version: {', '.join(map(str, sorted(found)))}.",
        )
    before = max((other for other in found if other < target), default=None)
    publication = dataclasses.replace(publication, stable=target, previous=before, canary=None)
    write(output, publication)
    if withdraw:
        # The highest last: until then it is served, and none in between is loaded for a moment.
        for newer in sorted(other for other in found if other > target):
            found[newer].rename(output / f"{_WITHDRAWN}{newer}")
    return publication
