from __future__ import annotations

import json
from pathlib import Path

from harness.tracking.delivery import (
    PUBLISHED_FILE,
    Published,
    is_complete,
    load_published,
    save_published,
)


def test_each_store_has_its_own_entry(tmp_path: Path) -> None:
    here, there = Published("1", "aaa", 10), Published("7", "bbb", 20, postponed=(3, 5))
    save_published(tmp_path, "sqlite:///a.db", here)
    save_published(tmp_path, "http://host:5000", there)
    assert load_published(tmp_path, "sqlite:///a.db") == here
    assert load_published(tmp_path, "http://host:5000") == there
    save_published(tmp_path, "sqlite:///a.db", None)
    assert load_published(tmp_path, "sqlite:///a.db") is None
    assert [path.name for path in tmp_path.iterdir()] == [PUBLISHED_FILE]


def test_an_unreadable_file_counts_as_never_sent(tmp_path: Path) -> None:
    for content in ("", "{", "[]", json.dumps({"x": {"run_id": "a"}}), json.dumps({"x": 3})):
        (tmp_path / PUBLISHED_FILE).write_text(content)
        assert load_published(tmp_path, "x") is None


def test_a_journal_is_complete_when_sent_to_its_end_with_nothing_postponed(tmp_path: Path) -> None:
    (tmp_path / "tracking.jsonl").write_bytes(b"12345678\n")
    assert not is_complete(tmp_path, "x")
    for published, complete in [
        (Published("1", "a", 8), False),
        (Published("1", "a", 9, postponed=(0,)), False),
        (Published("1", "a", 9), True),
    ]:
        save_published(tmp_path, "x", published)
        assert is_complete(tmp_path, "x") is complete
