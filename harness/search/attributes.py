"""What the harness keeps in a study besides points and values: Optuna's user attributes."""

from __future__ import annotations

DEFINITION = "definition"
"""Of the study: all that makes its trials comparable."""
WORKER = "worker"
"""Host and process that run or ran a trial."""
MEMBERS = "trials"
"""JSON of a trial's seeds and the folders of their trainings, below the runs folder."""
SCORES = "scores"
"""JSON of a trial's seeds and their values."""
REASON = "reason"
"""Why a trial failed. A failed one without it lost its worker."""
AGAIN_OF = "again_of"
"""The numbers of the trials that a trial takes the place of."""
CRASHES = "crashes"
"""How many workers died at a trial's point before."""
