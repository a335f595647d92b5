"""The output directory of a build: what an earlier one has left there goes, or is resumed."""

import re

from pipeline.arguments import BuildArguments
from pipeline.requests import tails
from preprocessing import data_dir
from preprocessing.errors import UserError
from preprocessing.storage import files
from preprocessing.storage.files import AnyPath, remove_tree

REJECTED = "rejected"
"""Directory of the rows that were rejected, in the output."""

_FILE = r"(train|validation|test)-\d+-of-\d+\.tfrecord\.gz|(schema|manifest|stats)\.json"
_OURS = re.compile(
    rf"_work(-\w+)?|{REJECTED}|vocab|{data_dir.TAILS}|data_card\.(html|md)|{_FILE}|\.({_FILE})\.[0-9a-f]+\.tmp"
)


class OtherBuildError(UserError):
    """An unfinished build that cannot be resumed, since it had other arguments or another log.

    Args:
        work: Directory of the intermediate files of that build.
        changed: Sentence part that says what has changed since.
    """

    def __init__(self, work: AnyPath, changed: str) -> None:
        super().__init__(
            f"--resume: expected the arguments, log and program of the unfinished build in {work}; "
            f"{changed}.",
            "give the arguments of that build, or begin anew without --resume.",
        )
        self.changed = changed


def prepare_output(arguments: BuildArguments) -> None:
    """Makes an empty output directory; removes the files of an earlier build, but no others."""
    output = arguments.output_path
    if output.is_file():
        raise UserError(f"--output: expected a directory, found a file at {output}.")
    output.mkdir(parents=True, exist_ok=True)
    completed = output / data_dir.COMPLETED
    if completed.exists() and not arguments.overwrite:
        raise UserError(
            f"--output: expected no data set in {output}, found a complete one.",
            "choose another directory, or replace it with --overwrite.",
        )
    entries = [path for path in output.iterdir() if path != completed]
    for path in entries:
        if not _OURS.fullmatch(path.name):
            raise UserError(
                f"--output: expected an empty directory or a data set, found {path}.",
                "choose another directory.",
            )
    completed.unlink(missing_ok=True)
    for path in entries:
        if path.is_dir():
            remove_tree(path)
        else:
            path.unlink()
    remove_tree(arguments.work_path)


def remove_cut_files(output: AnyPath) -> None:
    """Removes files that a build or a worker was writing when it died, and leaves complete ones."""
    folders = (data_dir.VOCABULARIES, REJECTED, data_dir.TAILS, f"{data_dir.TAILS}/{tails.COUNTS}")
    for directory in (output, *(output / folder for folder in folders)):
        if directory.is_dir():
            for path in files.children(directory, ".*.tmp"):
                path.unlink()
