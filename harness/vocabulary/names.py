"""The names of metrics, tags and artifacts: all that reports know of the rest of the harness.

`check_name` says which names MLflow takes (mlflow/utils/validation.py).
"""

from __future__ import annotations

import posixpath
import re

from harness.vocabulary.metrics import VALIDATION_LOSS as VALIDATION_LOSS

TRAIN_LOSS = "train_loss"
BALANCE_LOSS = "balance_loss"
GRADIENT_NORM = "gradient_norm"
TRAIN_IMAGES_PER_SECOND = "train_images_per_second"
SAMPLING_IMAGES_PER_SECOND = "sampling_images_per_second"

PARAMETERS = "parameters"
MACS = "macs"
FLOPS = "flops"
HEADS = "heads"
HEAD_WIDTH = "head_width"
QKV_BIAS = "qkv_bias"
"""The attention of a network: heads, channels of one, and whether its projections have a bias (1 or
0). Rows of a table that differ in these differ in more than their kernels."""
TRAINING_MEMORY = "training_memory_bytes"
"""Of the tensors of one step of training, at its peak; counted, so the same on every machine."""

ATTENTION_ENTROPY = "attention_entropy"
ATTENTION_EFFECTIVE_RANK = "attention_effective_rank"
TOKEN_SIMILARITY = "token_similarity"  # noqa: S105
ROUTING_ENTROPY = "routing_entropy"
"""The four of the probe: means over held-out images, timesteps, layers and heads or routers."""

ROUTING_USAGE_ENTROPY = "routing/usage_entropy"
ROUTING_TOKEN_ENTROPY = "routing/token_entropy"  # noqa: S105
ROUTING_MAX_SHARE = "routing/max_share"
ROUTING_MIN_SHARE = "routing/min_share"
ROUTING_DEAD = "routing/dead"
"""The four of training: means over all routers, of one batch."""

GAMMA_MIN, GAMMA_MEAN, GAMMA_MAX = "gamma/min", "gamma/mean", "gamma/max"
LAMBDA_MIN, LAMBDA_MEAN, LAMBDA_MAX = "lambda/min", "lambda/mean", "lambda/max"
"""Over all learned exponents, and over all learned lambdas, of a network."""


def spread(metric: str) -> str:
    """The standard deviation of a metric over splits or subsets: nothing for a table."""
    return f"{metric}/std"


def on_validation_samples(metric: str, samples: int) -> str:
    """A quality metric of the few samples that are drawn during training; how many is part of the
    name, since no two counts compare, and none of them with the figures of the final samples."""
    return f"validation/{metric}/{samples}_samples"


def validation_metric_of(key: str) -> tuple[str, int] | None:
    """The metric and count that `on_validation_samples` names; None for any other key."""
    found = re.fullmatch(r"validation/(.+)/(\d+)_samples", key)
    return (found[1], int(found[2])) if found else None


def at_layer(metric: str, layer: int) -> str:
    """The same metric in one layer, from 0."""
    return f"{metric}/layer_{layer:02d}"


def layer_of(key: str, metric: str) -> int | None:
    """The layer that `at_layer(metric, layer)` names; None for any other key."""
    prefix, number = f"{metric}/layer_", key.removeprefix(f"{metric}/layer_")
    return int(number) if key.startswith(prefix) and number.isdecimal() else None


def at_timestep(metric: str, timestep: float) -> str:
    """The same metric at one timestep, in 0..1000."""
    return f"{metric}/timestep_{timestep:04.0f}"


def is_detail(metric: str) -> bool:
    """Whether a metric is of a part of the network or of a timestep: nothing for a table."""
    return "/" in metric


TAG_KIND = "harness.kind"
KIND_ABLATION = "ablation"
KIND_TRIAL = "trial"
KIND_SEARCH = "search"
TAG_ABLATION = "harness.ablation"
TAG_SEARCH = "harness.search"
TAG_SEARCH_TRIAL = "harness.search_trial"
"""Which search asked for a trial, and the number of its own trial, from 0, as Optuna counts."""
TAG_QUESTION = "harness.question"
TAG_BASELINE = "harness.baseline"
TAG_SCALE = "harness.scale"
TAG_VARIANT = "harness.variant"
TAG_SEED = "harness.seed"
TAG_CONFIG_HASH = "harness.config_hash"

TAG_EXTRACTOR = "harness.extractor"
TAG_METRIC_IDENTITY = "harness.metric_identity"
"""JSON object of all that a quality figure depends on besides the model: `extractor`, hash of its
weights, resize, `samples` (their count), sampler, steps, guidance, `reference`. Figures whose
identities differ never share a column."""
TAG_VALIDATION_IDENTITY = "harness.validation_identity"
"""JSON object of all that figures of validation samples depend on; absent where none were drawn."""

TAG_BEST_BY = "harness.best_by"
"""The metric whose best value chose the weights that are kept besides the last ones."""
TAG_BEST_STEP = "harness.best_step"
TAG_BEST_VALUE = "harness.best_value"

TAG_GIT_COMMIT = "harness.git_commit"
TAG_GIT_DIRTY = "harness.git_dirty"
TAG_DEVICE = "harness.device"
TAG_DATA = "harness.data"
"""The data set's title and its images' size, such as `sub-in-100/v1, 256x256`."""
TAG_PRECISION = "harness.precision"
TAG_VERSIONS = "harness.versions"

TAG_ENDED_BECAUSE = "harness.ended_because"
TAG_SIDE_BY_SIDE = "harness.trials_side_by_side"
"""How many trials shared the machine while this one trained."""
TAG_PROCESSES = "harness.processes"
"""How many processes trained this one together; the figures of speed are of all of them."""
TAG_SKIPPED_STEPS = "harness.skipped_steps"
"""Steps whose batches were left out since their loss or gradient was not finite; absent where none
were. The metric `skipped_steps` counts them as training goes on."""

TAG_PARENT = "mlflow.parentRunId"

ARTIFACT_CONFIG = "config.yaml"
ARTIFACT_GRID = "samples.png"
ARTIFACT_GRID_IMAGES = "grid.npz"
"""Array `images`, (classes, images a class, H, W, C) uint8, and `class_names`, (classes,)."""
ARTIFACT_VALIDATION_SAMPLES = "validation_samples"
"""Folder of grids of the validation samples, `step-00000050.png` and so on."""
ARTIFACT_PROBE = "attention_probe"
"""`.csv` has all figures of the probe, `.png` a figure of them."""
ARTIFACT_TRIALS = "trials.json"
"""On an ablation's run: `{"trials": [{"variant", "seed", "hash", "run_id"}...], "floor":
{"fd_...": value, "is_...": value} or {}, "floor_identity": {...}}`, trials in table order."""

SAMPLES = "samples.npz"
LONGEST_NAME = 250

_NAME = re.compile(r"[/\w.\- :]+")


def check_name(name: str) -> None:
    """Refuse what MLflow would refuse as the name of a metric, parameter or tag.

    Raises:
        ValueError: the name has other characters than letters, digits and `_-./: `, is too long,
            or would change if it were read as a path.
    """
    path = posixpath.normpath(name)
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ValueError(
            f"{name!r} is not a name that MLflow takes: 1 to {LONGEST_NAME} letters, digits, "
            "underscores, dashes, dots, slashes, colons and spaces"
        )
    if path != name or path == "." or path.startswith(("..", "/")):
        raise ValueError(f"{name!r} is not a name that MLflow takes: read as a path it is {path!r}")


def short_hash(digest: str) -> str:
    """The hex digits that messages, names of files and identities show: 48 bits, enough to tell the
    hashes of one folder apart."""
    return digest[:12]
