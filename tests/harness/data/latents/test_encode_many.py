from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from harness.data import decoding
from harness.data.latents.cache import open_cache
from harness.data.latents.encode import encode
from harness.data.manifest import Manifest, ManifestClass, ManifestImage
from harness.processes.progress import Progress, ignore_progress

MANY_IMAGES = 100_000
CONTENTS = [bytes([number]) for number in range(200)]
"""Of files that decode to their own number."""


def content_of(number: int) -> bytes:
    return CONTENTS[number % len(CONTENTS)]


def manifest() -> Manifest:
    digests = {content: hashlib.sha256(content).hexdigest() for content in CONTENTS}
    images = (
        ManifestImage(f"a/{number:06}", 0, 1, digests[content_of(number)])
        for number in range(MANY_IMAGES)
    )
    return Manifest("many/v1", None, None, (ManifestClass("a", "a"),), tuple(images), ())


@pytest.mark.slow
def test_a_hundred_thousand_images_are_each_encoded_once(
    images_in_memory: Callable[..., Any],
    linear_autoencoder: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        decoding,
        "decode_image",
        lambda content, resolution: np.full((resolution, resolution, 3), content[0], np.uint8),
    )
    source = images_in_memory(0)
    source.files.update({f"a/{number:06}": content_of(number) for number in range(MANY_IMAGES)})
    autoencoder = linear_autoencoder()
    many = manifest()

    def encode_all(on_progress: Callable[[Progress], None]) -> None:
        encode(
            source,
            many,
            autoencoder,
            tmp_path,
            resolution=4,
            batch_size=256,
            dtype="float32",
            on_progress=on_progress,
        )

    def stop(progress: Progress) -> None:
        if len(list(tmp_path.glob("shard-*"))) == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_all(stop)
    encode_all(ignore_progress)
    assert Counter(source.reads) == Counter(image.id for image in many.images)
    held: Counter[str] = Counter()
    for path in tmp_path.glob("shard-*"):
        with safe_open(path, framework="np") as file:
            held.update(json.loads(file.metadata()["latents"])["ids"])
    assert held == Counter(image.id for image in many.images)
    cache = open_cache(tmp_path)
    for row in range(0, MANY_IMAGES, 997):
        level = content_of(row)[0] / 255
        assert cache.moments(row, mirrored=True).flatten().tolist() == pytest.approx(
            [level, level - 3], abs=1e-6
        )
