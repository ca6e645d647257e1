"""What a user gets to read for every kind of wrong input: the exact lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from models.attention import variant_names

if TYPE_CHECKING:
    from tests.harness.conftest import Tree

ATTENTIONS = ", ".join(variant_names())
X = "experiments/ablation/x.yaml"
CLI = "command line"

SECTIONS = "seed, data, model, attention, objective, train, sample, evaluate"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        # Unknown keys.
        ("train.stpes=5", "train.stpes: unknown key (did you mean train.steps?)"),
        ("Train.steps=5", "Train: unknown key (did you mean train?)"),
        (
            "steps=5",
            "steps: unknown key (did you mean objective.steps or train.steps or sample.steps?)",
        ),
        ("patch_size=2", "patch_size: unknown key (did you mean model.patch_size?)"),
        ("qwxz=5", f"qwxz: unknown key; expected one of {SECTIONS}"),
        (
            "model.value_convolution.sise=3",
            "model.value_convolution.sise: unknown key "
            "(did you mean model.value_convolution.size?)",
        ),
        (
            "model.value_convolution.qwxz=3",
            "model.value_convolution.qwxz: unknown key; expected one of size, initialization",
        ),
        ("train.steps.x=5", "train.steps: got a map; expected a whole number >= 1"),
        # Wrong types.
        ("train.steps=many", "train.steps: got 'many'; expected a whole number >= 1"),
        ("train.steps='5'", "train.steps: got '5'; expected a whole number >= 1"),
        ("train.steps=1.5", "train.steps: got 1.5; expected a whole number >= 1"),
        ("train.steps=1e3", "train.steps: got 1000.0; expected a whole number >= 1"),
        ("train.steps=true", "train.steps: got true; expected a whole number >= 1"),
        ("train.steps=", "train.steps: got null; expected a whole number >= 1"),
        ("train.steps=[1, x]", "train.steps: got [1, 'x']; expected a whole number >= 1"),
        (
            "train.learning_rate=off",
            "train.learning_rate: got 'off'; expected a number > 0 and <= 1",
        ),
        ("data.horizontal_flip=no", "data.horizontal_flip: got 'no'; expected true or false"),
        ("data.horizontal_flip=1", "data.horizontal_flip: got 1; expected true or false"),
        ("data.path=3", "data.path: got 3; expected text or null"),
        (
            "evaluate.extractor=inceptoin",
            "evaluate.extractor: got 'inceptoin'; expected one of efficientnet_lite0, inception or "
            "torch:MODEL, a model of timm (did you mean inception?)",
        ),
        (
            "evaluate.extractor=torch:resnet50",
            "evaluate.extractor: evaluate.extractor=torch:resnet50 needs a file of weights: name "
            "it in evaluate.extractor_weights",
        ),
        (
            "evaluate.extractor_weights=a.pth",
            "evaluate.extractor_weights: evaluate.extractor_weights is of no use with "
            "evaluate.extractor=efficientnet_lite0: set it to null",
        ),
        (
            "sample.guidance_channels=all",
            "sample.guidance_channels: got 'all'; expected a whole number >= 1 or null",
        ),
        ("train=5", "train: got 5; expected a section of keys"),
        ("train=null", "train: got null; expected a section of keys"),
        ("model.value_convolution=5", "model.value_convolution: got 5; expected a section of keys"),
        # Out of range.
        ("train.steps=0", "train.steps: got 0; expected a whole number >= 1"),
        ("train.learning_rate=2", "train.learning_rate: got 2; expected a number > 0 and <= 1"),
        (
            "train.learning_rate=.nan",
            "train.learning_rate: got NaN; expected a number > 0 and <= 1",
        ),
        ("train.weight_decay=.inf", "train.weight_decay: got Infinity; expected a number >= 0"),
        ("train.weight_decay=1e999", "train.weight_decay: got Infinity; expected a number >= 0"),
        ("train.ema_decay=1", "train.ema_decay: got 1; expected a number >= 0 and < 1"),
        (
            "model.width=97",
            "model.width: got 97; expected a whole number >= 8 and <= 8192 and a multiple of 4",
        ),
        ("train.betas=[0.9]", "train.betas: got [0.9]; expected a list of 2 numbers"),
        ("train.betas=0.9", "train.betas: got 0.9; expected a list of 2 numbers"),
        ("train.betas=[0.9, x]", "train.betas: got [0.9, 'x']; expected a list of 2 numbers"),
        ("train.betas=[0, 0, 0]", "train.betas: got [0, 0, 0]; expected a list of 2 numbers"),
        ("train.betas=[0.9, 1]", "train.betas: both betas must lie in [0, 1)"),
        # Names.
        (
            "sample.sampler=flow_huen",
            "sample.sampler: got 'flow_huen'; expected one of ddim, ddpm, dpm_solver, flow_euler, "
            "flow_heun (did you mean flow_heun?)",
        ),
        (
            "data.name=digit",
            "data.name: got 'digit'; expected one of cifar10, digits, images "
            "(did you mean digits?)",
        ),
        (
            "model.size=tyni",
            "model.size: got 'tyni'; expected one of tiny, S, B, L, XL (did you mean tiny?)",
        ),
        ("model.size=[S]", "model.size: got ['S']; expected one of tiny, S, B, L, XL"),
        (
            "attention.name=dydlia",
            f"attention.name: unknown attention 'dydlia'; expected one of {ATTENTIONS} "
            f"(did you mean dydila?)",
        ),
        (
            "attention.name=3",
            f"attention.name: unknown attention 3; expected one of {ATTENTIONS}",
        ),
        (
            "objective.name=flwo",
            "objective.name: unknown objective 'flwo'; expected one of ddpm, flow "
            "(did you mean flow?)",
        ),
        (
            "attention=sana",
            f"attention: got 'sana'; expected a section of keys with name: one of {ATTENTIONS}",
        ),
        # Keys that do not fit together are told where the last of them was set.
        (
            "model.patch_size=3",
            "model.patch_size: model.patch_size must divide data.resolution, "
            "but 8 / 3 leaves a rest",
        ),
        (
            "model.heads=5",
            "model.heads: model.heads must divide model.width, but 64 / 5 leaves a rest",
        ),
        (
            "attention.head_dim=24",
            "attention.head_dim: attention.head_dim 24 does not divide the width 64: 2.66667 heads",
        ),
        (
            "objective.name=ddpm",
            "objective.name: sample.sampler flow_euler does not fit objective.name ddpm: "
            "flow_euler and flow_heun go with flow, the others with ddpm",
        ),
        (
            "train.best_by=kd",
            "train.best_by: train.best_by=kd is measured on samples, but train.validation_samples "
            "is 0: set it to a number, or take train.best_by=validation_loss",
        ),
        (
            "train.best_by=fid",
            "train.best_by: got 'fid'; expected one of validation_loss, fd, sfd, kd, is, "
            "precision, recall, density, coverage or null (did you mean fd?)",
        ),
        (
            "train.validation_samples_every=5",
            "train.validation_samples_every: train.validation_samples_every is of no use with "
            "train.validation_samples=0: set it to null",
        ),
        (
            "train.validation_samples=9",
            "train.validation_samples: train.validation_samples must be 0 or at least 10: "
            "neighbours and evaluate.inception_splits need as many, but it is 9",
        ),
        (
            "sample.weights=best",
            "sample.weights: sample.weights=best needs a metric to be best by: set train.best_by, "
            "such as train.best_by=validation_loss",
        ),
        (
            "seed=3",
            "seed: each trial has its own seed; expected the ablation's `seeds:` or --seeds",
        ),
        ("train.steps", "'train.steps' is no override; expected key=value, as in train.steps=200"),
    ],
)
def test_a_wrong_override_is_one_line(tree: Tree, override: str, line: str) -> None:
    assert tree.mistakes(override) == [f"{CLI}: {line}"]


ABLATION = """\
question: Does it work?
baseline: full
seeds: [0, 1]
settings:
  train.weight_decay: 0.1
variants:
  full: {}
  plain:
    attention:
      name: sana
"""


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        # Settings and variants, whose keys are the trial's.
        (
            "  train.weight_decay: 0.1",
            "  train:\n    stpes: 5",
            [f"{X}:6: train.stpes: unknown key (did you mean train.steps?)"],
        ),
        (
            "train.weight_decay: 0.1",
            "train.steps: x",
            [f"{X}:5: train.steps: got 'x'; expected a whole number >= 1"],
        ),
        (
            "  full: {}",
            "  full: {attention.differntial: off}",
            [
                f"{X}:7: attention.differntial: unknown key for dydila "
                f"(did you mean attention.differential?)"
            ],
        ),
        (
            "  full: {}",
            "  full: {attention: {differential: false}}",
            [f"{X}:7: attention.differential: got false; expected one of dynamic, static, off"],
        ),
        (
            "      name: sana",
            "      name: sana\n      kernel: relu",
            [
                f"{X}:11: attention.kernel: unknown key for sana; "
                f"expected one of name, head_dim, eps"
            ],
        ),
        (
            "      name: sana",
            "      name: snaa",
            [
                f"{X}:10: attention.name: unknown attention 'snaa'; expected one of {ATTENTIONS} "
                f"(did you mean sana?)"
            ],
        ),
        (
            "    attention:\n      name: sana",
            "    attention:\n      eps: x",
            [f"{X}:10: attention.eps: got 'x'; expected a number > 0"],
        ),
        (
            "  train.weight_decay: 0.1",
            "  seed: 4",
            [
                f"{X}:5: seed: each trial has its own seed; "
                f"expected the ablation's `seeds:` or --seeds"
            ],
        ),
        (
            "  train.weight_decay: 0.1",
            "  train.steps: 1\n  train: {steps: 2}",
            [f"{X}:6: train.steps: set twice, first at {X}:5"],
        ),
        # The file's own keys.
        ("seeds:", "sedes:", [
            f"{X}:1: seeds: missing key; expected a list of whole numbers, not empty",
            f"{X}:3: sedes: unknown key (did you mean seeds?)",
        ]),
        ("seeds: [0, 1]", "seeds: []", [
            f"{X}:3: seeds: got []; expected a list of whole numbers, not empty"
        ]),
        ("seeds: [0, 1]", "seeds: [0, -1]", [
            f"{X}:3: seeds: got [0, -1]; expected a list of whole numbers, not empty"
        ]),
        ("seeds: [0, 1]", "seeds: [1, 0, 1]", [f"{X}:3: seeds: seed 1 is listed more than once"]),
        ("seeds: [0, 1]", "seeds: 2", [
            f"{X}:3: seeds: got 2; expected a list of whole numbers, not empty"
        ]),
        ("baseline: full", "baseline: fulll", [
            f"{X}:2: baseline: 'fulll' is not among the variants; expected one of full, plain "
            f"(did you mean full?)"
        ]),
        ("question: Does it work?", "question:", [
            f"{X}:1: question: got null; expected text, not empty"
        ]),
        ("  plain:", "  full:", [f"{X}:8: variants.full: duplicate key, first on line 7"]),
        ("  plain:", "  ../plain:", [
            f"{X}:8: variants.../plain: '../plain' cannot be the name of a folder; "
            f"expected letters, digits, _, . and -, not a dot first"
        ]),
        ("  plain:", "  '..':", [
            f"{X}:8: variants...: '..' cannot be the name of a folder; "
            f"expected letters, digits, _, . and -, not a dot first"
        ]),
        ("  full: {}", "  full:", [
            f"{X}:7: variants.full: got null; expected a section of keys"
        ]),
        ("    attention:\n      name: sana", "    attention.name: dydila", [
            f"{X}:8: variants.plain: is the same configuration as variant full; "
            f"expected a difference"
        ]),
    ],
)  # fmt: skip
def test_a_wrong_ablation_file_is_one_line_a_mistake(
    tree: Tree, old: str, new: str, lines: list[str]
) -> None:
    assert old in ABLATION
    tree.write("ablation/x.yaml", ABLATION.replace(old, new))
    assert tree.mistakes() == lines


def test_all_mistakes_of_all_files_and_variants_are_told_at_once_and_once(tree: Tree) -> None:
    tree.write("scale/small.yaml", "extends: ../base.yaml\ntrain:\n  steps: 0\n  steps: 1\n")
    tree.write(
        "ablation/x.yaml",
        "question: q\nbaseline: a\nseeds: [0]\nvariants:\n"
        "  a: {train.sed: 1}\n"
        "  b: {attention: {name: sanna}}\n"
        "  c: {model: {depth: -1}, sample: {steps: x}}\n",
    )
    assert tree.mistakes("evaluate.samples=1", "oops", "data.name=mnist") == [
        "command line: 'oops' is no override; expected key=value, as in train.steps=200",
        "command line: data.name: got 'mnist'; expected one of cifar10, digits, images",
        "command line: evaluate.samples: got 1; expected a whole number >= 2",
        "experiments/scale/small.yaml:3: train.steps: got 0; expected a whole number >= 1",
        "experiments/scale/small.yaml:4: train.steps: duplicate key, first on line 3",
        f"{X}:5: train.sed: unknown key (did you mean train.steps?)",
        f"{X}:6: attention.name: unknown attention 'sanna'; expected one of {ATTENTIONS} "
        "(did you mean sana?)",
        f"{X}:7: model.depth: got -1; expected a whole number >= 1 and <= 200",
        f"{X}:7: sample.steps: got 'x'; expected a whole number >= 1 and <= 1000",
    ]


def test_only_inception_has_a_best_by_spatial_features(tree: Tree) -> None:
    wanted = ("train.best_by=sfd", "train.validation_samples=20")
    (line,) = tree.mistakes(*wanted)
    assert line == (
        f"{CLI}: train.best_by: train.best_by=sfd needs spatial features, which "
        "evaluate.extractor=inception alone has, not efficientnet_lite0"
    )
    assert tree.load(*wanted, "evaluate.extractor=inception").trials


def test_keys_that_contradict_each_other_are_all_told(tree: Tree) -> None:
    lines = tree.mistakes("data.resolution=9", "model.patch_size=2", "sample.sampler=ddim",
                          "evaluate.samples=4", "evaluate.inception_splits=5",
                          "data.held_out=7")  # fmt: skip
    assert [line.split(": ")[1] for line in lines] == [
        "model.patch_size",
        "evaluate.inception_splits",
        "data.held_out",
        "sample.sampler",
    ]
    assert "evaluate.probe_images must not exceed data.held_out, but 8 > 7" in lines[2]


def test_keys_missing_from_the_base_are_named_with_what_they_take(tree: Tree) -> None:
    base = tree.root / "base.yaml"
    text = base.read_text()
    cut = text.replace("  steps: 400000\n", "").replace("  name: flow\n", "  logit_std: 1.0\n")
    start, end = cut.index("evaluate:"), len(cut)
    tree.write("base.yaml", cut[:start] + cut[end:])
    tree.write("scale/small.yaml", "extends: ../base.yaml\n")
    lines = cut.split("\n")
    about = next(line for line in lines if line.startswith("about:"))
    first, objective, train = (1 + lines.index(x) for x in (about, "objective:", "train:"))
    assert tree.mistakes() == [
        f"experiments/base.yaml:{first}: evaluate: missing key; expected a section of keys",
        f"experiments/base.yaml:{objective}: objective.name: missing key; "
        f"expected one of ddpm, flow",
        f"experiments/base.yaml:{train}: train.steps: missing key; expected a whole number >= 1",
    ]


def test_numbers_may_be_whole_or_have_an_exponent(tree: Tree) -> None:
    ablation = tree.load("train.learning_rate=1e-4", "model.mlp_ratio=4", "train.betas=[0, 1e-1]")
    config = ablation.trials[0].config
    assert config.train.learning_rate == 1e-4
    assert type(config.model.mlp_ratio) is float
    assert config.train.betas == (0.0, 0.1)


def test_a_named_size_sets_depth_and_width_unless_they_are_given(tree: Tree) -> None:
    model = tree.load("model.size=S", "model.depth=2").trials[0].config.model
    assert (model.size, model.depth, model.width, model.heads) == ("S", 2, 384, 6)
