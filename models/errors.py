"""The one exception type that reaches a user as a plain message."""


class UserError(Exception):
    """A mistake that the user can mend.

    The message says which file or key is wrong, what was expected and what would fix it. The
    command line prints it without a traceback and exits with code 2.
    """


class Preempted(Exception):  # noqa: N818 - no error: what was done is kept, and the trial goes on
    """A trial stopped because it was asked to, with all that it did saved."""

    def __init__(self, reason: str, where: str) -> None:
        """`reason` is the signal's name, `where` how far the trial had come."""
        super().__init__(f"stopped by {reason} {where}")
        self.reason = reason
        self.where = where
