"""Every kind of wrong input is one line with its place, its key and a suggestion."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.messages import told

if TYPE_CHECKING:
    from tests.harness.conftest import Tree

X = "experiments/ablation/x.yaml"
CLI = "command line"


@pytest.mark.parametrize(
    ("override", "key", "suggestion"),
    [
        # Unknown keys.
        ("train.stpes=5", "train.stpes", "train.steps"),
        ("Train.steps=5", "Train", "train"),
        ("steps=5", "steps", "objective.steps or train.steps or sample.steps"),
        ("patch_size=2", "patch_size", "model.patch_size"),
        ("qwxz=5", "qwxz", None),
        (
            "model.value_convolution.sise=3",
            "model.value_convolution.sise",
            "model.value_convolution.size",
        ),
        ("model.value_convolution.qwxz=3", "model.value_convolution.qwxz", None),
        # Names.
        ("evaluate.extractor=inceptoin", "evaluate.extractor", "inception"),
        ("evaluate.extractor=torch:", "evaluate.extractor", None),
        ("evaluate.extractor=inception:x", "evaluate.extractor", "inception"),
        ("sample.sampler=flow_huen", "sample.sampler", "flow_heun"),
        ("data.name=digit", "data.name", "digits"),
        ("model.size=tyni", "model.size", "tiny"),
        ("model.size=[S]", "model.size", None),
        ("attention.name=dydlia", "attention.name", "dydila"),
        ("objective.name=flwo", "objective.name", "flow"),
        ("train.best_by=fid", "train.best_by", "fd"),
    ],
)
def test_a_wrong_name_is_told_with_the_nearest_one(
    tree: Tree, override: str, key: str, suggestion: str | None
) -> None:
    assert [told(line) for line in tree.mistakes(override)] == [(CLI, key, suggestion)]


@pytest.mark.parametrize(
    ("override", "got"),
    [
        # Wrong types.
        ("train.steps.x=5", "a map"),
        ("train.steps=many", "'many'"),
        ("train.steps='5'", "'5'"),
        ("train.steps=1.5", "1.5"),
        ("train.steps=1e3", "1000.0"),
        ("train.steps=true", "true"),
        ("train.steps=", "null"),
        ("train.steps=[1, x]", "[1, 'x']"),
        ("train.learning_rate=off", "'off'"),
        ("data.horizontal_flip=no", "'no'"),
        ("data.horizontal_flip=1", "1"),
        ("data.path=3", "3"),
        ("sample.guidance_channels=all", "'all'"),
        ("train=5", "5"),
        ("train=null", "null"),
        ("model.value_convolution=5", "5"),
        ("attention=sana", "'sana'"),
        ("attention.name=3", "3"),
        # Out of range.
        ("train.steps=0", "0"),
        ("evaluate.samples=1000000000000", "1000000000000"),
        ("evaluate.reference_images=20000000", "20000000"),
        ("train.validation_samples=20000000", "20000000"),
        ("train.learning_rate=2", "2"),
        ("train.learning_rate=.nan", "NaN"),
        ("train.weight_decay=.inf", "Infinity"),
        ("train.weight_decay=1e999", "Infinity"),
        ("train.ema_decay=1", "1"),
        ("model.width=97", "97"),
        ("train.betas=[0.9]", "[0.9]"),
        ("train.betas=[0.9, 1]", "[0.9, 1]"),
        ("train.betas=0.9", "0.9"),
        ("train.betas=[0.9, x]", "[0.9, 'x']"),
        ("train.betas=[0, 0, 0]", "[0, 0, 0]"),
    ],
)
def test_a_wrong_value_is_told_with_its_key_and_what_was_expected(
    tree: Tree, override: str, got: str
) -> None:
    key = override.partition("=")[0].removesuffix(".x")
    (line,) = tree.mistakes(override)
    assert line.startswith(f"{CLI}: {key}: got {got}; expected ")
    assert "Input should" not in line


@pytest.mark.parametrize(
    ("override", "key", "words"),
    [
        # Keys that do not fit together are told where the last of them was set.
        ("evaluate.extractor=torch:resnet50", "evaluate.extractor", "extractor_weights"),
        ("evaluate.extractor_weights=a.pth", "evaluate.extractor_weights", "efficientnet_lite0"),
        ("data.manifest=a.json", "data.manifest", "data.name=digits"),
        ("model.patch_size=3", "model.patch_size", "data.resolution"),
        ("model.heads=5", "model.heads", "model.width"),
        ("attention.head_dim=24", "attention.head_dim", "the width 64"),
        ("objective.name=ddpm", "objective.name", "ddim, ddpm, dpm_solver"),
        ("sample.sampler=ddim", "sample.sampler", "flow_euler, flow_heun"),
        ("train.best_by=kd", "train.best_by", "train.validation_samples"),
        ("train.validation_samples_every=5", "train.validation_samples_every", "null"),
        ("train.validation_samples=9", "train.validation_samples", "at least 10"),
        ("model.label_dropout=0 sample.guidance_scale=1.5", "model.label_dropout", "=0.1"),
        ("sample.guidance_scale=0.5 model.label_dropout=0.0", "model.label_dropout", "scale=1"),
        ("sample.weights=best", "sample.weights", "train.best_by=validation_loss"),
        ("seed=3", "seed", "--seeds"),
    ],
)
def test_values_that_do_not_fit_together_are_told_with_what_would(
    tree: Tree, override: str, key: str, words: str
) -> None:
    (line,) = tree.mistakes(*override.split(" "))
    assert told(line)[:2] == (CLI, key)
    assert words in line


@pytest.mark.parametrize(
    "number", ["99999999999999999999999", "9007199254740993", "-9007199254740993", "9" * 5000]
)
def test_a_number_that_other_programs_cannot_hold_is_refused(tree: Tree, number: str) -> None:
    line = next(line for line in tree.mistakes(f"train.steps={number}") if "2^53" in line)
    assert told(line)[:2] == (CLI, "train.steps")
    assert "9007199254740992" in line
    assert len(line) < 200


@pytest.mark.parametrize("number", ["1000000000000000", "99999999999999999999999"])
@pytest.mark.parametrize("field", ["n_projectors", "n_kernels", "n_differentials"])
def test_more_choices_than_a_tensor_can_hold_are_refused(
    tree: Tree, field: str, number: str
) -> None:
    lines = tree.mistakes(f"attention.{field}={number}")
    assert any(f"attention.{field}: got {number}; expected a number <= " in line for line in lines)


def test_without_guidance_no_labels_need_be_dropped(tree: Tree) -> None:
    assert tree.load("model.label_dropout=0.0", "sample.guidance_scale=1").trials


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
    ("old", "new", "line", "key", "suggestion"),
    [
        # Settings and variants, whose keys are the trial's.
        ("  train.weight_decay: 0.1", "  train:\n    stpes: 5", 6, "train.stpes", "train.steps"),
        ("train.weight_decay: 0.1", "train.steps: x", 5, "train.steps", None),
        (
            "  full: {}",
            "  full: {attention.differntial: off}",
            7,
            "attention.differntial",
            "attention.differential",
        ),
        (
            "  full: {}",
            "  full: {attention: {differential: false}}",
            7,
            "attention.differential",
            None,
        ),
        (
            "      name: sana",
            "      name: sana\n      kernel: relu",
            11,
            "attention.kernel",
            None,
        ),
        ("      name: sana", "      name: snaa", 10, "attention.name", "sana"),
        (
            "    attention:\n      name: sana",
            "    attention:\n      eps: x",
            10,
            "attention.eps",
            None,
        ),
        ("  train.weight_decay: 0.1", "  seed: 4", 5, "seed", None),
        (
            "  train.weight_decay: 0.1",
            "  train.steps: 1\n  train: {steps: 2}",
            6,
            "train.steps",
            None,
        ),
        # The file's own keys.
        ("seeds: [0, 1]", "seeds: []", 3, "seeds", None),
        ("seeds: [0, 1]", "seeds: [0, -1]", 3, "seeds", None),
        ("seeds: [0, 1]", "seeds: [1, 0, 1]", 3, "seeds", None),
        ("seeds: [0, 1]", "seeds: 2", 3, "seeds", None),
        ("baseline: full", "baseline: fulll", 2, "baseline", "full"),
        ("question: Does it work?", "question:", 1, "question", None),
        ("question: Does it work?", "question: ' '", 1, "question", None),
        ("question: Does it work?", "question: '\u00a0\u2003'", 1, "question", None),
        ("  plain:", "  full:", 8, "variants.full", None),
        ("  plain:", "  ../plain:", 8, "variants.../plain", None),
        ("  plain:", "  '..':", 8, "variants...", None),
        ("  plain:", "  CON:", 8, "variants.CON", None),
        ("  plain:", "  lpt1.a:", 8, "variants.lpt1.a", None),
        ("  plain:", "  plain.:", 8, "variants.plain.", None),
        ("  plain:", "  FULL:", 8, "variants.FULL", None),
        ("  full: {}", "  full:", 7, "variants.full", None),
        (
            "    attention:\n      name: sana",
            "    attention.name: dydila",
            8,
            "variants.plain",
            None,
        ),
    ],
)
def test_a_wrong_ablation_file_is_one_line_with_its_place(
    tree: Tree, old: str, new: str, line: int, key: str, suggestion: str | None
) -> None:
    assert old in ABLATION
    tree.write("ablation/x.yaml", ABLATION.replace(old, new))
    assert [told(text) for text in tree.mistakes()] == [(f"{X}:{line}", key, suggestion)]


def test_a_misspelt_key_of_the_file_is_missing_and_unknown(tree: Tree) -> None:
    tree.write("ablation/x.yaml", ABLATION.replace("seeds:", "sedes:"))
    assert [told(line) for line in tree.mistakes()] == [
        (f"{X}:1", "seeds", None),
        (f"{X}:3", "sedes", "seeds"),
    ]


def test_all_mistakes_of_all_files_and_variants_are_told_at_once_and_once(tree: Tree) -> None:
    tree.write("scale/small.yaml", "extends: ../base.yaml\ntrain:\n  steps: 0\n  steps: 1\n")
    tree.write(
        "ablation/x.yaml",
        "question: q\nbaseline: a\nseeds: [0]\nvariants:\n"
        "  a: {train.sed: 1}\n"
        "  b: {attention: {name: sanna}}\n"
        "  c: {model: {depth: -1}, sample: {steps: x}}\n",
    )
    lines = tree.mistakes("evaluate.samples=1", "oops", "data.name=mnist")
    assert [told(line) for line in lines] == [
        (CLI, "'oops' is no override; expected key=value, as in train.steps=200", None),
        (CLI, "data.name", None),
        (CLI, "evaluate.samples", None),
        ("experiments/scale/small.yaml:3", "train.steps", None),
        ("experiments/scale/small.yaml:4", "train.steps", None),
        (f"{X}:5", "train.sed", "train.steps"),
        (f"{X}:6", "attention.name", "sana"),
        (f"{X}:7", "model.depth", None),
        (f"{X}:7", "sample.steps", None),
    ]


def test_only_inception_has_a_best_by_spatial_features(tree: Tree) -> None:
    wanted = ("train.best_by=sfd", "train.validation_samples=20")
    (line,) = tree.mistakes(*wanted)
    assert told(line)[:2] == (CLI, "train.best_by")
    assert "evaluate.extractor=inception" in line
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


def test_keys_missing_from_the_base_are_named(tree: Tree) -> None:
    base = tree.root / "base.yaml"
    text = base.read_text()
    cut = text.replace("  steps: 400000\n", "").replace("  name: flow\n", "  logit_std: 1.0\n")
    start, end = cut.index("evaluate:"), len(cut)
    tree.write("base.yaml", cut[:start] + cut[end:])
    tree.write("scale/small.yaml", "extends: ../base.yaml\n")
    lines = cut.split("\n")
    about = next(line for line in lines if line.startswith("about:"))
    first, objective, train = (1 + lines.index(x) for x in (about, "objective:", "train:"))
    assert [told(line) for line in tree.mistakes()] == [
        (f"experiments/base.yaml:{first}", "evaluate", None),
        (f"experiments/base.yaml:{objective}", "objective.name", None),
        (f"experiments/base.yaml:{train}", "train.steps", None),
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
