"""What a configuration says in words that stand beside a trial's figures."""

from __future__ import annotations

from typing import Any

from harness.config.schema import TrialConfig


def sampling_facts(config: TrialConfig) -> dict[str, Any]:
    """How a trial's final samples are drawn, besides the seed."""
    sample = config.sample
    # Only where it is another: figures from before there was a choice are of the last weights.
    best = {"weights": chosen_by(config)} if sample.weights == "best" else {}
    return {
        **best,
        "objective": config.objective.name,
        "sampler": sample.sampler,
        "steps": sample.steps,
        "guidance_scale": sample.guidance_scale,
        "guidance_channels": sample.guidance_channels or "all",
        "labels": sample.labels,
    }


def chosen_by(config: TrialConfig) -> str:
    """By what `best` weights are chosen, in words, for the identity of what is drawn from them."""
    train, metric = config.train, config.train.best_by
    if metric == "validation_loss":
        return f"best by {metric}, every {train.validate_every} steps"
    return (
        f"best by {metric} of {train.validation_samples} samples, "
        f"every {train.steps_between_samples} steps"
    )


def shown_precision(training: str, config: TrialConfig) -> str:
    """What a network was trained in, with what linear attention's products round where they do.

    Args:
        training: Lightning's name of the precision.
        config: of the trial.
    """
    sums = config.model.sum_precision
    return training if sums == "float32" else f"{training}, products of linear attention {sums}"
