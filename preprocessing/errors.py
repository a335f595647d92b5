"""The one exception for mistakes that a user can mend."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator


class UserError(Exception):
    """A user's mistake: printed as one line, without a stack trace.

    The message says what was expected, what was found and where; `fix` says what to do about it.

    Args:
        message: What was expected, what was found, where.
        fix: The next thing to try, in the imperative.
    """

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(f"{message} Fix: {fix}" if fix else message)


_LINE = 300


def one_line(error: BaseException | str) -> str:
    """An exception's kind and what it says, or a text: one line that ends with a full stop."""
    words = " ".join(str(error).split())
    if not isinstance(error, str):
        words = f"{type(error).__name__}{f': {words}' if words else ''}"
    return f"{words[:_LINE]} ..." if len(words) > _LINE else words.rstrip(".") + "."


_WRITE_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EIO,
)
_ERRNO = re.compile(r"\[[Ee]rrno (\d+)\]")


@contextlib.contextmanager
def explained_write_errors(flag: str, target: object, left: str = "") -> Iterator[None]:
    """Turns what a full or write-protected disk raises into a `UserError`.

    Args:
        flag: Where the user said what to write.
        target: What is written.
        left: A sentence on what is there now.

    Raises:
        UserError: In place of an `OSError`, or of an exception that quotes one: workers send their
            errors as text, and Arrow has exceptions of its own.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        codes = [error.errno] if isinstance(error, OSError) and error.errno else []
        codes += map(int, _ERRNO.findall(str(error)))
        if not set(codes) & set(_WRITE_ERRORS):
            raise
        raise UserError(
            f"{flag}: expected to write {target}, found: {os.strerror(codes[-1])}."
            f"{' ' * bool(left)}{left}",
            "free space or rights there, or choose another place.",
        ) from error
