from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from harness.config.sections import DataConfig
from harness.data.batches import Draw, DrawnImages
from harness.data.datasets import data_content, load_data_set
from harness.data.images import to_network
from models.errors import UserError


def config(**changes: object) -> DataConfig:
    values = {
        "name": "digits",
        "path": None,
        "resolution": 8,
        "held_out": 500,
        "horizontal_flip": False,
        "workers": 0,
    }
    return DataConfig.model_validate({**values, **changes})


def test_both_parts_together_are_scikit_learns_digits() -> None:
    data = load_data_set(config())
    images = torch.cat([data.train.images, data.held_out.images])[:, 0].numpy()
    labels = torch.cat([data.train.labels, data.held_out.labels]).numpy()
    ours = counted(np.rint(images / 255 * 16), labels)
    assert ours == counted(load_digits().images, load_digits().target)


@pytest.mark.parametrize("ask", [data_content, load_data_set])
def test_holding_out_all_digits_but_one_is_refused_by_the_check_already(ask) -> None:
    ask(config(held_out=1795))
    with pytest.raises(UserError, match="data.held_out is 1796, but there are only 1797 images"):
        ask(config(held_out=1796))


def counted(images: np.ndarray, labels: np.ndarray) -> list[tuple[int, bytes]]:
    pairs = zip(labels.tolist(), images.astype(np.uint8), strict=True)
    return sorted((label, image.tobytes()) for label, image in pairs)


def test_held_out_images_are_spread_evenly_over_the_classes() -> None:
    held_out = load_data_set(config()).held_out
    assert torch.bincount(held_out.labels).tolist() == [50] * 10


def test_fingerprint_depends_on_pixels_and_labels_alone() -> None:
    first, again = load_data_set(config()).train, load_data_set(config()).train
    assert first.fingerprint() == again.fingerprint()
    again.images[0, 0, 0, 0] += 1
    assert first.fingerprint() != again.fingerprint()


def test_network_sees_minus_one_to_one_and_rounding_gives_the_bytes_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    scaled = to_network(levels)
    assert (scaled.min(), scaled.max()) == (-1.0, 1.0)
    assert torch.equal((127.5 * scaled + 127.5).round().to(torch.uint8), levels)


def test_a_draw_is_mirrored_alone() -> None:
    source = load_data_set(config()).train
    batch = DrawnImages(source, 0).__getitems__([Draw(4, 0, False), Draw(5, 1, True)])
    assert torch.equal(batch.images[0], to_network(source.images[4]))
    assert torch.equal(batch.images[1], to_network(source.images[5]).flip(-1))
    assert batch.labels.tolist() == source.labels[4:6].tolist()
    assert batch.positions.tolist() == [0, 1]


def test_another_resolution_is_refused_with_the_right_one() -> None:
    with pytest.raises(UserError, match="set data.resolution=8"):
        load_data_set(config(resolution=16))


def test_holding_everything_out_is_refused() -> None:
    with pytest.raises(UserError, match="only 1797 images"):
        load_data_set(config(held_out=1797))
