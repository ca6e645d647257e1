"""Two and three processes give what one gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.config.schema import TrialConfig
from harness.processes.jobs import LostTouchError
from harness.sampling.files import FileSink
from harness.vocabulary.metrics import BY_KEY
from models.errors import UserError
from tests.support.ranks import group_tasks as tasks
from tests.support.ranks.together import end_server, run_together


@pytest.fixture(scope="module", autouse=True)
def no_server_is_left() -> Iterator[None]:
    yield
    end_server()


@pytest.mark.parametrize(
    ("size", "count"),
    [
        (2, 101),  # 7 batches, the last of 5
        pytest.param(3, 101, marks=pytest.mark.slow),
        pytest.param(3, 20, marks=pytest.mark.slow),  # one process has nothing to do
    ],
)
def test_all_figures_are_the_same(size: int, count: int, tmp_path: Path) -> None:
    expected = tasks.alone(tasks.measure, count, tmp_path / "alone")
    found, *others = run_together(tasks.measure, size, tmp_path, count, tmp_path / "together")
    assert others == [None] * (size - 1)
    assert found["identity"] == expected["identity"]
    assert found["identity"]["samples"] == count
    assert found["figures"].keys() == set(BY_KEY)
    for key, figure in found["figures"].items():
        alone = expected["figures"][key]
        assert figure["value"] == pytest.approx(alone["value"], rel=1e-10), key
        assert (figure["std"] is None) == (alone["std"] is None)
        if figure["std"] is not None:
            assert figure["std"] == pytest.approx(alone["std"], rel=1e-10), key
    assert found["left_out"] == expected["left_out"] == {}
    assert found["told"] == expected["told"]
    # The reference is in the cache of the one, and the leading one of several had a part of both.
    assert found["own"] < expected["own"]


@pytest.mark.slow
def test_a_reference_in_the_cache_is_not_extracted_again(tmp_path: Path) -> None:
    expected = tasks.alone(tasks.measure, 40, tmp_path / "references")
    found, other = run_together(tasks.measure, 2, tmp_path, 40, tmp_path / "references")
    assert other is None
    assert found["own"] == 24  # two batches of three, the last of 8
    assert found["figures"]["fd"]["value"] == pytest.approx(
        expected["figures"]["fd"]["value"], rel=1e-10
    )


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["features", "adm"])
def test_a_reference_is_the_same_file(layout: str, tmp_path: Path) -> None:
    one, several = tmp_path / "one.npz", tmp_path / "several.npz"
    expected = tasks.alone(tasks.build, one, layout, 30)
    found = run_together(tasks.build, 3, tmp_path, several, layout, 30)
    assert found == [expected] * 3
    with np.load(one) as ours, np.load(several) as theirs:
        assert ours.files == theirs.files
        for name in ours.files:
            assert np.array_equal(ours[name], theirs[name]), name
    assert not list(tmp_path.glob("*.tmp*"))


@pytest.mark.slow
def test_all_know_the_hash_of_images_that_each_read_a_part_of(tmp_path: Path) -> None:
    expected = tasks.alone(tasks.hash_images, 5)
    assert run_together(tasks.hash_images, 2, tmp_path, 5) == [expected] * 2


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["flow_euler", "ddpm"])
def test_samples_are_the_same_to_the_last_bit(
    sampler: str, trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    update = {"sampler": sampler, "steps": 3, "batch_size": 4, "labels": "uniform"}
    config = trial_config("sana").sample.model_copy(update=update)
    folders = [tmp_path / name for name in ("one", "several")]
    for folder in folders:
        folder.mkdir()
    expected = tasks.alone(tasks.draw, config, folders[0], None)
    found, *others = run_together(tasks.draw, 3, tmp_path, config, folders[1], None)
    assert np.array_equal(found, expected)
    assert [len(other) for other in others] == [0, 0]


@pytest.mark.slow
def test_any_number_of_processes_go_on_where_others_stopped(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    update = {"sampler": "flow_euler", "steps": 2, "batch_size": 3}
    config = trial_config("sana").sample.model_copy(update=update)
    one, several = tmp_path / "one", tmp_path / "several"
    for folder in (one, several, tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
    expected = tasks.alone(tasks.draw, config, one, None)
    per_batch = 4 if config.guidance_scale != 1 else 2
    stopped = run_together(tasks.draw, 3, tmp_path / "a", config, several, per_batch)
    assert isinstance(stopped[0], KeyError)
    # One round of three batches is whole.
    assert FileSink(several, 23, "trial").done == 9
    found = run_together(tasks.draw, 2, tmp_path / "b", config, several, None)
    assert np.array_equal(found[0], expected)


@pytest.mark.slow
def test_a_damaged_image_is_named_by_the_leading_process_too(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(16):
        Image.fromarray(tasks.DIGITS[number, ..., 0]).save(images / f"{number:02}.bmp")
    whole = (images / "05.bmp").read_bytes()
    (images / "05.bmp").write_bytes(whole[:-30])
    found = run_together(tasks.extract_from, 3, tmp_path, images)
    for error in found[:2]:
        assert type(error) is UserError
        assert "05.bmp is damaged" in str(error)
    assert isinstance(found[2], LostTouchError | UserError)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_nobody_waits_for_a_process_that_was_killed(rank: int, tmp_path: Path) -> None:
    found = run_together(tasks.die_at, 2, tmp_path, rank, 4 + rank)
    assert found[rank] is None
    assert isinstance(found[1 - rank], LostTouchError)
