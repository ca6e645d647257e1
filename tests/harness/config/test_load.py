from __future__ import annotations

from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import pytest

from harness.config.cluster import LocalCluster
from harness.config.load import load_ablation, load_cluster
from harness.config.mistakes import ConfigError
from tests.support.messages import told

if TYPE_CHECKING:
    from tests.harness.conftest import Tree


def test_an_ablation_is_every_variant_with_every_seed_seed_by_seed(tree: Tree) -> None:
    ablation = tree.load()
    assert (ablation.name, ablation.scale, ablation.baseline) == ("x", "small", "full")
    assert ablation.question == "Does it work?"
    assert ablation.variants == ("full", "plain")
    pairs = [(trial.seed, trial.variant) for trial in ablation.trials]
    assert pairs == [(0, "full"), (0, "plain"), (1, "full"), (1, "plain")]
    assert [trial.config.attention.name for trial in ablation.trials] == ["dydila", "sana"] * 2


def test_a_trial_has_a_folder_of_its_own_that_carries_its_hash(tree: Tree) -> None:
    trials = tree.load().trials
    assert len({trial.hash for trial in trials}) == 4
    for trial in trials:
        name = f"seed{trial.seed}-{trial.hash}"
        assert trial.folder == PurePath("small") / trial.variant / name


def test_seeds_on_the_command_line_count_from_zero(tree: Tree) -> None:
    tree.write("ablation/y.yaml", (tree.root / "ablation/x.yaml").read_text().replace("0, 1", "7"))
    assert [trial.seed for trial in tree.load(name="y").trials] == [7, 7]
    assert [trial.seed for trial in tree.load(name="y", seeds=3).trials] == [0, 0, 1, 1, 2, 2]
    with pytest.raises(ConfigError, match=r"^command line: seeds: got 0; expected a whole number"):
        tree.load(seeds=0)


def test_each_layer_goes_over_the_one_below(tree: Tree) -> None:
    keys = ("batch_size", "steps", "warmup_steps", "log_every")
    tree.write("base.yaml", (tree.root / "base.yaml").read_text().replace("size: 256", "size: 1"))
    tree.write(
        "scale/small.yaml",
        "extends: ../base.yaml\ntrain: {steps: 2, warmup_steps: 2, log_every: 2}\n"
        "attention: {name: dydila, kernel: relu, n_kernels: 2}\n",
    )
    tree.write(
        "ablation/x.yaml",
        "question: q\nbaseline: a\nseeds: [0]\n"
        "settings: {train: {warmup_steps: 3, log_every: 3}}\n"
        "variants:\n"
        "  a: {}\n"
        "  b: {train.log_every: 4, train.weight_decay: 4, attention.n_kernels: 4}\n"
        "  c: {attention: {name: sana}}\n"
        "  d: {attention: {name: dydila, n_kernels: 5}}\n",
    )
    values = {
        trial.variant: [getattr(trial.config.train, key) for key in keys]
        for trial in tree.load().trials
    }
    assert values == {"a": [1, 2, 3, 3], "b": [1, 2, 3, 4], "c": [1, 2, 3, 3], "d": [1, 2, 3, 3]}
    overridden = tree.load("train.log_every=9", "train.steps=9").trials
    assert [trial.config.train.log_every for trial in overridden] == [9] * 4
    attention = {trial.variant: trial.config.attention for trial in tree.load().trials}
    kernels = {name: config.model_dump() for name, config in attention.items()}
    assert kernels["a"]["kernel"] == kernels["b"]["kernel"] == kernels["d"]["kernel"] == "relu"
    assert [kernels[name]["n_kernels"] for name in "abd"] == [2, 4, 5]
    assert "kernel" not in kernels["c"]


def test_the_unquoted_word_off_switches_the_difference_off(tree: Tree) -> None:
    tree.write(
        "ablation/x.yaml",
        "question: q\nbaseline: a\nseeds: [0]\nvariants:\n"
        "  a: {}\n  b:\n    attention:\n      differential: off\n  c: {attention.differential: off,"
        " train.steps: 3}\n",
    )
    for variant in tree.load().trials[1:]:
        assert variant.config.attention.model_dump()["differential"] == "off"


def test_variants_that_overrides_make_equal_are_a_mistake(tree: Tree) -> None:
    assert tree.mistakes("attention={name: sana}") == [
        "experiments/ablation/x.yaml:6: variants.plain: is the same configuration as variant full; "
        "expected a difference"
    ]


def test_unknown_names_and_keys_are_told_together(tree: Tree) -> None:
    assert tree.mistakes("train.stpes=4", name="y", scale="smal") == [
        "command line: ablation: unknown ablation 'y'; expected one of x",
        "command line: scale: unknown scale 'smal'; expected one of small (did you mean small?)",
        "command line: train.stpes: unknown key (did you mean train.steps?)",
    ]


@pytest.mark.parametrize("name", ["../ablation/x", "/etc/passwd", "x.yaml", ".", "", "x\0"])
def test_a_name_never_becomes_a_path(tree: Tree, name: str) -> None:
    for kind in ("ablation", "scale"):
        lines = tree.mistakes(**{"name" if kind == "ablation" else "scale": name})
        assert len(lines) == 1
        assert lines[0].startswith(f"command line: {kind}: unknown {kind} '")


def test_a_broken_scale_does_not_hide_the_mistakes_of_the_ablation(tree: Tree) -> None:
    tree.write("scale/small.yaml", "extends: [\n")
    tree.write("ablation/x.yaml", "question: q\nbaseline: a\nseeds: [0]\nvariants: {b: {}}\n")
    lines = tree.mistakes()
    assert [line.split(": ")[0] for line in lines] == [
        "experiments/ablation/x.yaml:2",
        "experiments/scale/small.yaml:2",
    ]


def test_files_outside_the_current_folder_are_named_in_full(
    tree: Tree, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    tree.write("scale/small.yaml", "extends: ../base.yaml\ntrain.steps: 0\n")
    (line,) = tree.mistakes()
    assert told(line) == (f"{tree.root}/scale/small.yaml:2", "train.steps", None)


def test_a_relative_experiments_folder_works(tree: Tree) -> None:
    relative = load_ablation(
        "x", scale="small", seeds=1, overrides=[], experiments_dir=Path("experiments")
    )
    assert relative == tree.load(seeds=1)


CLUSTER = """\
about: here
launcher: local
workers: auto
threads_per_worker: auto
processes_per_trial: 1
"""


def test_cluster_overrides_reach_the_cluster_and_not_the_trials(tree: Tree) -> None:
    tree.write("cluster/local.yaml", CLUSTER)
    overrides = ["train.steps=3", "cluster.workers=2"]
    cluster = load_cluster("local", overrides, tree.root)
    assert isinstance(cluster, LocalCluster)
    assert (cluster.launcher, cluster.workers, cluster.threads_per_worker) == ("local", 2, "auto")
    assert tree.load(*overrides) == tree.load("train.steps=3")


@pytest.mark.parametrize(
    ("name", "overrides", "found"),
    [
        ("lcal", [], [("cluster", "local")]),
        ("local", ["cluster.wrkers=2"], [("cluster.wrkers", "cluster.workers")]),
        (
            "local",
            ["cluster.workers=0", "cluster.threads_per_worker=x"],
            [("cluster.workers", None), ("cluster.threads_per_worker", None)],
        ),
        ("local", ["cluster.workers=auot"], [("cluster.workers", "auto")]),
        ("local", ["cluster=local"], [("cluster", None)]),
    ],
)
def test_a_mistake_about_the_cluster_is_one_line(
    tree: Tree, name: str, overrides: list[str], found: list[tuple[str, str | None]]
) -> None:
    tree.write("cluster/local.yaml", CLUSTER)
    with pytest.raises(ConfigError) as caught:
        load_cluster(name, overrides, tree.root)
    lines = str(caught.value).split("\n")
    assert [told(line) for line in lines] == [("command line", *one) for one in found]


def test_a_mistake_in_the_cluster_file_names_its_line(tree: Tree) -> None:
    text = CLUSTER.replace("workers: auto\nt", "wrkers: auto\nworkers: 1.5\nt")
    tree.write("cluster/local.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load_cluster("local", [], tree.root)
    file = "experiments/cluster/local.yaml"
    assert [told(line) for line in str(caught.value).split("\n")] == [
        (f"{file}:3", "wrkers", "workers"),
        (f"{file}:4", "workers", None),
    ]


def test_a_cluster_file_without_a_known_launcher_is_told_which_there_are(tree: Tree) -> None:
    for line, problem in (
        ("lancher: local", "1: launcher: missing key"),
        ("launcher: lokal", "2: launcher: got 'lokal'"),
    ):
        tree.write("cluster/local.yaml", CLUSTER.replace("launcher: local", line))
        with pytest.raises(ConfigError) as caught:
            load_cluster("local", [], tree.root)
        (text,) = str(caught.value).split("\n")
        assert text.startswith(f"experiments/cluster/local.yaml:{problem}")
        assert "expected one of local, slurm" in text
