"""What a trial cost, under the names that runs bear."""

from __future__ import annotations

from harness.data.images import DataSet
from harness.evaluation.cost import model_cost
from harness.training.train import TrainingSummary
from harness.vocabulary import names
from models.backbone import Backbone


def cost_metrics(
    network: Backbone, data: DataSet, trained: TrainingSummary, sampling_speed: float | None
) -> dict[str, float]:
    """Size, operations and speeds.

    Args:
        network: as it was trained.
        data: that it was trained on.
        trained: what training measured.
        sampling_speed: in images a second; None where it was not measured.
    """
    cost = model_cost(network, data.train.shape, len(data.train.class_names))
    figures = {
        names.VALIDATION_LOSS: trained.validation_loss,
        names.TRAIN_IMAGES_PER_SECOND: trained.images_per_second,
        names.SAMPLING_IMAGES_PER_SECOND: sampling_speed,
        names.PARAMETERS: cost.parameters,
        names.MACS: cost.macs,
        names.FLOPS: cost.flops,
    }
    return {name: float(value) for name, value in figures.items() if value is not None}
