from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.cli.listing import list_files
from harness.config.layers import names
from harness.config.mistakes import ConfigError
from harness.config.trial_hash import trial_hash
from harness.search.config import Search, config_at, differences_at, load_search
from tests.harness.conftest import Tree
from tests.support.messages import told

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
SEARCH = """\
question: Which value?
base: x/full
space:
  attention.lambda_init: {low: 1e-3, high: 1e-1, log: true}
  train:
    learning_rate: {low: 1e-4, high: 1e-2}
"""


def load(tree: Tree, text: str, *overrides: str) -> Search:
    tree.write("search/s.yaml", text)
    return load_search("s", scale="small", overrides=overrides, experiments_dir=tree.root)


def mistakes(tree: Tree, text: str, *overrides: str) -> Sequence[str]:
    with pytest.raises(ConfigError) as caught:
        load(tree, text, *overrides)
    return str(caught.value).split("\n")


def with_space(*lines: str) -> str:
    return "question: Q\nbase: x/full\nspace:\n" + "".join(f"  {line}\n" for line in lines)


def test_a_search_is_its_base_its_space_and_the_defaults(tree: Tree) -> None:
    search = load(tree, SEARCH, "train.steps=7", "cluster.workers=3")
    assert list(search.space) == ["attention.lambda_init", "train.learning_rate"]
    assert search.base.attention.name == "dydila"
    assert search.base.train.steps == search.longest == 7
    assert search.objective.metric == "validation_loss"
    assert search.objective.seeds == (0, 1)
    assert (search.pruner.name, search.sampler.name) == ("median", "tpe")
    assert search.default == {"attention.lambda_init": 0.01, "train.learning_rate": 1e-4}
    assert search.differences == {"train": {"steps": 7}}


def test_a_point_is_the_configuration_that_the_same_overrides_give(tree: Tree) -> None:
    search = load(tree, SEARCH)
    point = {"attention.lambda_init": 0.05, "train.learning_rate": 0.003}
    tree.write("ablation/y.yaml", "question: Q\nbaseline: a\nseeds: [1]\nvariants: {a: {}}\n")
    by_hand = tree.load("attention.lambda_init=0.05", "train.learning_rate=0.003", name="y")
    (trial,) = by_hand.trials
    assert trial_hash(config_at(search.tree, point, 1, "trial 0")) == trial.hash
    assert differences_at(search.differences, point) == {
        "attention": {"lambda_init": 0.05},
        "train": {"learning_rate": 0.003},
    }


def test_a_searched_name_or_size_brings_its_own_fields(tree: Tree) -> None:
    search = load(tree, with_space("attention.name: [dydila, sana]", "model.size: [S, tiny]"))
    config = config_at(search.tree, {"attention.name": "sana", "model.size": "S"}, 0, "trial 0")
    assert config.attention.name == "sana"
    assert (config.model.depth, config.model.width) == (12, 384)


def test_a_base_may_be_written_out(tree: Tree) -> None:
    text = SEARCH.replace("base: x/full", "base: {attention.gamma_init: 2.0, train.batch_size: 8}")
    search = load(tree, text)
    assert search.base.train.batch_size == 8
    assert search.differences["attention"] == {"gamma_init": 2.0}


def test_pruner_and_sampler_have_a_short_form(tree: Tree) -> None:
    search = load(tree, SEARCH + "pruner: none\nsampler: {name: random, seed: 3}\n")
    assert search.pruner.name == "none"
    assert (search.sampler.name, search.sampler.seed) == ("random", 3)


def test_the_most_steps_of_the_space_are_known(tree: Tree) -> None:
    assert load(tree, with_space("train.steps: {low: 5, high: 50, step: 5}")).longest == 50


def test_a_base_outside_of_the_space_is_no_point_of_it(tree: Tree) -> None:
    assert load(tree, with_space("train.learning_rate: {low: 0.1, high: 0.2}")).default is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            with_space("attention.lamda_init: {low: 0, high: 1}"),
            "experiments/search/s.yaml:4: attention.lamda_init: unknown key "
            "(did you mean attention.lambda_init?)",
        ),
        (
            with_space("attention.gamma_init: {low: 0, high: 1}"),
            "experiments/search/s.yaml:4: attention.gamma_init: got 0.0; expected a number > 0",
        ),
        (
            with_space("model.label_dropout: {low: 0.1, high: 1.5}"),
            "experiments/search/s.yaml:4: model.label_dropout: got 1.5; "
            "expected a number >= 0 and < 1",
        ),
        (
            with_space("model.depth: {low: 1.5, high: 3}"),
            "experiments/search/s.yaml:4: model.depth: got 1.0; "
            "expected a whole number >= 1 and <= 200",
        ),
        (
            with_space("model.width: {low: 32, high: 64}"),
            "experiments/search/s.yaml:4: model.width: got 33; "
            "expected a whole number >= 8 and <= 8192 and a multiple of 4",
        ),
        (
            with_space("attention.kernel: [dynamic, stattic]"),
            "experiments/search/s.yaml:4: attention.kernel: got 'stattic'; "
            "expected one of dynamic, relu, static (did you mean static?)",
        ),
        (
            with_space("model.heads: [2, 3]"),
            "experiments/search/s.yaml:4: model.heads: model.heads must divide model.width, "
            "but 64 / 3 leaves a rest",
        ),
        (
            with_space("train.device: [cpu, cuda]"),
            "experiments/search/s.yaml:4: train.device: cannot change a result, "
            "so there is nothing to find out",
        ),
        (
            with_space("seed: {low: 0, high: 3}"),
            "experiments/search/s.yaml:4: seed: each trial has its own seed; "
            "expected the seeds in `objective:`",
        ),
        (
            with_space("train.steps: 5"),
            "experiments/search/s.yaml:4: train.steps: got 5, which says nothing to search over",
        ),
        (
            SEARCH.replace("x/full", "x/ful"),
            "experiments/search/s.yaml:2: base: x has no variant 'ful'; "
            "expected one of full, plain (did you mean full?)",
        ),
        (
            SEARCH.replace("x/full", "y/full"),
            "experiments/search/s.yaml:2: base: unknown ablation 'y'; expected one of x",
        ),
        (
            SEARCH.replace("x/full", "x"),
            "experiments/search/s.yaml:2: base: 'x' names no variant of an ablation; "
            "expected ABLATION/VARIANT, as in baselines/dydila, or a section of settings",
        ),
        (
            SEARCH + "objective: {metric: validation_los}\n",
            "experiments/search/s.yaml:7: objective.metric: got 'validation_los'; expected one of "
            "validation_loss, fd, sfd, kd, is, precision, recall, density, coverage "
            "(did you mean validation_loss?)",
        ),
        (
            SEARCH + "pruner: medain\n",
            "experiments/search/s.yaml:7: pruner.name: got 'medain'; "
            "expected one of hyperband, median, none (did you mean median?)",
        ),
        (
            SEARCH + "sampler: {name: tpe, startup: 3}\n",
            "experiments/search/s.yaml:7: sampler.startup: unknown key for tpe "
            "(did you mean sampler.startup_trials?)",
        ),
        (
            SEARCH.replace("question: Which value?\n", ""),
            "experiments/search/s.yaml:1: question: missing key; expected text, not empty",
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_place(tree: Tree, text: str, line: str) -> None:
    assert [told(found) for found in mistakes(tree, text)] == [told(line)]


@pytest.mark.parametrize("metric", ["sfd"])
def test_a_metric_that_the_extractor_cannot_give_is_refused(tree: Tree, metric: str) -> None:
    text = SEARCH + f"objective: {{metric: {metric}}}\n"
    (line,) = mistakes(tree, text)
    assert told(line)[:2] == ("experiments/search/s.yaml:7", "objective.metric")
    assert "inception" in line
    assert load(tree, text, "evaluate.extractor=inception").objective.metric == metric


def test_values_on_several_extractors_are_not_searched_over(tree: Tree) -> None:
    text = with_space("evaluate.extractor: [inception, efficientnet_lite0]")
    (line,) = mistakes(tree, text + "objective: {metric: fd}\n")
    assert told(line)[:2] == ("experiments/search/s.yaml:5", "objective.metric")
    assert load(tree, text).objective.metric == "validation_loss"


def test_a_blank_question_is_refused(tree: Tree) -> None:
    (line,) = mistakes(tree, SEARCH.replace("Which value?", "' '"))
    assert told(line)[:2] == ("experiments/search/s.yaml:1", "question")


def test_what_is_searched_over_cannot_be_set(tree: Tree) -> None:
    assert mistakes(tree, SEARCH, "train.learning_rate=1e-3") == [
        "command line: train.learning_rate: is searched over, so it cannot be set as well"
    ]


def test_all_mistakes_are_told_at_once(tree: Tree) -> None:
    text = with_space("train.stpes: {low: 1, high: 2}", "train.steps: {low: 2, high: 1}")
    assert len(mistakes(tree, text, "model.dept=3")) == 3


def test_an_unknown_search_names_the_nearest(tree: Tree) -> None:
    tree.write("search/s.yaml", SEARCH)
    with pytest.raises(ConfigError, match="unknown search 'ss'.*did you mean s?"):
        load_search("ss", scale="small", overrides=[], experiments_dir=tree.root)


@pytest.mark.parametrize("scale", ["digits", "smoke", "cifar10"])
@pytest.mark.parametrize("name", names("search", EXPERIMENTS))
def test_every_search_that_ships_loads_and_tries_its_base_first(name: str, scale: str) -> None:
    search = load_search(name, scale=scale, overrides=[], experiments_dir=EXPERIMENTS)
    assert search.default is not None


def test_every_search_that_ships_is_listed_with_its_question_and_header() -> None:
    listed = list_files("search", EXPERIMENTS)
    assert listed
    assert [entry for entry in listed if entry.error or not entry.about] == []
    for entry in listed:
        text = (EXPERIMENTS / "search" / f"{entry.name}.yaml").read_text(encoding="utf-8")
        for word in ("# Question:", "# Command:", "# Time:", "# Found:"):
            assert word in text.split("\n\n")[0]
