"""The command line. It parses, calls one function and prints; heavy imports wait for a command."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.paths import EXPERIMENTS, ROOT
from models.errors import UserError

if TYPE_CHECKING:
    from harness.config.catalogue import Listed
    from harness.config.expansion import Ablation
    from harness.config.schema import ClusterConfig

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, or 1 where trials failed, 2 where the input is wrong, 130 after Ctrl-C.
    """
    options = _parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        return int(options.command(options))
    except UserError as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted: the same command resumes where this one stopped", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


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
    for add in (
        _add_ablation,
        _add_list,
        _add_config,
        _add_report,
        _add_probe,
        _add_export,
        _add_convert,
    ):
        add(commands)
    return parser


_Commands = argparse._SubParsersAction


def _add_ablation(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "ablation",
        help="train, sample and measure every variant with every seed, then compare",
        description="Train, sample and measure every variant with every seed; write all to MLflow "
        "and the comparison to RUNS_DIR/reports. Finished trials are reused and interrupted ones "
        "resumed, so the command can be repeated at any time.",
        epilog="Example: python -m harness ablation no_differential --seeds 3 train.steps=200",
    )
    _add_selection(command)
    command.set_defaults(command=_ablation)


def _add_list(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "list",
        help="list ablations, scales and attention variants, each with its question",
        description="List ablations, scales and attention variants, each with its question.",
    )
    _add_experiments_dir(command)
    command.set_defaults(command=_list)


def _add_config(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "config",
        help="print the resolved trials and their hashes, and run nothing",
        description="Print the resolved trials of an ablation and their hashes; run nothing.",
    )
    _add_selection(command)
    command.set_defaults(command=_config)


def _add_report(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "report",
        help="rebuild the tables and figures of an ablation from MLflow",
        description="Rebuild the tables and figures of an ablation from MLflow alone; train "
        "nothing.",
    )
    command.add_argument("name", metavar="NAME", help="an ablation that was run before")
    command.add_argument("--scale", default="digits", help="how big: a file in experiments/scale")
    _add_runs_dir(command)
    command.set_defaults(command=_report)


def _add_probe(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "probe",
        help="measure how smooth the attention of a trained trial is, layer by layer",
        description="Measure the attention of a trained trial on noised held-out images: row "
        "entropy, effective rank and token similarity of each layer, head and timestep, and how "
        "its routers choose. Prints means and writes all figures as CSV and PNG to the trial's "
        "folder.",
        epilog="Example: python -m harness probe runs/digits/dydila/seed0-0123456789ab",
    )
    command.add_argument("run", metavar="RUN", help="a trial's folder, or its run id in MLflow")
    command.add_argument(
        "--images", type=int, metavar="N", help="held-out images (default: as in the trial)"
    )
    command.add_argument(
        "--timesteps", type=int, metavar="N", help="noise levels (default: as in the trial)"
    )
    _add_runs_dir(command)
    command.set_defaults(command=_probe)


def _add_export(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "export",
        help="write a trained network as model.safetensors and model.json",
        description="Write the EMA weights of a trained trial as OUT/model.safetensors, and what "
        "builds the network as OUT/model.json; harness.training.export.load_exported(OUT) reads "
        "both.",
        epilog="Example: python -m harness export runs/digits/dydila/seed0-0123456789ab exported",
    )
    command.add_argument("run", metavar="RUN", help="a trial's folder, or its run id in MLflow")
    command.add_argument("out", metavar="OUT", type=Path, help="the folder to write")
    _add_runs_dir(command)
    command.set_defaults(command=_export)


def _add_convert(commands: _Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "convert",
        help="turn a published DiT checkpoint into an exported model, or back",
        description="Turn a checkpoint in the layout of facebookresearch/DiT (.pt, .pth or "
        ".safetensors) into an exported model, as `export` writes it, or an exported model with "
        "softmax attention and without a convolution of V into such a checkpoint.",
        epilog="Examples: python -m harness convert DiT-XL-2-256x256.pt dit; "
        "python -m harness convert dit DiT-XL-2-256x256.safetensors",
    )
    command.add_argument(
        "source", metavar="SOURCE", type=Path, help="a checkpoint, or the folder of an export"
    )
    command.add_argument("out", metavar="OUT", type=Path, help="the folder or checkpoint to write")
    command.add_argument(
        "--heads",
        type=int,
        metavar="N",
        help="of the checkpoint's attention, where its width and depth are none of DiT's sizes",
    )
    command.set_defaults(command=_convert)


def _add_selection(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "name", metavar="NAME", help="a file in experiments/ablation; `list` shows all"
    )
    command.add_argument(
        "overrides",
        metavar="KEY=VALUE",
        nargs="*",
        help="change a field for every variant, such as train.steps=200; for where trials run, "
        "such as cluster.workers=1",
    )
    command.add_argument("--scale", default="digits", help="how big: a file in experiments/scale")
    command.add_argument(
        "--seeds", type=int, metavar="N", help="run seeds 0 to N-1 instead of the ablation's own"
    )
    command.add_argument(
        "--cluster", default="local", help="where trials run: a file in experiments/cluster"
    )
    _add_runs_dir(command)
    _add_experiments_dir(command)


def _add_runs_dir(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--runs-dir",
        type=Path,
        default=ROOT / "runs",
        help="where trials and reports are written (default: runs/ in the repository)",
    )


def _add_experiments_dir(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--experiments-dir",
        type=Path,
        default=EXPERIMENTS,
        help="the folder of YAML files (default: experiments/ in the repository)",
    )


def _ablation(options: argparse.Namespace) -> int:
    from rich.console import Console

    from harness.ablation import run_ablation

    ablation, cluster = _load(options)
    failed = run_ablation(ablation, cluster, options.runs_dir, Console())
    if failed and all(result.caused_by_user for result in failed):
        return EXIT_BAD_INPUT
    return EXIT_FAILED if failed else 0


def _list(options: argparse.Namespace) -> int:
    from harness.config.catalogue import list_ablations, list_scales
    from models.attention import load_variant, variant_names

    folder = options.experiments_dir
    variants = [(name, load_variant(name).question) for name in variant_names()]
    sections = {
        "Ablations (make ablation EXP=...)": _catalogue_rows(list_ablations(folder)),
        "Scales (SCALE=...)": _catalogue_rows(list_scales(folder)),
        "Attention variants (attention.name)": variants,
    }
    for title, rows in sections.items():
        print(title)
        width = max((len(name) for name, _ in rows), default=0)
        for name, about in rows:
            print(f"  {name:<{width}}  {about}")
        print()
    return 0


def _config(options: argparse.Namespace) -> int:
    from harness.config.serialisation import to_yaml

    ablation, _ = _load(options)
    print(f"# {ablation.name} at {ablation.scale}: {ablation.question}")
    print(f"# {len(ablation.trials)} trials; the others are compared with {ablation.baseline}")
    for trial in ablation.trials:
        print("---")
        print(f"# {trial.folder}  (hash {trial.hash}, weights {trial.training_hash})")
        print(to_yaml(trial.config).rstrip())
    return 0


def _report(options: argparse.Namespace) -> int:
    from rich.console import Console

    from harness.ablation import rebuild_report

    rebuild_report(options.name, options.scale, options.runs_dir, Console())
    return 0


def _probe(options: argparse.Namespace) -> int:
    from rich.console import Console

    from harness.probe_command import probe_run

    probe_run(options.run, options.runs_dir, options.images, options.timesteps, Console())
    return 0


def _export(options: argparse.Namespace) -> int:
    from harness.export_command import export_run

    export_run(options.run, options.runs_dir, options.out)
    print(options.out)
    return 0


def _convert(options: argparse.Namespace) -> int:
    from harness.training.published_dit import convert

    convert(options.source, options.out, options.heads)
    print(options.out)
    return 0


def _load(options: argparse.Namespace) -> tuple[Ablation, ClusterConfig]:
    """The ablation and where it runs, the mistakes of both told at once."""
    from harness.config.expansion import load_ablation, load_cluster
    from harness.config.mistakes import ConfigError, Mistake

    mistakes: list[Mistake] = []
    try:
        cluster = load_cluster(options.cluster, options.overrides, options.experiments_dir)
    except ConfigError as error:
        mistakes += error.mistakes
    try:
        ablation = load_ablation(
            options.name,
            scale=options.scale,
            seeds=options.seeds,
            overrides=options.overrides,
            experiments_dir=options.experiments_dir,
        )
    except ConfigError as error:
        raise ConfigError([*error.mistakes, *mistakes]) from None
    if mistakes:
        raise ConfigError(mistakes)
    return ablation, cluster


def _catalogue_rows(listed: Sequence[Listed]) -> list[tuple[str, str]]:
    return [(item.name, f"broken: {item.error}" if item.error else item.about) for item in listed]
