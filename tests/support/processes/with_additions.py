"""Run a trial that consists of things that the harness does not ship: `with_additions.py FOLDER`.

The packages are given one more folder before anything reads them; nothing else is changed.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

ADDED = Path(__file__).parents[1] / "additions"
PACKAGES = {
    "models.objectives": "objectives",
    "harness.sampling.samplers": "samplers",
    "harness.evaluation.extractors": "extractors",
    "harness.data.sources": "sources",
    "harness.data.datasets": "datasets",
}


def main(folder: Path) -> None:
    """Train, sample and measure for a moment."""
    for package, name in PACKAGES.items():
        importlib.import_module(package).__path__.append(str(ADDED / name))
    from harness.config.load import load_ablation
    from harness.config.serialisation import to_plain
    from harness.data.datasets import bind_content
    from harness.machine.environment import EXPERIMENTS, ROOT
    from harness.processes.progress import ignore_progress
    from harness.trial.run import run_trial
    from harness.trial.spec import TrialSpec

    images = folder / "images"
    images.write_text("NOISE 200")
    overrides = [
        "data.name=packed",
        f"data.path={images}",
        "objective={name: straight}",
        "sample.sampler=jump",
        "sample.steps=1",
        "evaluate.extractor=corner",
        "train.steps=2",
        "train.warmup_steps=0",
        "model.depth=1",
    ]
    ablation = load_ablation(
        "baselines", scale="smoke", seeds=1, overrides=overrides, experiments_dir=EXPERIMENTS
    )
    trial = next(it for it in bind_content(ablation).trials if it.variant == "sana")
    spec = TrialSpec(
        config=to_plain(trial.config),
        variant=trial.variant,
        scale="smoke",
        hash=trial.hash,
        folder=str(folder / "trial"),
        references=str(folder / "references"),
        parent=str(folder / "ablation"),
        store_uri=f"sqlite:///{folder / 'mlflow.db'}",
        root=str(ROOT),
        threads=1,
        side_by_side=1,
    )
    run_trial(spec, ignore_progress)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
