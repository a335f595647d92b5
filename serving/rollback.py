"""Makes another version of an exported model the one that is served.

    python -m serving.rollback --output=WORKDIR/model

Labels the version stable that was stable before, or the one that --version names, and no version
canary. Servers that were started with --model_config_file=WORKDIR/model/models.config follow at
their next look at the file. Servers that were started with --model_base_path serve the highest
version there is: for them --withdraw renames the higher ones, to .withdrawn-VERSION.
"""

import sys

from absl import flags

from preprocessing import cli
from serving.exporting import publishing


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("output", None, "Directory of versions that ctr-export filled.")
    flags.DEFINE_integer("version", None, "Version to serve (default: the one before).", 1)
    flags.DEFINE_bool("withdraw", False, "Rename all higher versions, so that none is served.")
    flags.mark_flag_as_required("output")


def main() -> None:
    """Rolls back and prints the version that is stable now."""
    values = flags.FLAGS
    publication = publishing.rollback(values.output, values.version, withdraw=values.withdraw)
    sys.stdout.write(f"Version {publication.stable} of {publication.name} is stable\n")


def console_main() -> None:
    """Entry point."""
    define_flags()
    cli.run(main, __doc__)


if __name__ == "__main__":
    console_main()
