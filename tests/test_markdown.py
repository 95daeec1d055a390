"""What Markdown shows of a text is the text: seen by a parser of GitHub's tables."""

from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from varient import markdown

SPECIAL = "\\`*_{}[]()#+-.!|<>&~$^%\"':\n\r\t"
TEXT = st.text(st.sampled_from(SPECIAL + "aé1 ") | st.characters(exclude_categories=("Cs", "Cc")), max_size=20)
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def _cells(text):
    """Rows of what is shown; markup of any kind in a cell fails."""
    rows = []
    for token in PARSER.parse(text):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            assert {child.type for child in token.children} <= {"text", "text_special"}, text
            rows[-1].append("".join(child.content for child in token.children))
    return rows


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=3))
@example(rows=[("a | b", "*x* _y_ `z`", "<b>&amp;</b>"), ("\\|", "[a](b) ![c](d)", "~~e~~ $f$"),
               ("__g__", "a_b_c", "\n\n# h")])
def test_every_cell_of_a_table_is_shown_as_it_is(rows):
    shown = _cells(markdown.table(rows[0], rows))
    assert shown == [[" ".join(cell.split()) for cell in row] for row in (rows[0], *rows)]


def test_underscores_within_words_stay_as_they_are():
    assert markdown.escaped("weights/var_d30.pth, _kept_") == r"weights/var_d30.pth, \_kept\_"
