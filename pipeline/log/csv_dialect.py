"""The dialect of a CSV file: its delimiter, its escape character and its header."""

import dataclasses
import re

from preprocessing.errors import UserError

_NAMED = {"tab": "\t", "\\t": "\t"}
_RESERVED = ('"', "\r", "\n", "\0")
_DELIMITERS = "\t;|,"


@dataclasses.dataclass(frozen=True)
class Dialect:
    """The dialect of a CSV file, which otherwise follows RFC 4180.

    Within quotation marks a quotation mark is written twice, or behind the escape if there is one.
    An escape makes the character behind it part of the value if that is a quotation mark, a
    delimiter, a line break or another escape; before anything else it stands for itself (Spark).
    A value that is an escape and an N is missing (MySQL, Hive).

    Attributes:
        delimiter: One ASCII character.
        escape: One ASCII character, or None.
        header: Columns of a file without a header, in order; None if the file names them.
    """

    delimiter: str = ","
    escape: str | None = None
    header: tuple[str, ...] | None = None

    @classmethod
    def from_flags(cls, delimiter: str, escape: str | None) -> "Dialect":
        r"""The dialect that --csv_delimiter and --csv_escape name.

        Args:
            delimiter: A character, `tab` or `\t`.
            escape: A character, or None.

        Raises:
            UserError: Either is not a single ASCII character, or both are the same.
        """
        delimiter = _NAMED.get(delimiter.lower(), delimiter)
        for flag, value, example in (
            ("csv_delimiter", delimiter, "tab"),
            ("csv_escape", escape, r"'\'"),
        ):
            if value is None:
                continue
            if len(value) != 1 or not value.isascii() or value in _RESERVED:
                raise UserError(
                    f"--{flag}: expected one ASCII character other than a quotation mark (which "
                    f"needs no flag if it is written twice) or a line break, found {value!r}.",
                    f"for example --{flag}={example}",
                )
        if delimiter == escape:
            raise UserError(
                f"--csv_escape: expected another character than the delimiter, found {escape!r}."
            )
        return cls(delimiter, escape)

    def hint(self, record: bytes) -> str:
        r"""Addition to the reason why a record is bad, if it may need another dialect; else empty.

        Args:
            record: Bytes of the record, or the first of them.
        """
        special = rb'\\(?:["%b]|$)' % re.escape(self.delimiter.encode())
        if self.escape is None and re.search(special, record, re.MULTILINE):
            return r" (a backslash in it may be an escape: --csv_escape='\')"
        return ""

    def other_delimiter(self, names: list[str]) -> str:
        """The flag that names another delimiter, if a header seems to have one; else empty.

        Args:
            names: Columns of the header, as read in this dialect.
        """
        if len(names) == 1:
            for delimiter in _DELIMITERS:
                if delimiter != self.delimiter and delimiter in names[0]:
                    return f"--csv_delimiter={'tab' if delimiter == chr(9) else repr(delimiter)}"
        return ""
