"""Answers of the command: a JSON document, or tables for a terminal of any width, where no word is cut off."""

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
        words: headings of columns of words, besides the first; the others are numbers, which stand to the right.
        total: a last row, under a line.
        caption: stands below.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[str] = ()
    total: Sequence[str] = ()
    caption: str = ""


@dataclass(frozen=True)
class Answer:
    """All that a command has to say.

    Attributes:
        document: everything, for JSON.
        grids: what a person looks for.
        lead: stands above them.
        notes: stand below, a line each.
    """

    document: dict[str, Any]
    grids: Sequence[Grid]
    lead: str = ""
    notes: Sequence[str] = ()


def print_answer(answer: Answer, *, as_json: bool) -> None:
    """Print the document, or the tables with what stands around them."""
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

    Columns narrow down to their longest words, those of numbers to their longest number, and then give up the space
    beside it.  Where that is wider than the terminal the table is wider too: a terminal breaks such lines, and a file
    or a pipe keeps them whole.
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
    """What is to stay on one line: a word, and in a column of numbers a number with its spread."""
    words = str(column.header).split()
    for cell in map(str, column.cells):
        words += [cell] if column.justify == "right" else cell.split()
    return max(map(cell_len, words), default=0)
