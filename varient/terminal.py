"""Tables for a terminal of any width: words may go to a next line, none is cut off."""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table

_BORDER, _PADDING = 1, 2


def print_table(table: Table) -> None:
    """Print a table with its title above and its caption below.

    Columns narrow down to their longest words, those of numbers to their longest number, and then give up the space
    beside it.  Where that is wider than the terminal the table is wider too: a terminal breaks such lines, and a file
    or a pipe keeps them whole.
    """
    console = Console()
    wanted, least = [list(map(measure, table.columns)) for measure in (_longest_text, _longest_part)]
    edges = _BORDER + len(wanted) * (_BORDER + _PADDING)
    if sum(least) + edges > console.width:
        table.padding, edges = 0, _BORDER + len(wanted) * _BORDER
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


def _longest_text(column: Column) -> int:
    return max(map(cell_len, (str(column.header), *map(str, column.cells))))


def _longest_part(column: Column) -> int:
    """What is to stay on one line: a word, and in a column of numbers a number with its spread."""
    words = str(column.header).split()
    for cell in map(str, column.cells):
        words += [cell] if column.justify == "right" else cell.split()
    return max(map(cell_len, words), default=0)
