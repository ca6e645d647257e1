"""Whether speeds and memory of an ablation's trials can be compared at all."""

from __future__ import annotations

from harness.vocabulary import names
from reports.load import AblationRuns

MACHINE_TAGS = {
    names.TAG_DEVICE: "on different devices",
    names.TAG_SIDE_BY_SIDE: "with different numbers of trials side by side",
    names.TAG_PROCESSES: "with different numbers of processes a trial",
}


def machine_differences(runs: AblationRuns) -> tuple[str, ...]:
    """In words, what differs between the machines of the finished trials; empty where alike."""
    return tuple(
        f"{difference} ({', '.join(runs.tag(tag))})"
        for tag, difference in MACHINE_TAGS.items()
        if len(runs.tag(tag)) > 1
    )
