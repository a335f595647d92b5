"""The common frame of all commands: absl start-up, one-line errors, `--debug`."""

import functools
import logging
import re
import sys
from collections.abc import Callable, Sequence

from absl import app, flags
from absl import logging as absl_logging

from preprocessing.errors import UserError

_MISSING = re.compile(r"Flag --(\w+) must have a value other than None")

Hint = Callable[[str, Sequence[str]], str]
"""Function that suggests what to write instead of a flag that a command does not have, from the
flag's name and the arguments of the command line; "" without a suggestion."""


def run(
    main: Callable[[], int | None],
    usage: str,
    *,
    positional: str | None = None,
    rest: str | None = None,
    hint: Hint | None = None,
) -> None:
    """Parses the flags, calls `main` and exits with its status.

    A `UserError` becomes one line on standard error and exit status 1; its stack trace is shown
    with `--debug` only. The same holds for an `OSError` about a path, such as a file where a
    directory belongs. Any other exception is a bug of this program and keeps its stack trace.

    Args:
        main: The command. It reads `flags.FLAGS` and returns an exit status or None for success.
        usage: The module docstring, printed by `--help`.
        positional: Name of a flag that may be given as an argument without a name.
        rest: Name of a multi_string flag that collects flags which this command does not have.
        hint: Function that suggests a replacement for a flag which this command does not have.
    """
    flags.DEFINE_bool("debug", False, "Show the stack trace of an error and debug log lines.")

    def guarded(argv: list[str]) -> int | None:
        debug = flags.FLAGS.debug
        level = logging.DEBUG if debug else logging.WARNING
        absl_logging.set_verbosity(absl_logging.DEBUG if debug else absl_logging.WARNING)
        logging.getLogger().setLevel(level)
        # TensorFlow's logger has its own level and handler, and warns of every retracing.
        logging.getLogger("tensorflow").setLevel(logging.DEBUG if debug else logging.ERROR)
        try:
            if len(argv) > 1:
                raise UserError(
                    f"Unexpected argument {argv[1]!r}: this command takes flags only.",
                    "write it as --flag=value (see --help).",
                )
            return main()
        except UserError as error:
            if debug:
                raise
            sys.stderr.write(f"error: {error}\n")
            return 1
        except OSError as error:
            if debug or error.filename is None:
                raise
            sys.stderr.write(
                f"error: Expected {error.filename} to be of use here, found: {error.strerror}. "
                "Fix: check the path, the rights and the space there (--debug says more).\n"
            )
            return 1

    app.usage = functools.partial(_print_usage, usage)  # type: ignore[assignment]
    app.run(guarded, flags_parser=lambda argv: _parse(argv, positional, rest, hint))


def _parse(
    argv: list[str],
    positional: str | None,
    rest: str | None,
    hint: Hint | None,
) -> list[str]:
    """Parses the command line; returns the program name and the arguments that nothing takes."""
    try:
        remaining = list(flags.FLAGS(argv, known_only=rest is not None))
    except flags.UnrecognizedFlagError as error:
        fix = hint(error.flagname, argv[1:]) if hint else ""
        text = f"Unknown command line flag {error.flagname!r}." if fix else f"{error}."
        sys.stderr.write(f"error: {text} Fix: {fix or 'see --help.'}\n")
        sys.exit(1)
    except flags.Error as error:
        missing = _MISSING.findall(str(error))
        text = f"Expected --{' and --'.join(missing)}, found none." if missing else str(error)
        sys.stderr.write(f"error: {' '.join(text.split())} Fix: see --help.\n")
        sys.exit(1)
    if rest is not None:
        flags.FLAGS[rest].value = list(flags.FLAGS[rest].value or ()) + remaining[1:]
        return remaining[:1]
    if positional is not None and len(remaining) == 2:
        flags.FLAGS[positional].value = remaining.pop()
    return remaining


def _print_usage(
    usage: str,
    shorthelp: bool = False,
    writeto_stdout: bool = False,
    detailed_error: object = None,
    exitcode: int | None = None,
) -> None:
    """Prints the module docstring and the flags, in place of absl's listing of `__main__`."""
    out = sys.stdout if writeto_stdout else sys.stderr
    if detailed_error:
        out.write(f"error: {detailed_error}\n")
    else:
        out.write(f"{usage.strip()}\n\n{flags.FLAGS.main_module_help()}\n")
    if exitcode is not None:
        sys.exit(exitcode)
