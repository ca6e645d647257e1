"""One ablation's report: its tables and figures as files, and a table for the terminal."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.machine.files import write_bytes
from harness.vocabulary import names

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from reports.load import AblationRuns

TABLE_CSV = "table.csv"
TABLE_LATEX = "table.tex"
TABLE_MARKDOWN = "table.md"
SAMPLES = "samples.png"
TRAINING_CURVES = "training_curves.png"
TRADEOFF = "tradeoff.png"
ATTENTION_PROBE = "attention_probe.png"
ROUTING_HEALTH = "routing_health.png"
VALIDATION_SAMPLES = "validation_samples.png"
_CAPTIONS = {
    SAMPLES: "Samples of one seed of each variant: a row a class, a block a variant",
    TRAINING_CURVES: "Validation loss over training",
    VALIDATION_SAMPLES: "Validation samples over training: the same few noises and labels at every "
    "step, means and ranges of the seeds; not to be compared with the table's figures, which are "
    "of other sample counts",
    TRADEOFF: "Quality against cost",
    ATTENTION_PROBE: "Attention on noised held-out images, layer by layer: means over heads and "
    "timesteps, bands over seeds",
    ROUTING_HEALTH: "Routed parts over training: means over routers, bands over seeds, of shares "
    "down to the option chosen least; of gamma and lambda the mean of all learned values, bands "
    "from the smallest to the largest",
}
_DOTS_PER_INCH = 300


@dataclass(frozen=True)
class Report:
    """What was written."""

    console: RenderableType
    """Printed by a `rich.console.Console`."""
    files: tuple[Path, ...]
    notes: tuple[str, ...]
    """What the figures lack and why; what the tables lack stands in these."""


def write_report(
    tracking_uri: str, ablation: str, scale: str, folder: Path, run_id: str | None = None
) -> Report:
    """Read an ablation's runs from MLflow, and nothing else, and write its tables and figures.

    Each file replaces its forerunner in one step; a figure without data is removed.

    Args:
        tracking_uri: of the MLflow store.
        ablation: its name.
        scale: its name, which is the MLflow experiment's.
        folder: written to, and made where it is missing.
        run_id: the ablation's own run in MLflow; left out, the one that was last at work.

    Raises:
        UserError: there are no finished runs, they were not measured alike, or the store cannot be
            read.
    """
    # Imported late: pandas, scipy, matplotlib and MLflow take seconds, and the command line
    # imports this module to say what it can do.
    from reports.comparison import compare
    from reports.figures import curves as lines
    from reports.figures.samples import draw_samples, load_grids
    from reports.figures.tradeoff import draw_tradeoff
    from reports.load import load_ablation
    from reports.tables.console import console_table
    from reports.tables.latex import latex_table
    from reports.tables.markdown import markdown_table

    runs = load_ablation(tracking_uri, ablation, scale, run_id)
    comparison = compare(runs)
    grids, grid_faults = load_grids(runs)
    curves = lines.load_curves(runs, [names.VALIDATION_LOSS])
    validated = lines.load_validation_samples(runs)
    figures = {
        SAMPLES: draw_samples(grids),
        TRAINING_CURVES: lines.draw_training_curves(curves, runs.variants),
        VALIDATION_SAMPLES: lines.draw_validation_samples(validated, runs.variants),
        TRADEOFF: draw_tradeoff(runs, comparison),
        ATTENTION_PROBE: lines.draw_attention_probe(lines.probe_by_layer(runs), runs.variants),
        ROUTING_HEALTH: lines.draw_routing_health(
            lines.load_curves(runs, lines.ROUTING_METRICS), runs.variants
        ),
    }
    contents = {name: _png(figure) for name, figure in figures.items() if figure is not None}
    pictures = {name: _CAPTIONS[name] for name in contents}
    contents |= {
        TABLE_CSV: csv_table(runs).encode(),
        TABLE_LATEX: latex_table(runs, comparison).encode(),
        TABLE_MARKDOWN: markdown_table(runs, comparison, pictures).encode(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        write_bytes(folder / name, content)
    for name in figures.keys() - contents.keys():
        (folder / name).unlink(missing_ok=True)
    return Report(
        console=console_table(runs, comparison),
        files=tuple(folder / name for name in contents),
        notes=(
            *(f"{SAMPLES} {fault}." for fault in grid_faults),
            *([f"No {TRAINING_CURVES}: no validation loss was logged."] if curves.empty else []),
            *([f"No {VALIDATION_SAMPLES}: {validated.fault}."] if validated.fault else []),
        ),
    )


def csv_table(runs: AblationRuns) -> str:
    """Columns `row` (seed, mean or std), `variant`, `seed`, `run_id` and one a metric's key.

    Values are raw, in the unit of the metric's key and with all digits; no figure is an empty
    cell. `seed` and `run_id` are empty in mean and std rows, std is empty for one seed. Metrics of
    single layers, timesteps and routers are left out; MLflow has them.
    """
    import pandas as pd

    from reports.statistics import summarize

    metrics = [metric for metric in runs.metrics if not names.is_detail(metric)]
    rows: list[dict[Any, Any]] = []
    for variant in runs.variants:
        trials = runs.of(variant)
        if trials.empty:
            continue
        rows += trials.assign(row="seed").to_dict("records")
        found = {metric: summary for metric in metrics if (summary := summarize(trials[metric]))}
        means = {key: summary.mean for key, summary in found.items()}
        stds = {key: summary.std for key, summary in found.items()}
        rows += [{"row": "mean", "variant": variant, **means}]
        rows += [{"row": "std", "variant": variant, **stds}]
    table = pd.DataFrame(rows, columns=["row", "variant", "seed", "run_id", *metrics])
    table["seed"] = table["seed"].astype("Int64")
    table[metrics] = table[metrics].astype("float64")
    return table.to_csv(index=False, lineterminator="\n")


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, bbox_inches="tight", pad_inches=0.04)
    return buffer.getvalue()
