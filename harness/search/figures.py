"""A study's figures: how the best value came down, which fields matter, each field on its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState
from optuna.visualization.matplotlib import (
    plot_optimization_history,
    plot_param_importances,
    plot_slice,
)

from harness.machine.files import atomic_path

FEWEST_FOR_IMPORTANCE = 10
"""PED-ANOVA compares the best tenth of the trials with all of them."""

HISTORY = "optimization_history.png"
SLICE = "slice.png"
IMPORTANCES = "param_importances.png"


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
        pyplot.switch_backend("agg")
        figure = np.ravel(np.asarray(plot(), dtype=object))[0].figure
        figure.set_size_inches(max(7.0, 4.0 * panels), 4.5)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150, bbox_inches="tight")
        pyplot.close(figure)
    return path
