"""What commands share: how a parser speaks, options that several commands take, and exit codes."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar

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
Option: TypeAlias = Callable[[argparse._ActionsContainer], object]
"""Adds an option, or a word without dashes, to a command."""
Run: TypeAlias = Callable[[argparse.Namespace], int]
"""Takes the parsed options and returns the exit code."""

What = TypeVar("What")
Spec = TypeVar("Spec")


class Parser(argparse.ArgumentParser):
    """A parser that tells a mistake in one line, without the list of all options."""

    def error(self, message: str) -> NoReturn:
        """Refuse what was typed, as a UserError."""
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


@dataclasses.dataclass(frozen=True)
class Command:
    """A command, whose help is a function's docstring: its paragraphs are a line for the list of
    commands, a description, and perhaps an example."""

    run: Run
    options: tuple[Option, ...]
    """In the order of the help."""
    name: str

    def add(self, commands: Commands) -> None:
        """Add the command to those of a parser."""
        paragraphs = [" ".join(part.split()) for part in (self.run.__doc__ or "").split("\n\n")]
        example = paragraphs.pop() if paragraphs[-1].startswith("Example") else None
        parser = commands.add_parser(
            self.name,
            help=paragraphs[0][:1].lower() + paragraphs[0][1:].removesuffix("."),
            description=" ".join(paragraphs),
            epilog=example,
            formatter_class=_Help,
        )
        for add in self.options:
            add(parser)
        parser.set_defaults(command=self.run)


def command(*options: Option, name: str | None = None) -> Callable[[Run], Command]:
    """Make a function a command with these options, which has the function's name or another."""
    return lambda run: Command(run, options, name or run.__name__.replace("_", "-"))


def option(*names: str, **settings: Any) -> Option:
    """An option or a word, in the terms of `argparse.ArgumentParser.add_argument`."""
    return methodcaller("add_argument", *names, **settings)


def flag(name: str, text: str) -> Option:
    """An option without a value."""
    return option(name, action="store_true", help=text)


def path(name: str, text: str, shown: str = "FILE") -> Option:
    """A path: an option, or, where the name has no dashes, a word."""
    shown = shown if name.startswith("-") else name.upper()
    return option(name, metavar=shown, type=Path, help=text)


def number(
    name: str,
    default: int | None,
    text: str,
    *,
    least: int = 1,
    field: str | None = None,
    required: bool = False,
) -> Option:
    """An option that is a whole number of at least `least`; `field` names it among the options if
    its own name does not."""

    def read(typed: str) -> int:
        if not typed.removeprefix("-").isdecimal() or int(typed) < least:
            raise argparse.ArgumentTypeError(
                f"is {typed}, but must be a whole number of at least {least}"
            )
        return int(typed)

    dest = field or name.removeprefix("--").replace("-", "_")
    return option(
        name, metavar="N", type=read, default=default, help=text, dest=dest, required=required
    )


def one_of(*options: Option) -> Option:
    """Options of which a user may give one."""

    def add(parser: argparse._ActionsContainer) -> None:
        group = parser.add_mutually_exclusive_group()
        for each in options:
            each(group)

    return add


def spec_of(spec: type[Spec], options: argparse.Namespace) -> Spec:
    """A request, a dataclass, with each field taken from the option of the same name."""
    taken = {each.name: getattr(options, each.name) for each in dataclasses.fields(spec)}  # type: ignore[arg-type]
    lists_as_tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in taken.items()}
    return spec(**lists_as_tuples)


def _folder(typed: str) -> Path:
    """A folder that is there, or can be made as far as its name tells."""
    folder = Path(typed)
    try:
        there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    except OSError as error:
        raise argparse.ArgumentTypeError(f"is {typed}: {error.strerror}") from error
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"is {typed}, but {there} is a file: name a folder")
    return folder


def overrides(text: str) -> Option:
    """Fields that are set for this time."""
    return option("overrides", metavar="KEY=VALUE", nargs="*", default=[], help=text)


SCALE = option("--scale", default="digits", help="how big: a file in experiments/scale")
CLUSTER = option(
    "--cluster", default="local", help="where trials run: a file in experiments/cluster"
)
DETACH = flag(
    "--detach", "with SLURM: leave once the jobs are submitted; the same command watches them again"
)
RUNS_DIR = option(
    "--runs-dir",
    type=_folder,
    default=RUNS,
    help="where trials and reports are written (default: runs/ in the repository)",
)
EXPERIMENTS_DIR = option(
    "--experiments-dir",
    type=Path,
    default=EXPERIMENTS,
    help="the folder of YAML files (default: experiments/ in the repository)",
)
DEVICE = option(
    "--device",
    choices=("auto", "cpu", "cuda"),
    default="auto",
    help="auto takes a GPU if there is one",
)
SELECTION = (
    option("name", metavar="NAME", help="a file in experiments/ablation; `list` shows all"),
    overrides(
        "change a field for every variant, such as train.steps=200; for where trials run, such as "
        "cluster.workers=1"
    ),
    SCALE,
    option(
        "--seeds", type=int, metavar="N", help="run seeds 0 to N-1 instead of the ablation's own"
    ),
    CLUSTER,
    RUNS_DIR,
    EXPERIMENTS_DIR,
)
"""Which ablation, at which scale, with which seeds, changed how, and where it lies."""


def extraction(default: str | None, shown: str) -> tuple[Option, ...]:
    """Which features of images, and where and how they are computed."""
    return (
        option(
            "--extractor",
            metavar="NAME",
            default=default,
            help="inception, efficientnet_lite0 or torch:MODEL, a model of timm "
            f"(default: {shown})",
        ),
        path(
            "--extractor-weights",
            "weights for inception instead of the standard ones, or for torch:MODEL",
        ),
        number(
            "--extractor-size",
            None,
            "pixels a side that torch:MODEL sees (default: 224 for DINOv2, or else timm's)",
            least=16,
        ),
        number("--batch-size", 64, "images seen at once"),
        DEVICE,
        number(
            "--processes",
            1,
            "share the extraction out among N processes on this machine, which take GPUs in turn "
            "and share the cores; torchrun can start them instead",
        ),
    )


def load_selected_ablation(options: argparse.Namespace) -> Ablation:
    """The ablation of `SELECTION`; a ConfigError has all mistakes."""
    from harness.config.load import load_ablation

    return load_ablation(
        options.name,
        scale=options.scale,
        seeds=options.seeds,
        overrides=options.overrides,
        experiments_dir=options.experiments_dir,
    )


def load_selection(options: argparse.Namespace) -> tuple[Ablation, ClusterConfig]:
    """The ablation of `SELECTION`, and where it runs; a ConfigError has all mistakes of both."""
    return load_with_cluster(lambda: load_selected_ablation(options), options)


def load_with_cluster(
    load: Callable[[], What], options: argparse.Namespace
) -> tuple[What, ClusterConfig]:
    """What `load` gives, and the cluster of the options; a ConfigError has all mistakes of both."""
    from harness.config.load import load_cluster
    from harness.config.mistakes import ConfigError, Mistake

    mistakes: list[Mistake] = []
    loaded = cluster = None
    try:
        loaded = load()
    except ConfigError as error:
        mistakes += error.mistakes
    try:
        cluster = load_cluster(options.cluster, options.overrides, options.experiments_dir)
    except ConfigError as error:
        mistakes += error.mistakes
    if loaded is None or cluster is None:
        raise ConfigError(mistakes)
    return loaded, cluster
