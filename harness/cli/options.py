"""What commands share: how a parser speaks, options that several commands take, and exit codes."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeAlias, TypeVar

from harness.machine.environment import EXPERIMENTS, RUNS
from models.errors import UserError

if TYPE_CHECKING:
    from harness.config.cluster import ClusterConfig
    from harness.config.load import Ablation

FAILED = 1
"""The exit code where a trial or a process failed."""

BAD_INPUT = 2
"""The exit code after a mistake that the user can mend."""

INTERRUPTED = 130
"""The exit code after Ctrl-C. Another signal gives 128 and its number as well: 143 for SIGTERM."""

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

What = TypeVar("What")
Spec = TypeVar("Spec")


class Parser(argparse.ArgumentParser):
    """A parser that tells a mistake in one line, without the list of all options."""

    def error(self, message: str) -> NoReturn:
        """Refuse what was typed.

        Raises:
            UserError: always.
        """
        told = message.removeprefix("argument ").replace(": is ", " is ", 1)
        raise UserError(f"{self.prog}: {told}; see {self.prog} --help")


class _Help(argparse.HelpFormatter):
    """Names the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        untold = action.default is None or isinstance(action.default, bool) or "(default" in text
        if untold or not action.option_strings or action.default == argparse.SUPPRESS:
            return text
        return f"{text} (default: %(default)s)"


def add_command(
    commands: Commands,
    run: Callable[[argparse.Namespace], int],
    *add_options: Callable[[argparse.ArgumentParser], None],
    name: str | None = None,
) -> None:
    """Add a command, whose name and help are those of a function.

    Args:
        commands: of a parser.
        run: gets the parsed options and returns the exit code. Its name is the command's, and the
            paragraphs of its docstring are a line for the list of commands, a description, and
            perhaps an example.
        add_options: each adds options, in the order of the help.
        name: of the command, if it is another than the function's.
    """
    paragraphs = [" ".join(part.split()) for part in (run.__doc__ or "").split("\n\n")]
    example = paragraphs.pop() if paragraphs[-1].startswith("Example") else None
    summary, *more = paragraphs
    command = commands.add_parser(
        name or run.__name__.replace("_", "-"),
        help=summary[:1].lower() + summary[1:].removesuffix("."),
        description=" ".join([summary, *more]),
        epilog=example,
        formatter_class=_Help,
    )
    for add in add_options:
        add(command)
    command.set_defaults(command=run)


def add_number(
    command: argparse._ActionsContainer,
    option: str,
    default: int | None,
    text: str,
    *,
    least: int = 1,
    field: str | None = None,
    required: bool = False,
) -> None:
    """Add an option that is a whole number, and refuses smaller ones than `least`.

    `field` is the name that the options have it under, if it is another than the option's.
    """

    def read(typed: str) -> int:
        if not typed.removeprefix("-").isdecimal() or int(typed) < least:
            raise argparse.ArgumentTypeError(
                f"is {typed}, but must be a whole number of at least {least}"
            )
        return int(typed)

    command.add_argument(
        option,
        metavar="N",
        type=read,
        default=default,
        help=text,
        dest=field or option.removeprefix("--").replace("-", "_"),
        required=required,
    )


def add_file(command: argparse.ArgumentParser, option: str, text: str) -> None:
    """Add an option that is a path."""
    command.add_argument(option, metavar="FILE", type=Path, help=text)


def spec_of(spec: type[Spec], options: argparse.Namespace) -> Spec:
    """A request, a dataclass, with each field taken from the option of the same name."""
    taken = {}
    for field in dataclasses.fields(spec):  # type: ignore[arg-type]
        value = getattr(options, field.name)
        taken[field.name] = tuple(value) if isinstance(value, list) else value
    return spec(**taken)


def add_selection(command: argparse.ArgumentParser) -> None:
    """Which ablation, at which scale, with which seeds, changed how, and where it lies."""
    command.add_argument(
        "name", metavar="NAME", help="a file in experiments/ablation; `list` shows all"
    )
    add_overrides(
        command,
        "change a field for every variant, such as train.steps=200; for where trials run, such as "
        "cluster.workers=1",
    )
    add_scale(command)
    command.add_argument(
        "--seeds", type=int, metavar="N", help="run seeds 0 to N-1 instead of the ablation's own"
    )
    add_cluster(command)
    add_runs_dir(command)
    add_experiments_dir(command)


def add_overrides(command: argparse.ArgumentParser, text: str) -> None:
    """Fields that are set for this time."""
    command.add_argument("overrides", metavar="KEY=VALUE", nargs="*", default=[], help=text)


def add_scale(command: argparse.ArgumentParser) -> None:
    """How big."""
    command.add_argument("--scale", default="digits", help="how big: a file in experiments/scale")


def add_cluster(command: argparse.ArgumentParser) -> None:
    """Where trials run."""
    command.add_argument(
        "--cluster", default="local", help="where trials run: a file in experiments/cluster"
    )


def add_detach(command: argparse.ArgumentParser) -> None:
    """Whether to stay until all is over."""
    command.add_argument(
        "--detach",
        action="store_true",
        help="with SLURM: leave once the jobs are submitted; the same command watches them again",
    )


def add_runs_dir(command: argparse.ArgumentParser) -> None:
    """The folder of all outputs."""
    command.add_argument(
        "--runs-dir",
        type=_folder,
        default=RUNS,
        help="where trials and reports are written (default: runs/ in the repository)",
    )


def _folder(typed: str) -> Path:
    """A folder that is there, or can be made as far as its name tells."""
    folder = Path(typed)
    try:
        there = _nearest(folder)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"is {typed}: {error.strerror}") from error
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"is {typed}, but {there} is a file: name a folder")
    return folder


def _nearest(folder: Path) -> Path:
    """The folder itself, or the lowest of those above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def check_runs_dir(folder: Path) -> None:
    """See that trials and reports can be written, before any work and without making the folder.

    Raises:
        UserError: they cannot.
    """
    there = _nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(
            f"--runs-dir is {folder}, but nothing can be written in {there} ({error.strerror}): "
            "name a folder of your own"
        ) from error


def add_experiments_dir(command: argparse.ArgumentParser) -> None:
    """The folder of YAML files."""
    command.add_argument(
        "--experiments-dir",
        type=Path,
        default=EXPERIMENTS,
        help="the folder of YAML files (default: experiments/ in the repository)",
    )


def add_device(command: argparse.ArgumentParser) -> None:
    """CPU or GPU."""
    command.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto takes a GPU if there is one",
    )


def add_extraction(command: argparse.ArgumentParser, default: str | None, shown: str) -> None:
    """Which features of images, and where and how they are computed."""
    command.add_argument(
        "--extractor",
        metavar="NAME",
        default=default,
        help=f"inception, efficientnet_lite0 or torch:MODEL, a model of timm (default: {shown})",
    )
    add_file(
        command,
        "--extractor-weights",
        "weights for inception instead of the standard ones, or for torch:MODEL",
    )
    add_number(
        command,
        "--extractor-size",
        None,
        "pixels a side that torch:MODEL sees (default: 224 for DINOv2, or else timm's)",
        least=16,
    )
    add_number(command, "--batch-size", 64, "images seen at once")
    add_device(command)
    add_number(
        command,
        "--processes",
        1,
        "share the extraction out among N processes on this machine, which take GPUs in turn and "
        "share the cores; torchrun can start them instead",
    )


def load_selected_ablation(options: argparse.Namespace) -> Ablation:
    """The ablation of `add_selection`, for commands to which it does not matter where it runs.

    Raises:
        ConfigError: with all mistakes.
    """
    from harness.config.load import load_ablation

    return load_ablation(
        options.name,
        scale=options.scale,
        seeds=options.seeds,
        overrides=options.overrides,
        experiments_dir=options.experiments_dir,
    )


def load_selection(options: argparse.Namespace) -> tuple[Ablation, ClusterConfig]:
    """The ablation of `add_selection`, and where it runs.

    Raises:
        ConfigError: with all mistakes of both.
    """
    return load_with_cluster(lambda: load_selected_ablation(options), options)


def load_with_cluster(
    load: Callable[[], What], options: argparse.Namespace
) -> tuple[What, ClusterConfig]:
    """What `load` gives, and the cluster of the options.

    Raises:
        ConfigError: with all mistakes of both.
    """
    from harness.config.load import load_cluster
    from harness.config.mistakes import ConfigError, Mistake

    mistakes: list[Mistake] = []
    try:
        cluster = load_cluster(options.cluster, options.overrides, options.experiments_dir)
    except ConfigError as error:
        mistakes += error.mistakes
    try:
        loaded = load()
    except ConfigError as error:
        raise ConfigError([*error.mistakes, *mistakes]) from None
    if mistakes:
        raise ConfigError(mistakes)
    return loaded, cluster
