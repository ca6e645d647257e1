"""What `evaluate` and `evaluate build-reference` are asked for, as the command line names it.

It imports next to nothing, so that the command line can tell its defaults at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.vocabulary.metrics import Measurement

DEFAULT_SPLITS = 10
"""Of the Inception score. With fewer samples it is left out, and said so; other numbers of splits
are asked for, so they are refused then."""


@dataclass(frozen=True)
class EvaluateSpec:
    """What to measure."""

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


@dataclass(frozen=True)
class BuildSpec:
    """What to build a reference of."""

    source: str
    """A path, or `scale:NAME`."""
    out: Path
    overrides: tuple[str, ...]
    """Of a scale's `data.`."""
    extractor: str
    extractor_weights: Path | None
    extractor_size: int | None
    """Pixels a side that the extractor sees; None takes its own choice."""
    manifest: Path | None
    """Which images of the path, for those that must be cropped and resized."""
    resolution: int | None
    """Pixels a side, with a manifest."""
    layout: Literal["features", "adm"]
    single_images: int
    batch_size: int
    device: str
    """auto, cpu or cuda."""
    experiments_dir: Path
