"""Measures what is claimed to be fast, against stated baselines.

    python -m tests.bench --output=bench.json [--only=codec,lazy_adam] [--quick]

Every figure but the seconds of a start and of --help is a ratio: both sides run in turns, five
times each (jobs over whole logs three times), after a first time that does not count. The peers of
training are installed into build/peers, several gigabytes, on the first use. The table shows the
ratio of the best times and that of the medians; bench.json holds the former. A target that is
missed is shown as such, and is no failure of the command: the figures depend on the machine and on
what else it does.
"""

import pathlib

from absl import flags

from preprocessing import cli

from . import runner


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("output", "bench.json", "JSON file to write.")
    flags.DEFINE_list("only", [], "Benchmarks to run (default: all).")
    flags.DEFINE_bool("quick", False, "Smaller sizes, to see that everything runs.")


def main() -> None:
    """Runs the benchmarks that the flags name."""
    values = flags.FLAGS
    runner.run(pathlib.Path(values.output), values.only, values.quick)


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
