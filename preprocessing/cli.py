"""The common frame of all commands: flags in groups, `--help`, one-line errors, `--debug`.

A command defines its flags and names its usage without TensorFlow, Beam or pandas; its `main` loads
them once the flags are right. So `--help` and mistakes are answered at once.
"""

import contextlib
import difflib
import functools
import logging
import os
import re
import select
import shlex
import shutil
import sys
import textwrap
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from absl import app, flags
from absl import logging as absl_logging

from preprocessing.errors import UserError

Hint = Callable[[str, Sequence[str]], str]
"""Function that suggests what to write instead of a flag that a command does not have, from the
flag's name and the arguments of the command line; "" without a suggestion."""

STOPPED = 130
"""Exit status of a process that Ctrl-C ended, as shells have it."""
_UNREAD = 141
"""Exit status of a process whose reader has gone, as shells have it."""

_MODULE = re.compile(r"\bpython -m (?:models|pipeline|serving)\.(\w+)")
_PROGRAM = "ctr-"
_MISSING = "must have a value other than None"
_ABSL_SAYS = re.compile("^<[^>]*>: |; *repeat this option to specify a list of values$")
_HELP = ("--help", "-help", "-h", "--helpshort", "-helpshort")
_UNGROUPED, _COMMON = "Flags", "Of every command"
_WIDTH, _INDENT = 100, 4

_titles: "weakref.WeakKeyDictionary[flags.Flag[Any], str]" = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def flag_group(title: str) -> Iterator[None]:
    """Flags that are defined in this context stand under a title in `--help`."""
    before = set(flags.FLAGS)
    yield
    for name in set(flags.FLAGS) - before:
        _titles[flags.FLAGS[name]] = title


def title_of(flag: Any) -> str:
    """The group of a flag."""
    return _titles.get(flag, _UNGROUPED)


def is_required(flag: Any) -> bool:
    """Whether a command does not run without the flag."""
    return flag.default is None and any(_MISSING in check.message for check in flag.validators)


def meaning(flag: Any, code: str = "") -> str:
    """What a flag means, and the values that it may have if they are few.

    Args:
        flag: The flag.
        code: Mark before and after a value.
    """
    text = _ABSL_SAYS.sub("", " ".join(flag.help.split()))
    values = [f"{code}{value}{code}" for value in getattr(flag.parser, "enum_values", None) or ()]
    return f"{text} One of {', '.join(values)}." if values else text


def default(flag: Any) -> str:
    """What a flag is if it is not given, as one writes it; "" if that is nothing."""
    if flag.default in (None, "", []):
        return ""
    return flag.default_as_str[1:-1]  # which absl puts into quotation marks


def with_programs(text: str, directory: str = "") -> str:
    """A text with programs for modules: `ctr-train` for `python -m models.train`.

    Args:
        text: The text.
        directory: Where programs are; "" where the shell finds them by their name.
    """

    def program(match: re.Match[str]) -> str:
        return shlex.quote(os.path.join(directory, _PROGRAM + match[1].replace("_", "-")))

    return _MODULE.sub(program, text)


def as_started(text: str) -> str:
    """A text with programs for modules if this process was started as a program."""
    started = sys.argv[0]
    directory, name = os.path.split(started)
    if not name.startswith(_PROGRAM):
        return text
    on_path = shutil.which(name)
    typed = on_path is not None and os.path.realpath(on_path) == os.path.realpath(started)
    return with_programs(text, "" if typed else directory)


def help_text(usage: str) -> str:
    """The answer to `--help`: usage with an example, then all flags of the command in groups."""
    groups: dict[str, list[str]] = {}
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        module = str(flags.FLAGS.find_module_defining_flag(name))
        if not module.startswith("absl.") and module != __name__:
            groups.setdefault(title_of(flag), []).extend(_entry(flag))
    common = [
        "--debug: Show the stack trace of an error and debug log lines.",
        "--help: Show this text; --helpfull shows the flags of libraries as well.",
    ]
    groups[_COMMON] = [" " * 2 + line for line in common]
    sections = ("\n".join([f"{title}:", *lines]) for title, lines in groups.items())
    return "\n\n".join([as_started(usage.strip()), *sections]) + "\n"


def _entry(flag: Any) -> Iterator[str]:
    """The lines of a flag in `--help`."""
    note = " [required]" if is_required(flag) else ""
    note = f" [default: {default(flag)}]" if default(flag) else note
    yield from textwrap.wrap(
        f"--{flag.name}: {meaning(flag)}{note}",
        _WIDTH,
        initial_indent=" " * 2,
        subsequent_indent=" " * (2 + _INDENT),
        break_on_hyphens=False,
    )


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
    directory belongs. Ctrl-C is one line as well, and a reader that has gone, as `head` does, is
    none. Any other exception is a bug of this program and keeps its stack trace.

    Args:
        main: The command. It reads `flags.FLAGS` and returns an exit status or None for success.
        usage: The module docstring, printed by `--help`.
        positional: Name of a flag that may be given as an argument without a name.
        rest: Name of a multi_string flag that collects flags which this command does not have.
        hint: Function that suggests a replacement for a flag which this command does not have.
    """
    flags.DEFINE_bool("debug", False, "Show the stack trace of an error and debug log lines.")
    parse = functools.partial(_parse, usage=usage, positional=positional, rest=rest, hint=hint)
    app.run(lambda argv: _guarded(main, argv), flags_parser=parse)


def _guarded(main: Callable[[], int | None], argv: list[str]) -> int | None:
    """Calls a command with the arguments that no flag takes; returns its exit status."""
    debug = flags.FLAGS.debug
    _set_log_level(debug)
    try:
        if len(argv) > 1:
            raise UserError(
                f"Unexpected argument {argv[1]!r}: this command takes flags only.",
                "write it as --flag=value (see --help).",
            )
        status = main()
        sys.stdout.flush()
        return status
    except UserError as error:
        if debug:
            raise
        sys.stderr.write(as_started(f"error: {error}\n"))
        return 1
    except KeyboardInterrupt:
        if debug:
            raise
        sys.stderr.write("stopped by Ctrl-C\n")
        return STOPPED
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _drop_what_nobody_reads():
            return _UNREAD
        if debug or error.filename is None:
            raise
        sys.stderr.write(
            f"error: Expected {error.filename} to be of use here, found: {error.strerror}. "
            "Fix: check the path, the rights and the space there (--debug says more).\n"
        )
        return 1


def _set_log_level(debug: bool) -> None:
    absl_logging.set_verbosity(absl_logging.DEBUG if debug else absl_logging.WARNING)
    logging.getLogger().setLevel(logging.DEBUG if debug else logging.WARNING)
    # TensorFlow's logger has its own level and handler, and warns of every retracing.
    logging.getLogger("tensorflow").setLevel(logging.DEBUG if debug else logging.ERROR)


def _drop_what_nobody_reads() -> bool:
    """Whether the reader of our output has gone; what is left of the output goes nowhere then."""
    unread = [stream for stream in (sys.stdout, sys.stderr) if _is_unread(stream.fileno())]
    for stream in unread:  # The interpreter flushes them at its end, and would fail as well.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return bool(unread)


def _is_unread(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _parse(
    argv: list[str],
    usage: str = "",
    positional: str | None = None,
    rest: str | None = None,
    hint: Hint | None = None,
) -> list[str]:
    """Parses the command line; returns the program name and the arguments that nothing takes."""
    if any(argument in _HELP for argument in argv[1:]):
        _print(help_text(usage))
        sys.exit(0)
    try:
        remaining = list(flags.FLAGS(argv, known_only=rest is not None))
    except flags.UnrecognizedFlagError as error:
        fix = hint(error.flagname, argv[1:]) if hint else ""
        _refuse(
            f"Unknown command line flag {error.flagname!r}.", fix or similar_flag(error.flagname)
        )
    except flags.Error as error:
        missing = [f"--{name}" for name in flags.FLAGS if _is_missing(flags.FLAGS[name])]
        if missing and _MISSING in str(error):
            _refuse(f"Expected {' and '.join(missing)}, found none.")
        _refuse(" ".join(str(error).split()))
    if rest is not None:
        flags.FLAGS[rest].value = list(flags.FLAGS[rest].value or ()) + remaining[1:]
        return remaining[:1]
    if positional is not None and len(remaining) == 2:
        flags.FLAGS[positional].value = remaining.pop()
    return remaining


def similar_flag(name: str) -> str:
    """A hint on the flag of this command whose name is closest to an unknown one; "" if none is."""
    known = [
        one
        for one in flags.FLAGS
        if not str(flags.FLAGS.find_module_defining_flag(one)).startswith("absl.")
    ]
    close = difflib.get_close_matches(name.replace("-", "_"), known, 1)
    return f"did you mean --{close[0]}?" if close else ""


def _is_missing(flag: Any) -> bool:
    return is_required(flag) and flag.value is None


def _refuse(text: str, fix: str = "") -> NoReturn:
    sys.stderr.write(f"error: {text} Fix: {fix or 'see --help.'}\n")
    sys.exit(1)


def _print(text: str) -> None:
    """Writes a text for which there may be no reader."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_what_nobody_reads()
