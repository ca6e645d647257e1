"""The command line. It parses, calls one function and prints; heavy imports wait for a command.

One module a command: `add` describes it, and imports what it needs only when it runs.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from benchmarks import __main__ as benchmark
from harness.cli import ablation, data, evaluate, search
from harness.cli import ablation as cancel
from harness.cli import ablation as config
from harness.cli import ablation as report
from harness.cli import ablation as retry
from harness.cli import ablation as status
from harness.cli import listing as list_experiments
from harness.cli import trained as convert
from harness.cli import trained as export
from harness.cli import trained as probe
from harness.cli.options import BAD_INPUT, FAILED, INTERRUPTED
from harness.machine.files import full_disk_as_user_error
from models.errors import UserError

_COMMANDS = (
    ablation,
    search,
    list_experiments,
    config,
    report,
    status,
    cancel,
    retry,
    data,
    evaluate,
    probe,
    export,
    convert,
    benchmark,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or 1 where trials failed, 2 where the input is wrong, 130 after Ctrl-C.
    """
    options = _parse(arguments)
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


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Overrides may stand before and after options, which argparse alone does not take."""
    parser = _parser()
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
    for command in _COMMANDS:
        command.add(commands)
    return parser
