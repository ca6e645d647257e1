"""The exceptions that end a command or a trial in an orderly way, and error texts of one line."""

from __future__ import annotations

import signal
from collections.abc import Iterator


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


class Detached(Exception):  # noqa: N818 - no error: the jobs go on
    """A command left its jobs to themselves."""

    def __init__(self, jobs: int, *, by_signal: signal.Signals | None = None) -> None:
        """`jobs` are left unfinished; `by_signal` is None where the user wished to detach."""
        super().__init__(f"{jobs} job(s) go on without this command")
        self.jobs = jobs
        self.by_signal = by_signal


def one_line(error: BaseException | str, *, named: bool = False, most: int | None = None) -> str:
    """An error's text in one line, for a message, a log line or a tag.

    Args:
        error: its whole text is taken, with every run of white space as one space; the name of its
            class where it has no text.
        named: put the class's name in front, for errors that are no mistake of the user's.
        most: characters; a longer text ends in three dots.
    """
    text = " ".join(str(error).split())
    if isinstance(error, BaseException):
        kind = type(error).__name__
        text = f"{kind}: {text}" if named and text else text or kind
    return text if most is None or len(text) <= most else f"{text[: most - 3]}..."


def error_chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that led to it, from the last one back."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def first_line(error: BaseException) -> str:
    """The first line of an error's text that holds anything, for libraries whose further lines are
    advice or a trace; the name of its class where it has no text."""
    return one_line(next(filter(str.strip, str(error).splitlines()), "")) or type(error).__name__
