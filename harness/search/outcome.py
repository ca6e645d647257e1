"""What a search leaves behind: tables of its trials, the best configuration, an ablation that
compares it with the base, and Optuna's figures of the study."""

from __future__ import annotations

import csv
import io
import json
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization.matplotlib import (
    plot_optimization_history,
    plot_param_importances,
    plot_slice,
)

from harness.config.serialisation import plain_to_yaml, to_yaml
from harness.machine.files import atomic_path, write_text
from harness.search.config import SearchSpec, config_at, differences_at
from harness.search.study import AGAIN_OF, REASON, SCORES, WORKER, current

TRIALS_CSV = "trials.csv"
TABLE_MARKDOWN = "table.md"
BEST_CONFIG = "best.yaml"
HISTORY = "optimization_history.png"
SLICE = "slice.png"
IMPORTANCES = "param_importances.png"
ROWS = 10
LOST_WORKER = "its worker died, several times"
FEWEST_FOR_IMPORTANCE = 10
"""PED-ANOVA compares the best tenth of the trials with all of them."""
_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def best_first(spec: SearchSpec, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The completed trials, the best one first."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return sorted(complete, key=lambda trial: trial.value or 0.0, reverse=spec.objective.maximize)


def summary(trials: Sequence[FrozenTrial]) -> str:
    """`30 trials: 18 complete, 11 pruned, 1 failed`."""
    states = Counter(trial.state for trial in current(trials))
    parts = [f"{states[state]} {word}" for state, word in _STATES.items() if states[state]]
    return f"{states.total()} trials: {', '.join(parts)}"


def failures(trials: Sequence[FrozenTrial]) -> list[str]:
    """A line for each reason that trials failed for, the most frequent first."""
    failed = [trial for trial in current(trials) if trial.state == TrialState.FAIL]
    reasons = Counter(trial.user_attrs.get(REASON, LOST_WORKER) for trial in failed)
    return [f"{count} failed: {reason}" for reason, count in reasons.most_common()]


def markdown_table(spec: SearchSpec, trials: Sequence[FrozenTrial]) -> str:
    """The best trials, a row each, and the base configuration where it is not among them."""
    ranked = best_first(spec, trials)
    shown = ranked[:ROWS]
    shown += [trial for trial in ranked[ROWS:] if trial.params == spec.default]
    mean = f"{spec.metric} ({'higher' if spec.objective.maximize else 'lower'} is better)"
    heads = ["trial", mean, *(f"seed {seed}" for seed in spec.seeds), *spec.space]
    rows: list[list[object]] = [[*heads], ["---"] * len(heads)]
    for trial in shown:
        name = f"{trial.number} (base)" if trial.params == spec.default else str(trial.number)
        varied = [trial.params[key] for key in spec.space]
        rows.append([name, trial.value, *_scores(trial, spec), *varied])
    return "".join(f"| {' | '.join(map(_shown, row))} |\n" for row in rows)


def write_outcome(spec: SearchSpec, trials: Sequence[FrozenTrial]) -> list[Path]:
    """Write the tables and, once a trial has completed, the best configuration and its ablation."""
    folder = spec.path
    written = {TRIALS_CSV: _csv(spec, trials)}
    if ranked := best_first(spec, trials):
        best = ranked[0]
        written[TABLE_MARKDOWN] = markdown_table(spec, trials)
        config = config_at(spec.tree, best.params, spec.seeds[0], f"trial {best.number}")
        written[BEST_CONFIG] = (
            f"# Trial {best.number} of the search {spec.name} at {spec.scale}, whose mean "
            f"{spec.metric} over seeds {_listed(spec.seeds)} is {best.value:.6g}\n"
            f"{to_yaml(config)}"
        )
        written[ablation_file(spec)] = _ablation(spec, best)
    for name, text in written.items():
        write_text(folder / name, text)
    return [folder / name for name in written]


def ablation_file(spec: SearchSpec) -> str:
    """The name of the file that compares the best configuration with the base."""
    return f"{spec.name}_best.yaml"


def _ablation(spec: SearchSpec, best: FrozenTrial) -> str:
    name = ablation_file(spec).removesuffix(".yaml")
    variants = {"default": spec.differences}
    if best.params != spec.default:
        variants["best"] = differences_at(spec.differences, best.params)
    # A configuration chosen for its figures with some seeds looks better with them than it is.
    first = max(spec.seeds) + 1
    seeds = list(range(first, first + max(len(spec.seeds), 2)))
    content: dict[str, Any] = {
        "question": f"Is the best configuration of the search {spec.name} better than its base?",
        "baseline": "default",
        "seeds": seeds,
        "variants": variants,
    }
    return (
        f"# Question: does what {spec.name} found hold with seeds that it did not see?\n"
        f"# Command:  make ablation EXP={name} SCALE={spec.scale}\n"
        f"# Time:     that of {len(seeds) * len(variants)} trials\n"
        f"# Found:    not yet run; trial {best.number}'s {spec.metric} was {best.value:.6g} over "
        f"seeds {_listed(spec.seeds)}\n\n{plain_to_yaml(content)}"
    )


def _csv(spec: SearchSpec, trials: Sequence[FrozenTrial]) -> str:
    """All trials, raw values, one a row."""
    seeds = [f"{spec.metric}_seed{seed}" for seed in spec.seeds]
    heads = ["trial", "state", spec.metric, *seeds, *spec.space]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*heads, "seconds", "host", "takes_the_place_of", "reason"])
    for trial in trials:
        unknown = "its worker ended" if trial.state == TrialState.FAIL else ""
        cells = [
            trial.number,
            trial.state.name,
            trial.value if trial.state == TrialState.COMPLETE else None,
            *_scores(trial, spec),
            *(trial.params.get(key) for key in spec.space),
            None if trial.duration is None else trial.duration.total_seconds(),
            trial.user_attrs.get(WORKER, {}).get("host"),
            " ".join(str(number) for number in trial.user_attrs.get(AGAIN_OF, ())),
            trial.user_attrs.get(REASON, unknown),
        ]
        writer.writerow(cells)
    return file.getvalue()


def _scores(trial: FrozenTrial, spec: SearchSpec) -> list[float | None]:
    """The trial's value with each seed; None for those that it did not come to."""
    scores = json.loads(trial.user_attrs.get(SCORES, "{}"))
    return [scores.get(str(seed)) for seed in spec.seeds]


def _shown(cell: object) -> str:
    if isinstance(cell, float):
        return f"{cell:.5g}"
    return "" if cell is None else str(cell).replace("|", "\\|")


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def write_figures(
    study: optuna.Study, metric: str, folder: Path, on_notice: Callable[[str], None]
) -> list[Path]:
    """Draw what the study has enough completed trials for; the rest is left out with a notice."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        return []
    count = len(complete[0].params)
    written = [
        _save(folder / HISTORY, lambda: plot_optimization_history(study, target_name=metric)),
        _save(folder / SLICE, lambda: plot_slice(study, target_name=metric), panels=count),
    ]
    if len(complete) < FEWEST_FOR_IMPORTANCE:
        on_notice(
            f"No importances of the fields yet: {len(complete)} trials are complete, and fewer "
            f"than {FEWEST_FOR_IMPORTANCE} say nothing about them"
        )
    else:
        written.append(_save(folder / IMPORTANCES, lambda: plot_param_importances(study)))
    return written


def _save(path: Path, plot: Callable[[], Any], panels: int = 1) -> Path:
    from matplotlib import pyplot

    # Optuna's figures switch the style of all later ones, and draw with pyplot.
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        # The first trial alone has one value on each axis; matplotlib widens these by itself.
        warnings.filterwarnings("ignore", "Attempting to set identical")
        pyplot.switch_backend("agg")
        figure = np.ravel(np.asarray(plot(), dtype=object))[0].figure
        figure.set_size_inches(max(7.0, 4.0 * panels), 4.5)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150, bbox_inches="tight")
        pyplot.close(figure)
    return path
