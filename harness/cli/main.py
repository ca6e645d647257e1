"""The command line: it parses, calls one function and prints.

What a command needs is imported only when it runs, so that `--help` needs no heavy library.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from harness.cli import ablation, data, evaluate, listing, trained
from harness.cli.options import BAD_INPUT, FAILED, INTERRUPTED, Parser
from harness.machine.files import full_disk_as_user_error
from harness.processes.jobs import RankFailedError
from harness.processes.signals import Interrupted, terminated_like_interrupted
from models.errors import UserError

_OF_TWO_WORDS = (evaluate.BUILD_REFERENCE,)
"""Commands whose first word is a command too. That one takes words of its own, which `argparse`
cannot tell from names of commands."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; `arguments` None takes those of the process.

    Returns:
        0, or 1 if trials or processes failed, 2 if the input is wrong, 130 after Ctrl-C, 143 after
        SIGTERM.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if " ".join(words[:2]) in _OF_TWO_WORDS:
        words[:2] = [" ".join(words[:2])]
    parser: argparse.ArgumentParser = Parser(
        prog="harness",
        description="Fair, repeatable ablations of linear attention in diffusion transformers.",
        epilog="Start with: python -m harness ablation no_differential",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (ablation.add, listing.print_list.add, data.add, evaluate.add, trained.add):
        add(commands)
    return run_command(parser, words)


def run_command(
    parser: argparse.ArgumentParser,
    words: Sequence[str],
    after_interruption: str = "the same command resumes where this one stopped",
) -> int:
    """Call the function that the words choose, which the parser has as `command`, and turn what it
    raises into an exit code of `main`."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        options = _parse(parser, words)
        with terminated_like_interrupted(), full_disk_as_user_error("what this command writes"):
            return int(options.command(options))
    except UserError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except RankFailedError as error:
        print(error, file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as error:
        print(f"interrupted: {after_interruption}", file=sys.stderr)
        return error.exit_code if isinstance(error, Interrupted) else INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        # A place that cannot be read or written, wherever a command meets it first.
        if error.filename is None:
            raise
        print(f"{error.filename}: {error.strerror}; name another place", file=sys.stderr)
        return BAD_INPUT


def _parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Parse; overrides may stand before and after options, which argparse alone does not take."""
    options, left = parser.parse_known_args(words)
    unknown = [word for word in left if word.startswith("-") or "overrides" not in options]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if left:
        options.overrides = [*options.overrides, *left]
    return options
