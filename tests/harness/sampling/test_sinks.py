from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn

from harness.config.schema import TrialConfig
from harness.config.sections import SampleConfig
from harness.sampling.sample import draw_samples
from harness.sampling.sinks import FileSink
from models.objectives.flow import Config as FlowConfig

COUNT = 10


class Network(nn.Module):
    """Depends on its input and its labels; stops after some calls, as a killed process would."""

    null_label = 3

    def __init__(self, calls: int | None = None) -> None:
        super().__init__()
        self.left = calls

    def forward(self, images: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        return images * labels.view(-1, 1, 1, 1) + timesteps.view(-1, 1, 1, 1) / 1000


def draw(config: SampleConfig, network: nn.Module, sink: FileSink | None) -> np.ndarray:
    samples = draw_samples(
        network.eval(),
        config,
        FlowConfig(),
        shape=(1, 4, 4),
        num_classes=3,
        count=COUNT,
        seed=5,
        device="cpu",
        sink=sink,
    )
    return np.array(samples.images)


@pytest.fixture
def config(trial_config: Callable[..., TrialConfig]) -> SampleConfig:
    sample = trial_config("sana").sample
    return sample.model_copy(update={"sampler": "flow_euler", "steps": 2, "batch_size": 3})


@pytest.mark.parametrize("calls", [0, 1, 2, 5, 7])
def test_going_on_after_an_interruption_gives_the_same_samples(
    tmp_path: Path, config: SampleConfig, calls: int
) -> None:
    whole = draw(config, Network(), None)
    with pytest.raises(KeyboardInterrupt):
        draw(config, Network(calls), FileSink(tmp_path, COUNT, "trial"))
    rest = FileSink(tmp_path, COUNT, "trial")
    assert rest.done == 3 * (calls // 2)
    assert np.array_equal(draw(config, Network(), rest), whole)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "samples.partial.json").write_text("{"),
        lambda folder: (folder / "samples.partial.npy").write_bytes(b"\x93NUMPY"),
        lambda folder: (folder / "samples.partial.npy").unlink(),
    ],
)
def test_what_is_damaged_is_drawn_again(
    tmp_path: Path, config: SampleConfig, spoil: Callable[[Path], None]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        draw(config, Network(4), FileSink(tmp_path, COUNT, "trial"))
    spoil(tmp_path)
    sink = FileSink(tmp_path, COUNT, "trial")
    assert sink.done == 0
    assert np.array_equal(draw(config, Network(), sink), draw(config, Network(), None))


def test_samples_of_another_origin_or_count_are_not_gone_on_with(
    tmp_path: Path, config: SampleConfig
) -> None:
    with pytest.raises(KeyboardInterrupt):
        draw(config, Network(4), FileSink(tmp_path, COUNT, "trial"))
    assert FileSink(tmp_path, COUNT, "trial").done == 6
    assert FileSink(tmp_path, COUNT, "another").done == 0
    assert FileSink(tmp_path, COUNT + 1, "trial").done == 0


def test_removing_leaves_nothing(tmp_path: Path, config: SampleConfig) -> None:
    sink = FileSink(tmp_path, COUNT, "trial")
    draw(config, Network(), sink)
    sink.remove()
    assert list(tmp_path.iterdir()) == []
