"""A hash of the very data that trials are trained on, so that it is part of their own hashes."""

from __future__ import annotations

from harness.config.load import Ablation
from harness.config.sections import DataConfig
from harness.data.datasets import data_content


def bind_content(ablation: Ablation) -> Ablation:
    """Fill in `data.content` of every trial from what its paths name.

    Raises:
        UserError: the data are missing, or are not those of a content that was written down.
    """
    known: dict[DataConfig, str | None] = {}

    def content_of(config: DataConfig) -> str | None:
        if config not in known:
            known[config] = data_content(config)
        return known[config]

    return ablation.with_content(content_of)
