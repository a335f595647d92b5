"""The directory that servers read: versions, `models.config` with its labels, removal, rollback.

    OUTPUT/1/ 2/ 3/        versions; servers ignore every other name
    OUTPUT/.withdrawn-4/   a version that a rollback hid
    OUTPUT/models.config   the --model_config_file for tensorflow_model_server

`models.config` serves the version labelled `stable`, the one that was stable before it, so that a
rollback does not have to load a model, and the one labelled `canary` if there is one.
"""

import dataclasses
import os
import pathlib
import shutil

from preprocessing.errors import UserError
from preprocessing.storage import files

CONFIG = "models.config"
STABLE, CANARY = "stable", "canary"
_WITHDRAWN = ".withdrawn-"


@dataclasses.dataclass(frozen=True)
class Publication:
    """Content of `models.config`.

    Attributes:
        name: Name of the model in requests.
        base_path: Absolute path of OUTPUT as the server sees it.
        stable: Version labelled stable.
        previous: Version to roll back to, which is also served.
        canary: Version labelled canary.
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
        """A copy with a new version as canary, or as stable with the old stable one as previous."""
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
    """Directory of the stable version, else of the highest complete version, else None."""
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
    """Reads `models.config`; None if there is none.

    Raises:
        UserError: The file does not have the form that `write` gives it.
    """
    file = output / CONFIG
    if not file.exists():
        return None
    # Loads TensorFlow, for which a wrong path need not wait.
    from serving.tfserving.models import model_config

    entries = model_config.read(file).model_config_list.config
    if len(entries) != 1:
        raise UserError(
            f"Expected one model in {file}, found {len(entries)}.",
            f"keep configs of several models outside of {output}.",
        )
    entry = entries[0]
    labels = dict(entry.version_labels)
    stable, canary = labels.get(STABLE), labels.get(CANARY)
    unlabelled = set(entry.model_version_policy.specific.versions) - {stable, canary}
    return Publication(entry.name, entry.base_path, stable, max(unlabelled, default=None), canary)


def write(output: pathlib.Path, publication: Publication) -> None:
    """Writes `models.config` atomically: readers see the old text or the new one."""
    from google.protobuf import text_format

    from serving.tfserving.protos import model_server_config_pb2

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
        output: Directory of versions.
        keep: Number of newest versions to keep.

    Returns:
        Numbers of the versions that were removed.
    """
    publication = read(output)
    served = set(publication.served) if publication else set()
    directories = versions(output)
    removed = [version for version in sorted(directories)[:-keep] if version not in served]
    for version in removed:
        # Renamed first, so that a server never finds a version with some of its files removed.
        hidden = directories[version].rename(output / f".removed-{version}-{os.getpid()}")
        shutil.rmtree(hidden)
    return removed


def rollback(
    output: str | pathlib.Path, version: int | None = None, *, withdraw: bool = False
) -> Publication:
    """Labels another version stable, and no version canary.

    Args:
        output: Directory of versions, with `models.config`.
        version: Number of the version; None for the one that was stable before.
        withdraw: Whether to also hide all higher versions from servers that read no
            `models.config` and serve the highest version in the directory.

    Returns:
        The new content of `models.config`.

    Raises:
        UserError: Nothing was published in the directory, or the version is not in it (any more).
    """
    files.require_local(output, "--output")
    output = pathlib.Path(output)
    publication = read(output)
    if publication is None:
        raise UserError(
            f"Expected {CONFIG} in {output}, found none.", "name the --output of ctr-export."
        )
    directories = versions(output)
    target = publication.previous if version is None else version
    if target not in directories:
        raise UserError(
            f"Expected a version to go back to in {output}, found "
            f"{'none before the stable one' if target is None else f'no version {target}'}.",
            f"name one that is there with --version: {', '.join(map(str, sorted(directories)))}.",
        )
    previous = max((number for number in directories if number < target), default=None)
    publication = dataclasses.replace(publication, stable=target, previous=previous, canary=None)
    write(output, publication)
    if withdraw:
        # In ascending order: a server keeps serving the highest version until the last rename, and
        # never loads one in between.
        for newer in sorted(number for number in directories if number > target):
            directories[newer].rename(output / f"{_WITHDRAWN}{newer}")
    return publication
