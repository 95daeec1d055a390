"""LaTeX of hostile cells: read back by a small reader of LaTeX, they are what they were."""

import re

import pandas as pd
from hypothesis import example, given, settings
from hypothesis import strategies as st

from varient.report.cells import latex

SPECIAL = "\\{}$&#^_~%[]*|<>\"'`\n\r\t"
TEXT = st.text(st.sampled_from(SPECIAL + "aé1 "), max_size=20)
_WORDS = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "space": " "}
_TOKEN = re.compile(r"\\(?P<word>[A-Za-z]+) ?|\\(?P<symbol>[&%$#_{}])|\{(?P<kept>[\[*])\}|(?P<plain>[^\\{}$&#^_~%\[*])")


def _read(cell):
    """The text that LaTeX shows; a special character that is not escaped fails."""
    shown, at = "", 0
    while at < len(cell):
        token = _TOKEN.match(cell, at)
        assert token, f"{cell[at:]!r} is not escaped"
        shown += _WORDS[token["word"]] if token["word"] else token["symbol"] or token["kept"] or token["plain"]
        at = token.end()
    return shown


@settings(max_examples=300, deadline=None)
@given(head=st.tuples(TEXT, TEXT).filter(lambda head: " ".join(head[0].split()) != " ".join(head[1].split())),
       rows=st.lists(st.tuples(TEXT, TEXT), max_size=3))
@example(head=("a", "b"), rows=[("$x^2_{~}$", "100 % & #1"), ("[2pt]", "*"), ("\\ a", "\\input{x}"), ("~ ^ ", "a\nb")])
def test_every_cell_of_a_tabular_is_shown_as_it_is(head, rows):
    lines = latex(pd.DataFrame(rows, columns=list(head), dtype=str), "note\n\\input{x}\r\\end").splitlines()
    assert [line for line in lines if not line.startswith("%")] == lines[3:] and lines[3] == r"\begin{tabular}{lr}"
    shown = [line.removesuffix(r" \\") for line in lines if line.endswith(r" \\")]
    cells = [[" ".join(_read(cell).split()) for cell in re.split(r"(?<!\\)&", line)] for line in shown]
    assert cells == [[" ".join(cell.split()) for cell in row] for row in (head, *rows)]
