"""How the figures came about, in sentences: for captions, legends and warnings."""

from __future__ import annotations

import json

from harness.vocabulary import names
from reports.columns import Kind, extractor_title
from reports.comparison import FLOOR_LABEL, PLUS_MINUS, Comparison
from reports.identity import (
    EXTRACTOR,
    SAMPLES,
    describe_identity,
    reference_count,
    sample_count,
    shortened,
)
from reports.load import AblationRuns

ENOUGH_SAMPLES = 10_000
CAPTION_FIELDS = ("objective", "sampler", "steps", "guidance_scale", "weights")
"""What a caption tells of the identity besides samples and extractor; the rest is provenance."""
CHANGED = " with uncommitted changes"


def spread_sentence(runs: AblationRuns) -> str:
    """What stands behind the plus-minus sign, and how many seeds."""
    counts = {variant: count for variant in runs.variants if (count := len(runs.of(variant)))}
    distinct = set(counts.values())
    if distinct == {1}:
        return f"One seed a variant, so no {PLUS_MINUS}."
    mean = f"Mean {PLUS_MINUS} sample standard deviation over"
    if len(distinct) == 1:
        return f"{mean} {distinct.pop()} seeds."
    by_variant = ", ".join(f"{variant} {count}" for variant, count in counts.items())
    return f"{mean} the seeds of a variant (seeds: {by_variant}); one seed prints no {PLUS_MINUS}."


def measured_sentence(runs: AblationRuns) -> str:
    """Sample count, extractor, sampler and the rest of the identity, and the device."""
    samples, extractor = sample_count(runs.identity), _extractor(runs)
    data, devices = runs.tag(names.TAG_DATA), runs.tag(names.TAG_DEVICE)
    parts = (
        "" if samples is None else f"{samples:,} generated images a trial",
        f"real images of {' and '.join(data)}" if data else "",
        f"features of {extractor}" if extractor else "",
        describe_identity(
            {field: runs.identity[field] for field in CAPTION_FIELDS if field in runs.identity}
        ),
        f"device {' and '.join(devices)}" if devices else "",
    )
    text = "; ".join(filter(None, parts))
    return f"{text[0].upper()}{text[1:]}." if text else ""


def attention_sentence(runs: AblationRuns) -> str:
    """Heads, their width, and bias of the projections of each row; empty if it was not recorded."""
    rows_of: dict[str, list[str]] = {}
    for variant in runs.variants:
        recorded = [
            list(runs.values(variant, metric).values())
            for metric in (names.HEADS, names.HEAD_WIDTH, names.QKV_BIAS)
        ]
        if all(recorded):
            heads, width, bias = (values[0] for values in recorded)
            shape = f"{heads:.0f}\u00d7{width:.0f} {'with' if bias else 'without'} bias"
            rows_of.setdefault(shape, []).append(variant)
    finished = [variant for variant in runs.variants if len(runs.of(variant))]
    shapes = [
        shape if variants == finished else f"{shape} ({', '.join(variants)})"
        for shape, variants in rows_of.items()
    ]
    what = "Heads \u00d7 width of one, bias of the projections to queries, keys and values"
    return f"{what}: {'; '.join(shapes)}." if shapes else ""


def floor_sentence(comparison: Comparison) -> str:
    """What the row of real images is; empty without it."""
    if comparison.floor is None:
        return ""
    return (
        f"{FLOOR_LABEL.capitalize()}: as many held-out real images against the reference, the "
        "figure of a model without fault."
    )


def probe_sentence(comparison: Comparison) -> str:
    """What the probe's columns show; empty without them."""
    if all(column.kind is not Kind.PROBE for column in comparison.columns):
        return ""
    return (
        "Attention on noised held-out images, mean over heads, layers and timesteps: entropy of "
        "the rows of A over log N (1 is uniform), effective rank of A (1 where all tokens get the "
        "same), cosine similarity between a head's output tokens."
    )


def provenance(runs: AblationRuns) -> dict[str, str]:
    """The lines that let a reader repeat the measurement: what, and its value."""
    samples = sample_count(runs.identity)
    side_by_side = (
        f"measured with {count} trial{'' if count == '1' else 's'} side by side"
        for count in runs.tag(names.TAG_SIDE_BY_SIDE)
    )
    facts = {
        "seeds": ", ".join(dict.fromkeys(map(str, runs.trials["seed"]))),
        "data": ", ".join(runs.tag(names.TAG_DATA)),
        "extractor": _extractor(runs),
        "generated images a trial": "" if samples is None else f"{samples:,}",
        "measured with": describe_identity(runs.identity, without=(EXTRACTOR, SAMPLES)),
        "commit": ", ".join(_commits(runs)),
        "device": "; ".join(runs.tag(names.TAG_DEVICE)),
        "precision": ", ".join(runs.tag(names.TAG_PRECISION)),
        "versions": " | ".join(map(_readable, runs.tag(names.TAG_VERSIONS))),
        "train images/s": " and ".join(side_by_side),
        "rebuild this table": f"make report EXP={runs.ablation} SCALE={runs.scale}",
    }
    return {name: value for name, value in facts.items() if value}


def reading_notes(runs: AblationRuns, comparison: Comparison) -> list[str]:
    """What must stand beside the figures wherever they are printed."""
    notes = []
    if runs.missing:
        trials = ", ".join(
            f"{lost.variant} seed {lost.seed} ({lost.reason})" for lost in runs.missing
        )
        notes.append(f"Missing trials: {trials}.")
    if comparison.gaps:
        notes.append(f"Missing figures: {', '.join(comparison.gaps)}.")
    counts = {
        "samples": sample_count(runs.identity),
        "reference images": reference_count(runs.identity),
    }
    few = [
        f"{what} (here {count:,})"
        for what, count in counts.items()
        if count is not None and count < ENOUGH_SAMPLES
    ]
    if few:
        notes.append(
            f"Distances and scores from fewer than {ENOUGH_SAMPLES:,} {' or '.join(few)} "
            "are biased and only comparable within this table."
        )
    if "weights" in runs.identity:
        notes.append(
            "Samples and attention are of the weights that were best in validation, the validation "
            "loss is of the last step's."
        )
    notes += [
        f"Trials ran {difference}: speeds and memory are not ranked."
        for difference in runs.machine_differences
    ]
    return notes


def provenance_notes(runs: AblationRuns, comparison: Comparison) -> list[str]:
    """What one should know before trusting the runs, but need not print beside them."""
    notes = []
    if runs.baseline not in runs.variants:
        notes.append(f"The baseline {runs.baseline or '(not recorded)'} is not among the variants.")
    if comparison.why_no_floor and runs.floor.values:
        notes.append(
            "No row real against real, because it was measured in another way: "
            f"{comparison.why_no_floor}."
        )
    tags = {
        names.TAG_PRECISION: "precision",
        names.TAG_GIT_COMMIT: "commit",
        names.TAG_VERSIONS: "versions",
    }
    notes += [
        f"The trials differ in {what}." for tag, what in tags.items() if len(runs.tag(tag)) > 1
    ]
    if any(CHANGED in commit for commit in _commits(runs)):
        notes.append("Some trials ran with changes to the code that were not committed.")
    return notes


def _extractor(runs: AblationRuns) -> str:
    recorded = runs.identity.get(EXTRACTOR)
    named = (recorded,) if isinstance(recorded, str) else runs.tag(names.TAG_EXTRACTOR)
    return ", ".join(map(extractor_title, named))


def _commits(runs: AblationRuns) -> list[str]:
    """Each commit once, shortened, and marked where the working tree had changes."""
    commits = []
    for trial in runs.trials.to_dict("records"):
        commit, dirty = (trial.get(tag) for tag in (names.TAG_GIT_COMMIT, names.TAG_GIT_DIRTY))
        if isinstance(commit, str):
            changed = str(dirty).lower() in ("true", "1")
            commits.append(shortened(commit) + (CHANGED if changed else ""))
    return list(dict.fromkeys(commits))


def _readable(versions: str) -> str:
    """A JSON object as `name version, name version`; any other text as it is."""
    try:
        parsed = json.loads(versions)
    except json.JSONDecodeError:
        return versions
    if not isinstance(parsed, dict):
        return versions
    return ", ".join(f"{name} {version}" for name, version in parsed.items())
