from __future__ import annotations

from collections import Counter

import pytest

from harness.data.batches import BatchOrder, Draw, DrawOrder

ORDER = DrawOrder(images=23, batch_size=6, seed=3, horizontal_flip=True)


def drawn(order: DrawOrder, start: int, stop: int, rank: int = 0, ranks: int = 1) -> list[Draw]:
    return [draw for batch in BatchOrder(order, start, stop, rank, ranks) for draw in batch]


def test_each_epoch_shows_every_image_once() -> None:
    draws = drawn(ORDER, 0, 23)
    for epoch in range(6):
        seen = Counter(draw.image for draw in draws[epoch * 23 : (epoch + 1) * 23])
        assert seen == Counter(range(23))


def test_epochs_have_different_orders() -> None:
    draws = [draw.image for draw in drawn(ORDER, 0, 23)]
    assert draws[:23] != draws[23:46]


@pytest.mark.parametrize("start", [1, 3, 4, 17])
def test_a_resumed_order_goes_on_where_it_stopped(start: int) -> None:
    assert drawn(ORDER, start, 20) == drawn(ORDER, 0, 20)[start * 6 :]


def test_ranks_together_draw_each_global_batch_exactly_once() -> None:
    whole = list(BatchOrder(ORDER, 0, 9))
    parts = [list(BatchOrder(ORDER, 0, 9, rank, 2)) for rank in range(2)]
    for step, batch in enumerate(whole):
        joined = sorted(parts[0][step] + parts[1][step], key=lambda draw: draw.position)
        assert joined == batch


def test_positions_count_images_from_the_beginning_of_the_run() -> None:
    assert [draw.position for draw in drawn(ORDER, 2, 4)] == list(range(12, 24))


def test_half_of_the_images_are_mirrored_only_if_asked() -> None:
    many = DrawOrder(images=4000, batch_size=100, seed=0, horizontal_flip=True)
    share = sum(draw.flip for draw in drawn(many, 0, 40)) / 4000
    assert 0.45 < share < 0.55
    plain = DrawOrder(images=4000, batch_size=100, seed=0, horizontal_flip=False)
    assert not any(draw.flip for draw in drawn(plain, 0, 40))


def test_seeds_give_different_orders() -> None:
    other = DrawOrder(images=23, batch_size=6, seed=4, horizontal_flip=True)
    assert drawn(other, 0, 3) != drawn(ORDER, 0, 3)
