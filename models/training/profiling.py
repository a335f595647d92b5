"""Profiles chosen steps for TensorBoard."""

import pathlib
import shlex
import sys

from preprocessing.errors import UserError


class Profile:
    """Writes a TensorBoard profile of the steps `first` to `last`; by default, of no steps.

    Args:
        first: Number of the first step, counted from 1; 0 for no profile.
        last: Number of the last step.
        workdir: Run directory; the profile is written to its `plugins/profile/`.
    """

    def __init__(self, first: int = 0, last: int = 0, workdir: pathlib.Path | None = None) -> None:
        self._first, self._last, self._workdir = first, last, workdir
        self._running = False

    @classmethod
    def parse(cls, text: str | None, workdir: pathlib.Path) -> "Profile":
        """Reads the value of --profile.

        Raises:
            UserError: The value is not of the form FIRST:LAST with 1 <= FIRST <= LAST.
        """
        if text is None:
            return cls()
        first, _, last = text.partition(":")
        if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
            raise UserError(
                f"Expected --profile=FIRST:LAST, numbers of steps from 1, found {text!r}.",
                "for example --profile=21:30.",
            )
        return cls(int(first), int(last), workdir)

    def at(self, step: int) -> None:
        """Starts or ends the profile; called after `step` steps, before the next one."""
        if self._running and step >= self._last:
            self.close()
        elif not self._running and self._first <= step + 1 <= self._last:
            from models.keras import tf

            tf.profiler.experimental.start(str(self._workdir))
            self._running = True

    def steps_ahead(self, step: int) -> int:
        """Number of steps that may run until `at` has to be called again."""
        ahead = [bound - step for bound in (self._first - 1, self._last) if bound > step]
        return min(ahead, default=1 << 30)

    def close(self) -> None:
        """Writes the profile if one is running."""
        if self._running:
            from models.keras import tf

            tf.profiler.experimental.stop()
            self._running = False
            sys.stdout.write(f"profile: tensorboard --logdir={shlex.quote(str(self._workdir))}\n")
