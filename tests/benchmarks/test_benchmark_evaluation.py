from __future__ import annotations

import pytest

from benchmarks.__main__ import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--count", "1"), "--count is 1, but must be at least 2"),
        (("--rounds", "0"), "--rounds is 0, but must be at least 1"),
        (("--count", "900"), "--count is 900, but there are 898 digits"),
        (("--samples", "x"), "--samples and --reference belong together"),
        (("--samples", "x", "--reference", "y"), "x is no folder of images"),
        (("--weights", "nowhere.pth"), "no file of weights nowhere.pth"),
    ],
)
def test_mistakes_are_one_line_before_anything_runs(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluation", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
