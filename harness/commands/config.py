"""`harness config`: what would run."""

from __future__ import annotations

import argparse

from harness.cli.options import Commands, add_selection, load_selection


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "config",
        help="print the resolved trials and their hashes, and run nothing",
        description="Print the resolved trials of an ablation and their hashes; run nothing.",
    )
    add_selection(command)
    command.set_defaults(command=_config)


def _config(options: argparse.Namespace) -> int:
    from harness.config.serialisation import to_yaml
    from harness.data.datasets import bind_content
    from models.errors import UserError

    ablation, _ = load_selection(options)
    try:
        ablation = bind_content(ablation)
    except UserError as error:
        print(f"# The hashes are not final, since they depend on data that are not there: {error}")
    print(f"# {ablation.name} at {ablation.scale}: {ablation.question}")
    print(f"# {len(ablation.trials)} trials; the others are compared with {ablation.baseline}")
    for trial in ablation.trials:
        print("---")
        print(f"# {trial.folder}  (hash {trial.hash}, weights {trial.training_hash})")
        print(to_yaml(trial.config).rstrip())
    return 0
