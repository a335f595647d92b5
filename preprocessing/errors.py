"""The one exception for mistakes that a user can mend."""


class UserError(Exception):
    """A user's mistake: printed as one line, without a stack trace.

    The message says what was expected, what was found and where; `fix` says what to do about it.

    Args:
        message: What was expected, what was found, where.
        fix: The next thing to try, in the imperative.
    """

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(f"{message} Fix: {fix}" if fix else message)
