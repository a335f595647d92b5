"""Writes the report of a run: the model, its quality, and its training.

    python -m models.report --run=RUN [--output=RUN/report.html]

Two files with the same content: report.html (self-contained, no network) and report.md. Sections
without content, for example without self-supervision or a test split, are left out.
"""

import sys

from absl import flags

from models.core import run_directory
from preprocessing import cli


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("run", None, "Run directory of ctr-train.", required=True)
    flags.DEFINE_string("output", None, "HTML file (default: RUN/report.html).")


def main() -> None:
    """Writes the report and prints its path."""
    run_dir = run_directory.require_run(flags.FLAGS.run)
    output = flags.FLAGS.output or run_dir / "report.html"
    # Loads TensorFlow, for which a wrong path need not wait.
    from models.reporting.run_report import write_report

    sys.stdout.write(f"report: {write_report(run_dir, output)}\n")


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
