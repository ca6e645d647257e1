"""The command line. It parses, calls one function and prints; heavy imports wait for a command.

Each command has a function that adds it, and imports what it needs only when it runs.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from harness.cli import ablation, data, evaluate, listing, search, trained
from harness.cli.options import BAD_INPUT, FAILED, INTERRUPTED
from harness.machine.files import full_disk_as_user_error
from models.errors import UserError

_COMMANDS = (
    ablation.add,
    search.add,
    listing.add,
    ablation.add_config,
    ablation.add_report,
    ablation.add_status,
    ablation.add_cancel,
    ablation.add_retry,
    data.add,
    evaluate.add,
    trained.add_probe,
    trained.add_export,
    trained.add_convert,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or 1 where trials failed, 2 where the input is wrong, 130 after Ctrl-C.
    """
    return run_command(_parser(), arguments)


def run_command(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Call the function that the arguments choose, and turn what it raises into an exit code.

    Args:
        parser: each of its commands has set `command`, a function of the parsed options.
        arguments: None takes those of the process.

    Returns:
        The same codes as `main`.
    """
    options = _parse(parser, arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        with full_disk_as_user_error("what this command writes"):
            return int(options.command(options))
    except UserError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted: the same command resumes where this one stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Overrides may stand before and after options, which argparse alone does not take."""
    options, left = parser.parse_known_args(arguments)
    unknown = [word for word in left if word.startswith("-") or "overrides" not in options]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if left:
        options.overrides += left
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harness",
        description="Fair, repeatable ablations of linear attention in diffusion transformers.",
        epilog="Start with: python -m harness ablation no_differential",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in _COMMANDS:
        add(commands)
    return parser
