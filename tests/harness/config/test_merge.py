from __future__ import annotations

import random
from typing import Any

import pytest

from harness.config.layers import merge, nest, overrides_layer
from harness.config.mistakes import COMMAND_LINE, Mistake, Origin
from harness.config.yaml_source import Node

TAGS = {"attention": "name"}


def _node(value: Any, source: str = "a", line: int = 1) -> Node:
    origin = Origin(source, line)
    if isinstance(value, dict):
        return Node({key: _node(child, source, line) for key, child in value.items()}, origin)
    if isinstance(value, list):
        return Node(tuple(_node(child, source, line) for child in value), origin)
    return Node(value, origin)


def _flat(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(value, dict):
        return {path: value}
    leaves: dict[tuple[str, ...], Any] = {}
    for key, child in value.items():
        leaves |= _flat(child, (*path, key))
    return leaves


def _random_tree(random_: random.Random, depth: int) -> Any:
    """Maps on the upper levels, scalars and lists at the bottom, so that kinds never clash."""
    if depth == 0:
        return random_.choice([1, 2.5, "x", None, True, [1, 2]])
    keys = random_.sample("abcd", random_.randrange(1, 4))
    return {key: _random_tree(random_, depth - 1) for key in keys}


@pytest.mark.parametrize("seed", range(20))
def test_merging_is_updating_the_flat_leaves(seed: int) -> None:
    random_ = random.Random(seed)
    layers = [_random_tree(random_, depth=3) for _ in range(4)]
    expected: dict[tuple[str, ...], Any] = {}
    for layer in layers:
        expected |= _flat(layer)
    assert _flat(merge([_node(layer) for layer in layers], {}).plain()) == expected


def test_a_value_keeps_the_place_of_the_layer_it_comes_from() -> None:
    merged = merge(
        [_node({"s": {"a": 1, "b": 2}}, "base", 3), _node({"s": {"b": 3}}, "over", 9)], {}
    )
    places = {key: str(node.origin) for key, node in merged.entries()["s"].entries().items()}
    assert places == {"a": "base:3", "b": "over:9"}


def test_lists_and_scalars_replace_and_maps_and_scalars_replace_each_other() -> None:
    below = _node({"a": [1, 2, 3], "b": {"c": 1}, "d": 1})
    above = _node({"a": [4], "b": 5, "d": {"e": 6}})
    assert merge([below, above], {}).plain() == {"a": [4], "b": 5, "d": {"e": 6}}


def test_another_name_replaces_a_section_and_the_same_name_does_not() -> None:
    below = _node({"attention": {"name": "dydila", "kernel": "relu", "eps": 1.0}})
    other = _node({"attention": {"name": "sana", "eps": 2.0}})
    same = _node({"attention": {"name": "dydila", "eps": 2.0}})
    none = _node({"attention": {"eps": 2.0}})
    assert merge([below, other], TAGS).plain() == {"attention": {"name": "sana", "eps": 2.0}}
    kept = {"attention": {"name": "dydila", "kernel": "relu", "eps": 2.0}}
    assert merge([below, same], TAGS).plain() == kept
    assert merge([below, none], TAGS).plain() == kept
    assert merge([none, same], TAGS).plain() == {"attention": {"name": "dydila", "eps": 2.0}}


@pytest.mark.parametrize(
    ("section", "nested"),
    [
        ({"a.b": 1}, {"a": {"b": 1}}),
        ({"a.b.c": 1, "a.b.d": 2, "a.e": 3}, {"a": {"b": {"c": 1, "d": 2}, "e": 3}}),
        ({"a.b": 1, "a": {"c": 2}}, {"a": {"b": 1, "c": 2}}),
        ({"a": {"b.c": 1, "d": 2}}, {"a": {"b": {"c": 1}, "d": 2}}),
        ({"a.b": {"c.d": 1}, "a": {"b.c": {"e": 2}}}, {"a": {"b": {"c": {"d": 1, "e": 2}}}}),
        ({"a": {}, "b": []}, {"a": {}, "b": []}),
        ({}, {}),
    ],
)
def test_dotted_keys_are_nested_maps(section: Any, nested: Any) -> None:
    mistakes: list[Mistake] = []
    assert nest(_node(section), mistakes).plain() == nested
    assert not mistakes


@pytest.mark.parametrize(
    ("section", "lines"),
    [
        ({"a.b": 1, "a": {"b": 2}}, ["f:1: a.b: set twice, first at f:1"]),
        ({"a": 1, "a.b": 2}, ["f:1: a: set twice, first at f:1"]),
        ({"s": {"a.b": 1, "a": {"b": 2}}}, ["f:1: s.a.b: set twice, first at f:1"]),
        ({"s.t": {"a.b": 1, "a": {"b": 2}}}, ["f:1: s.t.a.b: set twice, first at f:1"]),
        ({"a.": 1}, ["f:1: a.: is not a key; expected names between the dots"]),
        ({"s": {".a": 1}}, ["f:1: s..a: is not a key; expected names between the dots"]),
        (
            {"a." * 2000 + "a": 1},
            [f"f:1: {'a.' * 2000}a: is not a key; expected names between the dots"],
        ),
        ({"": 1}, ["f:1: is not a key; expected names between the dots"]),
    ],
)
def test_a_key_set_twice_or_without_a_name_is_a_mistake(section: Any, lines: list[str]) -> None:
    mistakes: list[Mistake] = []
    nest(_node(section, "f"), mistakes)
    assert [str(mistake) for mistake in mistakes] == lines


def test_overrides_make_one_layer_that_comes_from_the_command_line() -> None:
    mistakes: list[Mistake] = []
    words = ["train.steps=200", "attention={name: sana}", "attention.eps=1e-8", "data.path=a=b"]
    layer = overrides_layer(words, mistakes)
    assert not mistakes
    assert layer.plain() == {
        "train": {"steps": 200},
        "attention": {"name": "sana", "eps": 1e-8},
        "data": {"path": "a=b"},
    }
    steps = layer.find(("train", "steps"))
    assert steps is not None
    assert steps.origin == COMMAND_LINE


@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        (
            ["train.steps", "=3", "--fast"],
            [
                f"command line: '{word}' is no override; expected key=value, as in train.steps=200"
                for word in ("train.steps", "=3", "--fast")
            ],
        ),
        (["a.b=1", "a.b=1"], ["command line: a.b: set twice"]),
        (["a=1", "a.b=1"], ["command line: a: set twice"]),
        (["a..b=1"], ["command line: a..b: is not a key; expected names between the dots"]),
    ],
)
def test_a_malformed_override_is_a_mistake(overrides: list[str], lines: list[str]) -> None:
    mistakes: list[Mistake] = []
    overrides_layer(overrides, mistakes)
    assert [str(mistake) for mistake in mistakes] == lines
