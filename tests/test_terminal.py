"""What `plan`, `cost` and a training's dry run print, on terminals of several widths and into a pipe."""

import re

import pytest
from conftest import ROOT
from typer.testing import CliRunner

from varient.cli import app
from varient.terminal import Grid, print_grid

DRY_RUN = ["train", "supernet", "--config", str(ROOT / "workflow/config/imagenet256.yaml"), "--depth", "16", "t", "b",
           "-o", "x", "--dry-run", "h100:8"]


@pytest.mark.parametrize(("arguments", "answers"), [
    (["plan", "--memory", "12GiB"], ("2.05", "9877", "1.87", "fp16,", "lean", "cache", "paper,")),
    (["cost", "--system", "code-n6"], ("2,320,303,876", "arithmetic", "272.61", "1.173")),
    (["cost", "--compare"], ("variant-d16", "llamagen-xxl,", "error")),
    (DRY_RUN, ("token-layers", "32,025,600", "347,072", "estimated", "(sd")),
])
@pytest.mark.parametrize("columns", [40, 60, 80, 100, None])
def test_no_word_is_cut_off_at_any_width(arguments, answers, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns)) if columns else monkeypatch.delenv("COLUMNS", raising=False)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    words = re.split(r"[\s│┃]+", result.output)
    assert "…" not in result.output and set(answers) <= set(words)
    if columns and columns >= 80:
        assert max(len(line) for line in result.output.splitlines() if line[:1] in "│┃┏┡└├") <= columns


def test_columns_narrow_and_lose_their_margins_before_the_table_grows_beyond_its_terminal(capsys, monkeypatch):
    def width(columns):
        monkeypatch.setenv("COLUMNS", str(columns))
        print_grid(Grid("a title that is longer than its table", ("name", "number"), [("some words in a row", "123")],
                        words=("number",)))
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "a title that is longer than its table"
        return max(map(len, lines[1:]))

    assert width(100) == len("some words in a row") + len("number") + 7
    assert width(25) == 25 and width(10) == len("words") + len("number") + 3
