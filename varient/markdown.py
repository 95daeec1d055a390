"""Text and tables as GitHub Markdown, with all special characters escaped.

pandas' `to_markdown` is not used: it calls tabulate, which does not escape, pads columns (so that one long cell changes
every line) and reformats text that looks like a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"[\\`*<>&\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
"""Characters that Markdown could read as markup; an underscore within a word is not markup."""


def escaped(text: str) -> str:
    """Text on one line, escaped so that Markdown shows it unchanged."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain text."""
    lines = [map(escaped, head), ["---"] * len(head), *(map(escaped, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
