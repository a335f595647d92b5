"""A user's mistake that a worker finds, told to the driver through a file of the work directory.

A runner cannot tell a mistake in the log from a machine that broke: it would try again and again,
with pauses, and then report a stack. So the worker that finds one does not fail. It writes the file
and goes on without output, all other pieces of work see the file and do nothing, and the driver
raises the mistake once the pipeline has come to its end.
"""

from preprocessing.errors import UserError
from preprocessing.storage import files
from preprocessing.storage.files import AnyPath

_FILE = "mistake.txt"


def report(work: AnyPath, error: UserError) -> bool:
    """Tells the driver, unless another attempt may help.

    Args:
        work: Work directory of the build.
        error: The mistake.

    Returns:
        Whether it was told; otherwise the worker has to raise it.
    """
    if _may_pass(error):
        return False
    try:
        files.write_bytes(work / _FILE, str(error).encode())
    except (OSError, UserError):
        return False
    return True


def _may_pass(error: UserError) -> bool:
    """Whether a file system or an object store caused the error; damaged content has no number."""
    cause = error.__cause__
    return isinstance(cause, OSError) and (cause.errno is not None or "://" in str(error))


def is_reported(work: AnyPath) -> bool:
    """Whether a worker has reported a mistake, so that all other work is of no use."""
    return (work / _FILE).exists()


def check(work: AnyPath) -> None:
    """Raises the mistake that a worker reported, if one did; of several the last one."""
    if is_reported(work):
        raise UserError((work / _FILE).read_text(encoding="utf-8"))


def forget(work: AnyPath) -> None:
    """Removes what an attempt that was cut off has reported."""
    (work / _FILE).unlink(missing_ok=True)
