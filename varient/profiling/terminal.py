"""Tables for a terminal of any width: words may go to a next line, none is cut off."""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

_BORDER, _PADDING = 1, 2


def print_table(table: Table) -> None:
    """Print a table with its title above and its caption below.

    Columns narrow down to their longest words.  Where that is wider than the terminal the table is wider too: a
    terminal breaks such lines, and a file or a pipe keeps them whole.
    """
    wanted, least = ([measure(_texts(table, at)) for at in range(len(table.columns))] for measure in (_lines, _words))
    edges = _BORDER + len(wanted) * (_BORDER + _PADDING)
    console = Console()
    while sum(wanted) + edges > console.width and wanted != least:
        widest = max((at for at in range(len(wanted)) if wanted[at] > least[at]), key=wanted.__getitem__)
        wanted[widest] -= 1
    for column, width in zip(table.columns, wanted, strict=True):
        column.width = width
    console = Console(width=max(console.width, sum(wanted) + edges))
    title, caption = table.title, table.caption
    table.title = table.caption = None
    for part in (title, table, caption):
        if part:
            console.print(part, soft_wrap=isinstance(part, str), highlight=not isinstance(part, str))


def _texts(table: Table, at: int) -> list[str]:
    column = table.columns[at]
    return [str(column.header), *map(str, column.cells)]


def _lines(texts: list[str]) -> int:
    return max(map(cell_len, texts))


def _words(texts: list[str]) -> int:
    return max(cell_len(word) for text in texts for word in text.split() or [""])
