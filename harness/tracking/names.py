"""The names of metrics, tags and artifacts: all that reports know of the rest of the harness."""

from __future__ import annotations

VALIDATION_LOSS = "validation_loss"
TRAIN_LOSS = "train_loss"
GRADIENT_NORM = "gradient_norm"
TRAIN_IMAGES_PER_SECOND = "train_images_per_second"
SAMPLING_IMAGES_PER_SECOND = "sampling_images_per_second"
PARAMETERS = "parameters"
MACS = "macs"
FLOPS = "flops"
PEAK_MEMORY = "peak_memory_bytes"
ATTENTION_ENTROPY = "attention_entropy"
ATTENTION_EFFECTIVE_RANK = "attention_effective_rank"
TOKEN_SIMILARITY = "token_similarity"  # noqa: S105
ROUTING_ENTROPY = "routing_entropy"
"""The four of the probe: means over held-out images, timesteps, layers and heads or routers."""
ROUTING_USAGE_ENTROPY = "routing/usage_entropy"
ROUTING_TOKEN_ENTROPY = "routing/token_entropy"  # noqa: S105
ROUTING_MAX_SHARE = "routing/max_share"
ROUTING_DEAD = "routing/dead"
"""The four of training: means over all routers, of one batch."""
GAMMA_MIN, GAMMA_MEAN, GAMMA_MAX = "gamma/min", "gamma/mean", "gamma/max"
LAMBDA_MIN, LAMBDA_MEAN, LAMBDA_MAX = "lambda/min", "lambda/mean", "lambda/max"
"""Over all learned exponents, and over all learned lambdas, of a network."""


def frechet_distance(extractor: str) -> str:
    """`fid` is the Inception figure only; on another extractor the distance carries its name."""
    return "fid" if extractor == "inception" else f"fd_{extractor}"


def inception_score(extractor: str) -> str:
    """`is` is the Inception figure only."""
    return "is" if extractor == "inception" else f"is_{extractor}"


def spatial_frechet_distance(extractor: str) -> str:
    """`sfid` is the Inception figure only."""
    return "sfid" if extractor == "inception" else f"sfd_{extractor}"


def kernel_distance(extractor: str) -> str:
    """`kid` is the Inception figure only."""
    return "kid" if extractor == "inception" else f"kd_{extractor}"


def precision(extractor: str) -> str:
    """Share of samples that look real."""
    return f"precision_{extractor}"


def recall(extractor: str) -> str:
    """Share of real images that samples come near to."""
    return f"recall_{extractor}"


def density(extractor: str) -> str:
    """How many real images' neighbourhoods a sample lies in, over those expected."""
    return f"density_{extractor}"


def coverage(extractor: str) -> str:
    """Share of real images with a sample in their neighbourhood."""
    return f"coverage_{extractor}"


def spread(metric: str) -> str:
    """The standard deviation of a metric over splits or subsets: nothing for a table."""
    return f"{metric}/std"


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
TAG_ABLATION = "harness.ablation"
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
TAG_GIT_COMMIT = "harness.git_commit"
TAG_GIT_DIRTY = "harness.git_dirty"
TAG_DEVICE = "harness.device"
TAG_PRECISION = "harness.precision"
TAG_VERSIONS = "harness.versions"
TAG_ENDED_BECAUSE = "harness.ended_because"
TAG_SIDE_BY_SIDE = "harness.trials_side_by_side"
"""How many trials shared the machine while this one trained."""
TAG_PEAK_MEMORY_KIND = "harness.peak_memory_kind"
TAG_PARENT = "mlflow.parentRunId"

ARTIFACT_CONFIG = "config.yaml"
ARTIFACT_GRID = "samples.png"
ARTIFACT_GRID_IMAGES = "grid.npz"
"""Array `images`, (classes, images a class, H, W, C) uint8, and `class_names`, (classes,)."""
ARTIFACT_PROBE = "attention_probe"
"""`.csv` has all figures of the probe, `.png` a figure of them."""
ARTIFACT_TRIALS = "trials.json"
"""On an ablation's run: `{"trials": [{"variant", "seed", "hash", "run_id"}...], "floor":
{"fd_...": value, "is_...": value} or {}, "floor_identity": {...}}`, trials in table order."""
