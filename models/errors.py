"""The one exception type that reaches a user as a plain message."""


class UserError(Exception):
    """A mistake that the user can mend.

    The message says which file or key is wrong, what was expected and what would fix it. The
    command line prints it without a traceback and exits with code 2.
    """
