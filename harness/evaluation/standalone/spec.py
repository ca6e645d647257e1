"""What `evaluate` is asked to measure and to write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.vocabulary.metrics import Measurement

DEFAULT_SPLITS = 10
"""Of the Inception score. With fewer samples it is left out, and said so; other numbers of splits
are asked for, so they are refused then."""


@dataclass(frozen=True)
class EvaluateSpec:
    """What to measure, as the command line names it."""

    samples: str
    """A folder of images, an `.npz`, a `.npy`, or a trial's folder or run id."""
    reference: Path
    """A reference, or images like those."""
    extractor: str | None
    """None takes the reference's."""
    extractor_weights: Path | None
    extractor_size: int | None
    """Pixels a side that the extractor sees; None takes its own choice."""
    measurements: tuple[Measurement, ...] | None
    """None takes all that the extractor can give."""
    inception_splits: int
    resamples: int
    batch_size: int
    device: str
    """auto, cpu or cuda."""
    export: Path | None
    """Where samples go in ADM's layout."""
    json: Path | None
    runs_dir: Path
    per_class: int | None = None
    """Images of a class that its distance needs; None measures no classes."""
    per_class_csv: Path | None = None

    @property
    def outputs(self) -> tuple[Path, ...]:
        """The files to write."""
        asked = (self.export, self.json, self.per_class_csv)
        return tuple(path for path in asked if path is not None)
