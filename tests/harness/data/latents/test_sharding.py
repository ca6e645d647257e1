from __future__ import annotations

import hashlib
import random

import numpy as np

from harness.data.latents.cache import Sharding

IDS = [f"n{number % 7:08}/image-{number}é.JPEG" for number in range(1000)]


def test_each_image_is_in_one_place() -> None:
    sharding = Sharding(IDS, 13)
    assert sorted(np.concatenate(sharding.rows).tolist()) == list(range(1000))
    for row in range(1000):
        assert sharding.rows[sharding.shard[row]][sharding.place[row]] == row


def test_a_shard_follows_from_the_id_alone() -> None:
    sharding = Sharding(IDS, 13)
    for row, image_id in enumerate(IDS):
        expected = int(hashlib.sha256(image_id.encode()).hexdigest()[:16], 16) % 13
        assert sharding.shard[row] == expected


def test_places_do_not_depend_on_the_order_of_the_list() -> None:
    shuffled = random.Random(0).sample(IDS, len(IDS))
    first, second = Sharding(IDS, 13), Sharding(shuffled, 13)
    for rows, others in zip(first.rows, second.rows, strict=True):
        held = [IDS[row] for row in rows]
        assert held == [shuffled[row] for row in others]
        assert held == sorted(held)


def test_shards_are_of_similar_size() -> None:
    sizes = Sharding(IDS, 10).sizes
    assert sum(sizes) == 1000
    # Six standard deviations of a binomial distribution.
    assert all(abs(size - 100) < 57 for size in sizes)


def test_a_shard_may_be_empty() -> None:
    sharding = Sharding(IDS[:2], 50)
    assert sorted(sharding.sizes)[-2:] == [1, 1]
    assert sum(sharding.sizes) == 2
