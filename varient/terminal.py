"""Output of the commands: a JSON document, or tables that fit the terminal without cutting words off."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table

_BORDER, _PADDING = 1, 2


@dataclass(frozen=True)
class Grid:
    """A table of text.

    Attributes:
        words: headings of the text columns besides the first; all other columns are numbers, aligned to the right.
        total: last row, below a line.
        caption: text below the table.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[str] = ()
    total: Sequence[str] = ()
    caption: str = ""


@dataclass(frozen=True)
class Answer:
    """The output of a command.

    Attributes:
        document: the complete output, for JSON.
        grids: tables for the terminal.
        lead: text above the tables.
        notes: lines below the tables.
    """

    document: dict[str, Any]
    grids: Sequence[Grid]
    lead: str = ""
    notes: Sequence[str] = ()


def print_answer(answer: Answer, *, as_json: bool) -> None:
    """Print the JSON document, or the tables with the text above and below them."""
    if as_json:
        print(json.dumps(answer.document, indent=2))
        return
    if answer.lead:
        print(answer.lead)
    for grid in answer.grids:
        print_grid(grid)
    for note in answer.notes:
        print(note)


def print_grid(grid: Grid) -> None:
    """Print a table with its title above and its caption below.

    To fit the terminal, text columns shrink to their longest word and number columns to their longest number, and then
    the padding is dropped.  If that is still too wide, the table exceeds the width of the terminal, which wraps the
    lines; in a file or pipe they stay whole.
    """
    table = Table()
    for at, heading in enumerate(grid.headings):
        table.add_column(heading, justify="left" if at == 0 or heading in grid.words else "right")
    for row in grid.rows:
        table.add_row(*row)
    if grid.total:
        table.add_section()
        table.add_row(*grid.total)
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
    console = Console(width=max(console.width, sum(wanted) + edges), markup=False)
    for part in (grid.title, table, grid.caption):
        if part:
            console.print(part, soft_wrap=isinstance(part, str), highlight=not isinstance(part, str))


def _longest_text(column: Column) -> int:
    return max(map(cell_len, (str(column.header), *map(str, column.cells))))


def _longest_part(column: Column) -> int:
    """Width of the longest unbreakable part: a word, or, in a number column, a number with its uncertainty."""
    words = str(column.header).split()
    for cell in map(str, column.cells):
        words += [cell] if column.justify == "right" else cell.split()
    return max(map(cell_len, words), default=0)
