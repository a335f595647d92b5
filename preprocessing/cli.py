"""What every command shares: absl start-up, one-line errors, `--debug`."""

import logging
import sys
from collections.abc import Callable

from absl import app, flags

from preprocessing.errors import UserError


def run(main: Callable[[], int | None], usage: str) -> None:
    """Parses the flags, calls `main` and exits with its status.

    A `UserError` becomes one line on standard error and exit status 1; its stack trace is shown
    with `--debug` only. Anything else is a bug of ours and keeps its stack trace.

    Args:
        main: The command. It reads `flags.FLAGS` and returns an exit status or None for success.
        usage: The module docstring, printed by `--help`.
    """
    flags.DEFINE_bool("debug", False, "Show the stack trace of an error and debug log lines.")

    def guarded(argv: list[str]) -> int | None:
        debug = flags.FLAGS.debug
        logging.getLogger().setLevel(logging.DEBUG if debug else logging.WARNING)
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
            sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
            return 1

    app.usage = lambda *args, **kwargs: _print_usage(usage, *args, **kwargs)
    app.run(guarded)


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
