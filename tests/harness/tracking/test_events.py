from __future__ import annotations

from pathlib import Path

from harness.tracking.events import resolve_links, run_link


def test_links_survive_odd_folder_names_and_a_moved_tree(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    name = "no (kernel) 50% é/seed0"
    text = f'{{"run_id": "{run_link(before / name, before / "reports")}"}} and more'
    asked: list[Path] = []

    def run_id_of(folder: Path) -> str:
        asked.append(folder)
        return "abc"

    resolved = resolve_links(text, after / "reports", run_id_of)
    assert resolved == '{"run_id": "abc"} and more'
    assert asked == [after / name]


def test_text_without_links_is_left_alone() -> None:
    text = "run-id-of no one (really), 3 (cut)"
    assert resolve_links(text, Path("/"), lambda folder: "x") == text
