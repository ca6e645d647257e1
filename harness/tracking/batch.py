"""Metrics, parameters and tags of consecutive events, in portions that MLflow takes at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from harness.tracking.events import Damaged, Event, Metrics, Params, Tags

if TYPE_CHECKING:
    from mlflow.entities import Metric, Param, RunTag

# MLflow 3.17, mlflow/utils/validation.py: at most 1000 metrics, 100 parameters and 100 tags in one
# request, and 1000 of all together.
METRICS_AT_ONCE = 800
PARAMS_AT_ONCE = 100
TAGS_AT_ONCE = 100
LONGEST_PARAM = 6000
LONGEST_TAG = 8000
_CUT = " ... (cut)"

_Item = TypeVar("_Item")


@dataclass
class Batch:
    """Collects events until one comes that is of another kind, or until it is full."""

    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    """Key, value, time in ms, step."""
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def take(self, event: Event | Damaged) -> bool:
        """Whether the event was taken in. An empty batch takes in any metrics, params or tags."""
        if len(self.metrics) >= METRICS_AT_ONCE:
            return False
        if isinstance(event, Metrics):
            self.metrics += [(k, v, event.time, event.step) for k, v in event.values.items()]
        elif isinstance(event, Params):
            self.params.update(event.params)
        elif isinstance(event, Tags):
            self.tags.update(event.tags)
        else:
            return False
        return True

    def parts(self) -> Iterator[Batch]:
        """The batch cut into batches that each fit into one request."""
        params = list(self.params.items())
        tags = list(self.tags.items())
        for part in range(
            max(
                math.ceil(len(self.metrics) / METRICS_AT_ONCE),
                math.ceil(len(params) / PARAMS_AT_ONCE),
                math.ceil(len(tags) / TAGS_AT_ONCE),
            )
        ):
            yield Batch(
                _chunk(self.metrics, METRICS_AT_ONCE, part),
                dict(_chunk(params, PARAMS_AT_ONCE, part)),
                dict(_chunk(tags, TAGS_AT_ONCE, part)),
            )

    def singles(self) -> Iterator[Batch]:
        """The batch cut into batches of one item."""
        for metric in self.metrics:
            yield Batch(metrics=[metric])
        for key, value in self.params.items():
            yield Batch(params={key: value})
        for key, value in self.tags.items():
            yield Batch(tags={key: value})

    def description(self) -> str:
        """The names of all that is in the batch."""
        metrics = [f"metric {key} of step {step}" for key, _, _, step in self.metrics]
        params = [f"parameter {key}" for key in self.params]
        return ", ".join(metrics + params + [f"tag {key}" for key in self.tags])

    def entities(
        self, resolve: Callable[[str], str]
    ) -> tuple[list[Metric], list[Param], list[RunTag]]:
        """For `MlflowClient.log_batch`. Over-long values are cut, visibly; empty tags left out.

        Args:
            resolve: puts run ids in the place of links, in tags; a tag that is nothing but a link
                to a run that is gone becomes empty.
        """
        from mlflow.entities import Metric, Param, RunTag

        tags = {key: resolve(value) for key, value in self.tags.items()}
        return (
            [Metric(key, value, time, step) for key, value, time, step in self.metrics],
            [Param(key, _shortened(value, LONGEST_PARAM)) for key, value in self.params.items()],
            [RunTag(k, _shortened(value, LONGEST_TAG)) for k, value in tags.items() if value],
        )


def _chunk(items: list[_Item], size: int, number: int) -> list[_Item]:
    return items[number * size : (number + 1) * size]


def _shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - len(_CUT)] + _CUT
