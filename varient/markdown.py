"""Text and tables as Markdown (GitHub's), whatever characters they hold.

Not pandas' `to_markdown`: tabulate, which it calls, escapes nothing, pads the columns, so that one long cell changes
every line, and takes cells that look like numbers for numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SPECIAL = re.compile(r"[\\`*<>&\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
"""What could be read as markup; an underscore within a word is none."""


def escaped(text: str) -> str:
    """Text on one line that Markdown shows as it is."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain text."""
    lines = [map(escaped, head), ["---"] * len(head), *(map(escaped, row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
