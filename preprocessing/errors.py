"""The one exception for mistakes that a user can mend, and the excerpts of files in messages."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator

_LONGEST_MESSAGE = 2000
_LINE_BREAKS = re.compile(r"[ \t]*[\r\n][ \t\r\n]*")


def shown(value: object, length: int = 200) -> str:
    """The form in which a message, a table or a list of rejected rows shows the content of a file.

    Characters that are not printable become escapes, because a terminal would obey some of them and
    not show the others.

    Args:
        value: A text, bytes (UTF-8, if they are that) or anything with a text form.
        length: Largest length of the result, in characters.
    """
    if isinstance(value, bytes):
        value = value[: 4 * length + 4].decode("utf-8", "backslashreplace")
    text = str(value)
    cut = text[:length]
    if not cut.isprintable():
        cut = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)
    return cut if len(text) <= length and len(cut) <= length else f"{cut[: length - 1]}…"


class UserError(Exception):
    """A user's mistake: printed as one line, without a stack trace.

    The text is one printable line of bounded length, whatever names and file contents it quotes.

    Args:
        message: Sentence that says what was expected, what was found, and where.
        fix: The next thing to try, in the imperative.
    """

    def __init__(self, message: str, fix: str = "") -> None:
        fix = _one_line(f" Fix: {fix}" if fix else "", _LONGEST_MESSAGE // 2)
        super().__init__(_one_line(message, _LONGEST_MESSAGE - len(fix)) + fix)


def _one_line(text: str, length: int) -> str:
    return shown(_LINE_BREAKS.sub(" ", text), length)


_LINE = 300


def one_line(error: BaseException | str) -> str:
    """An exception's type and message, or a text, as one line that ends with a full stop."""
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
    """Turns the error of a full or write-protected disk into a `UserError`.

    Args:
        flag: Flag by which the user named the target.
        target: File or directory that is written.
        left: Sentence on what the failed write leaves behind.

    Raises:
        UserError: The disk raised an `OSError`, or another exception quotes one: workers send
            their errors as text, and Arrow has exceptions of its own.
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
