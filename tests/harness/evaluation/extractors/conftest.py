from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stand_ins.random_weights import write_random_inception, write_random_vit


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_inception(tmp_path_factory.mktemp("inception") / "random.pth")


@pytest.fixture(scope="session")
def timm_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of timm's `test_vit`."""
    return write_random_vit(tmp_path_factory.mktemp("timm") / "test_vit.pth")
