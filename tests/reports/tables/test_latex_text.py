from __future__ import annotations

import pytest

from reports.tables.latex import latex_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no_kernel", r"no\_kernel"),
        ("a_b%&#$", r"a\_b\%\&\#\$"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("x^2~y", r"x\textasciicircum{}2\textasciitilde{}y"),
        ("a<b>c|d", r"a\textless{}b\textgreater{}c\textbar{}d"),
        ("1.0 \u00b1 0.1 \u2193", r"1.0 $\pm$ 0.1 $\downarrow$"),
        ("caf\u00e9 \u2013 na\u00efve", "caf\u00e9 -- na\u00efve"),
        ("\u6f22 \u2078", "? 8"),
        ("\u03bb \u2264 0.5", r"$\lambda$ $\leq$ 0.5"),
        ("\u0393\u2192\u221e", r"$\Gamma$$\to$$\infty$"),
        ("\u0391\u03a7\u03bf", "AXo"),
        ("\u03c2\u03ac", r"$\varsigma$$\alpha$"),
        ("5 \u00b5s, 10 \u00b0", r"5 $\mu$s, 10 $^\circ$"),
        ("two\n\nlines\t.", "two lines ."),
        ("bell\x07", "bell?"),
    ],
)
def test_text_becomes_latex_that_prints_it(text: str, expected: str) -> None:
    assert latex_text(text) == expected
