from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from safetensors.torch import load_file

from harness.config.schema import TrialConfig
from harness.config.serialisation import to_plain
from harness.data.batches import BatchOrder, DrawnImages, DrawOrder
from harness.data.datasets import load_data_set
from harness.machine.place import choose_device
from harness.processes.progress import ignore_progress
from harness.training.build import build_backbone, build_module
from harness.training.routing_log import factor_metrics
from harness.training.train import Training
from harness.vocabulary import names
from harness.vocabulary.names import check_name
from models.backbone import Backbone

OURS = ("routing/", "gamma/", "lambda/")
ROUTERS = (
    "query_kernel",
    "key_kernel",
    *(
        f"redundant_{side}.{part}"
        for side in ("query", "key")
        for part in ("projectors", "kernel", "difference")
    ),
)
SMALL = ("model.depth=2", "train.batch_size=16", "train.validate_every=3")


class RecordingLogger(DummyLogger):
    """Keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.by_step: dict[int, dict[str, float]] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        ours = {name: value for name, value in metrics.items() if name.startswith(OURS)}
        if ours:
            assert step not in self.by_step
            self.by_step[step] = ours


def run(config: TrialConfig, folder: Path) -> dict[int, dict[str, float]]:
    logger = RecordingLogger()
    device = choose_device(config.train.device)
    data = load_data_set(config.data)
    Training(config, data, folder, device, "32-true", logger, ignore_progress).run()
    return logger.by_step


def test_listening_changes_no_bit_of_the_weights(
    trial_config: Callable[..., TrialConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = trial_config("dydila", *SMALL, "train.steps=7")
    assert run(config, tmp_path / "with")
    monkeypatch.setattr("harness.training.train.RoutingLog", lambda *_: pl.Callback())
    assert not run(config, tmp_path / "without")
    weights = [tmp_path / name / "ema.safetensors" for name in ("with", "without")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_every_router_and_value_is_logged_when_validation_is(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    config = trial_config("dydila", *SMALL, "train.steps=7", "train.ema_decay=0.0")
    logged = run(config, tmp_path)
    assert list(logged) == [3, 6, 7]
    expected = {
        *(
            f"routing/layer_{layer:02d}/{router}/{figure}"
            for layer in range(2)
            for router in ROUTERS
            for figure in ("max_share", "min_share", "dead", "usage_entropy", "token_entropy")
        ),
        *(
            f"routing/layer_{layer:02d}/{router}/share/{option}"
            for layer in range(2)
            for router in ROUTERS
            for option in range(3 if router.endswith("projectors") else 9)
        ),
        *(
            f"gamma/layer_{layer:02d}/{part}/{index}"
            for layer in range(2)
            for part in ROUTERS
            if part.endswith("kernel")
            for index in range(9)
        ),
        *(
            f"lambda/layer_{layer:02d}/redundant_{side}.difference/{index}"
            for layer in range(2)
            for side in ("query", "key")
            for index in range(9)
        ),
        *(names.ROUTING_USAGE_ENTROPY, names.ROUTING_TOKEN_ENTROPY),
        *(names.ROUTING_MAX_SHARE, names.ROUTING_MIN_SHARE, names.ROUTING_DEAD),
        *(names.GAMMA_MIN, names.GAMMA_MEAN, names.GAMMA_MAX),
        *(names.LAMBDA_MIN, names.LAMBDA_MEAN, names.LAMBDA_MAX),
    }
    for metrics in logged.values():
        assert metrics.keys() == expected
    for name in expected:
        check_name(name)
    # Without averaging, the saved weights are those after the last step.
    weights = load_file(tmp_path / "ema.safetensors")
    raw = weights["blocks.1.attention.redundant_key.kernel.raw_exponents"]
    gammas = (1 + torch.log(1 + raw.exp())).tolist()
    lambdas = weights["blocks.0.attention.redundant_query.difference.factors"].tolist()
    for index in range(9):
        name = f"gamma/layer_01/redundant_key.kernel/{index}"
        assert logged[7][name] == pytest.approx(gammas[index])
        name = f"lambda/layer_00/redundant_query.difference/{index}"
        assert logged[7][name] == pytest.approx(lambdas[index])
    assert logged[7][names.GAMMA_MIN] <= min(gammas) <= logged[7][names.GAMMA_MEAN]


def test_shares_are_those_of_the_batch_that_was_trained_on(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    config = trial_config("dydila", *SMALL, "train.steps=1")
    logged = run(config, tmp_path)
    data = load_data_set(config.data)
    module = build_module(config, data.train.shape, 10)
    order = DrawOrder(len(data.train.labels), 16, config.seed, config.data.horizontal_flip)
    seen: list[torch.Tensor] = []

    def keep(router: Any, inputs: tuple[torch.Tensor]) -> None:
        seen.append((inputs[0] @ router.weight[0]).argmax(dim=-1).flatten())

    router = module.backbone.get_submodule("blocks.1.attention.query_kernel.router")
    router.register_forward_pre_hook(keep)
    module.batch_losses(
        DrawnImages(data.train, 0).__getitems__(next(iter(BatchOrder(order, 0, 1))))
    )
    (chosen,) = seen
    counts = torch.bincount(chosen, minlength=9) / len(chosen)
    prefix = "routing/layer_01/query_kernel"
    shares = [logged[1][f"{prefix}/share/{option}"] for option in range(9)]
    assert shares == pytest.approx(counts.tolist())
    assert logged[1][f"{prefix}/max_share"] == pytest.approx(counts.max().item())
    assert logged[1][f"{prefix}/min_share"] == pytest.approx(counts.min().item())
    assert logged[1][f"{prefix}/dead"] == (counts == 0).sum()
    entropies = [
        logged[1][f"routing/layer_{layer:02d}/{router}/usage_entropy"]
        for layer in range(2)
        for router in ROUTERS
    ]
    assert logged[1][names.ROUTING_USAGE_ENTROPY] == pytest.approx(sum(entropies) / len(entropies))


def test_a_variant_without_routed_parts_logs_nothing(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    assert run(trial_config("sana", *SMALL, "train.steps=7"), tmp_path) == {}


def network(trial_config: Callable[..., TrialConfig], **fields: object) -> Backbone:
    """One layer of `dydila` with these fields of its own."""
    plain = to_plain(trial_config("dydila", "model.depth=1"))
    plain["attention"] |= fields
    return build_backbone(TrialConfig.model_validate(plain), (1, 8, 8), 10)


def test_a_learned_lambda_without_router_is_logged(
    trial_config: Callable[..., TrialConfig],
) -> None:
    fields = {"differential": "static", "kernel": "relu", "lambda_init": 0.25}
    assert factor_metrics(network(trial_config, **fields)) == {
        "lambda/layer_00/redundant_query.difference/0": 0.25,
        "lambda/layer_00/redundant_key.difference/0": 0.25,
        "lambda/min": 0.25,
        "lambda/mean": 0.25,
        "lambda/max": 0.25,
    }


def test_a_shared_bank_is_logged_once(trial_config: Callable[..., TrialConfig]) -> None:
    metrics = factor_metrics(network(trial_config, kernel_sharing_roles="shared"))
    banks = {name.rpartition("/")[0] for name in metrics if name.startswith("gamma/layer")}
    assert banks == {"gamma/layer_00/query_kernel"}


def test_exponents_of_heads_are_averaged_and_count_as_they_are_used(
    trial_config: Callable[..., TrialConfig],
) -> None:
    backbone = network(trial_config, kernel_per_head=True)
    bank = backbone.get_parameter("blocks.0.attention.key_kernel.raw_exponents")
    with torch.no_grad():
        # log(e - 1) is an exponent of 2, and one of 4 has a softplus of 3.
        bank[:, 4] = torch.linspace(0.5413249, 2.9489574, len(bank))
        bank[:, 5] = -60.0
    metrics = factor_metrics(backbone)
    assert metrics["gamma/layer_00/key_kernel/4"] == pytest.approx(3.0, rel=1e-4)
    assert metrics["gamma/layer_00/key_kernel/5"] == pytest.approx(1.0)
    assert metrics["gamma/min"] == pytest.approx(1.0)
