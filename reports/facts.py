"""How the figures came about, in sentences: for captions, legends and warnings."""

from __future__ import annotations

import json
from dataclasses import dataclass

from harness.vocabulary import names
from reports.columns import Kind, extractor_title
from reports.comparison import FLOOR_LABEL, PLUS_MINUS, Comparison
from reports.identity import (
    EXTRACTOR,
    SAMPLES,
    describe_identity,
    reference_count,
    sample_count,
    short_hash,
)
from reports.load import AblationRuns, machine_differences

ENOUGH_SAMPLES = 10_000
CAPTION_FIELDS = ("objective", "sampler", "steps", "guidance_scale", "weights")
"""What a caption tells of the identity besides samples and extractor; the rest is provenance."""
CHANGED = " with uncommitted changes"
FLOOR_SENTENCE = (
    f"{FLOOR_LABEL.capitalize()}: as many held-out real images against the reference, the figure "
    "of a model without fault."
)

PROBE_SENTENCE = (
    "Attention on noised held-out images, mean over heads, layers and timesteps: entropy of the "
    "rows of A over log N (1 is uniform), effective rank of A (1 where all tokens get the same), "
    "cosine similarity between a head's output tokens."
)


@dataclass(frozen=True)
class Fact:
    """A line of provenance: what, and its value."""

    name: str
    value: str


def spread_sentence(runs: AblationRuns) -> str:
    """What stands behind the plus-minus sign, and how many seeds."""
    counts = {
        variant: count
        for variant in runs.variants
        if (count := int((runs.trials["variant"] == variant).sum()))
    }
    distinct = sorted(set(counts.values()))
    if distinct == [1]:
        return f"One seed a variant, so no {PLUS_MINUS}."
    if len(distinct) == 1:
        return f"Mean {PLUS_MINUS} sample standard deviation over {distinct[0]} seeds."
    by_variant = ", ".join(f"{variant} {count}" for variant, count in counts.items())
    return (
        f"Mean {PLUS_MINUS} sample standard deviation over the seeds of a variant (seeds: "
        f"{by_variant}); one seed prints no {PLUS_MINUS}."
    )


def probe_sentence(comparison: Comparison) -> str:
    """What the probe's columns show; empty without them."""
    probed = any(column.kind is Kind.PROBE for column in comparison.columns)
    return PROBE_SENTENCE if probed else ""


def measured_sentence(runs: AblationRuns) -> str:
    """Sample count, extractor, sampler and the rest of the identity, and the device."""
    parts = []
    samples = sample_count(runs.identity)
    if samples is not None:
        parts.append(f"{samples:,} generated images a trial")
    data = runs.tag(names.TAG_DATA)
    if data:
        parts.append(f"real images of {' and '.join(data)}")
    extractor = _extractor(runs)
    if extractor:
        parts.append(f"features of {extractor}")
    rest = describe_identity(
        {field: runs.identity[field] for field in CAPTION_FIELDS if field in runs.identity}
    )
    if rest:
        parts.append(rest)
    devices = runs.tag(names.TAG_DEVICE)
    if devices:
        parts.append(f"device {' and '.join(devices)}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def provenance(runs: AblationRuns) -> tuple[Fact, ...]:
    """The lines that let a reader repeat the measurement."""
    samples = sample_count(runs.identity)
    seeds = dict.fromkeys(str(seed) for seed in runs.trials["seed"])
    facts = (
        Fact("seeds", ", ".join(seeds)),
        Fact("data", ", ".join(runs.tag(names.TAG_DATA))),
        Fact("extractor", _extractor(runs)),
        Fact("generated images a trial", "" if samples is None else f"{samples:,}"),
        Fact("measured with", describe_identity(runs.identity, without=(EXTRACTOR, SAMPLES))),
        Fact("commit", ", ".join(_commits(runs))),
        Fact("device", ", ".join(runs.tag(names.TAG_DEVICE))),
        Fact("precision", ", ".join(runs.tag(names.TAG_PRECISION))),
        Fact("versions", " | ".join(_readable(tag) for tag in runs.tag(names.TAG_VERSIONS))),
        Fact(
            "train images/s",
            " and ".join(
                f"measured with {count} trial{'' if count == '1' else 's'} side by side"
                for count in runs.tag(names.TAG_SIDE_BY_SIDE)
            ),
        ),
        Fact("peak memory", " and ".join(runs.tag(names.TAG_PEAK_MEMORY_KIND))),
        Fact("rebuild this table", f"make report EXP={runs.ablation} SCALE={runs.scale}"),
    )
    return tuple(fact for fact in facts if fact.value)


def reading_notes(runs: AblationRuns, comparison: Comparison) -> tuple[str, ...]:
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
        for difference in machine_differences(runs)
    ]
    return tuple(notes)


def provenance_notes(runs: AblationRuns, comparison: Comparison) -> tuple[str, ...]:
    """What one should know before trusting the runs, but need not print beside them."""
    notes = []
    if runs.baseline not in runs.variants:
        notes.append(f"The baseline {runs.baseline or '(not recorded)'} is not among the variants.")
    if comparison.why_no_floor and runs.floor.values:
        notes.append(
            "No row real against real, because it was measured in another way: "
            f"{comparison.why_no_floor}."
        )
    for tag, what in (
        (names.TAG_PRECISION, "precision"),
        (names.TAG_GIT_COMMIT, "commit"),
        (names.TAG_VERSIONS, "versions"),
    ):
        if len(runs.tag(tag)) > 1:
            notes.append(f"The trials differ in {what}.")
    if any(CHANGED in commit for commit in _commits(runs)):
        notes.append("Some trials ran with changes to the code that were not committed.")
    return tuple(notes)


def _extractor(runs: AblationRuns) -> str:
    recorded = runs.identity.get(EXTRACTOR)
    named = [recorded] if isinstance(recorded, str) else list(runs.tag(names.TAG_EXTRACTOR))
    return ", ".join(extractor_title(name) for name in named)


def _commits(runs: AblationRuns) -> list[str]:
    """Each commit once, shortened, and marked where the working tree had changes."""
    trials = runs.trials
    if names.TAG_GIT_COMMIT not in trials.columns:
        return []
    dirty = (
        trials[names.TAG_GIT_DIRTY].fillna("").astype(str).str.lower().isin(("true", "1"))
        if names.TAG_GIT_DIRTY in trials.columns
        else [False] * len(trials)
    )
    commits = (
        short_hash(commit) + (CHANGED if changed else "")
        for commit, changed in zip(trials[names.TAG_GIT_COMMIT], dirty, strict=True)
        if isinstance(commit, str)
    )
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
