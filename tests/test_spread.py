"""± has one meaning and one form."""

import re

import pytest
from conftest import ROOT

from varient.spread import DECIMALS, half_width, joined, with_spread


@pytest.mark.parametrize(("value", "sd", "decimals", "shown"), [
    (0.6664, 0.029, 3, "0.666 ± 0.057"), (0.6664, None, 3, "0.666"), (9.5, 0.028, 2, "9.50 ± 0.05"),
    (2.0, 0.0, 1, "2.0 ± 0.0")])
def test_a_value_with_half_of_its_95_percent_interval(value, sd, decimals, shown):
    assert with_spread(value, sd, decimals) == shown


def test_texts_are_joined_the_same_way():
    assert joined("0.666", "0.057") == with_spread(0.666, 0.057 / 1.96, DECIMALS["fid"]) and joined("1", "") == "1"
    assert half_width(1.0) == 1.96


def test_no_other_module_writes_one():
    """Whoever shows a spread takes it from here; others may speak of ± in notes."""
    written = {path.relative_to(ROOT).as_posix() for path in (ROOT / "varient").rglob("*.py")
               if re.search(r"± [{%]|} ±|2 \* \w+\.?\w*_sd", path.read_text())}
    assert written == {"varient/spread.py"}


@pytest.mark.parametrize("page", ["README.md", "docs/findings.md"])
def test_every_spread_in_a_document_is_that_of_a_committed_result(page):
    results = "\n".join(path.read_text() for path in sorted((ROOT / "docs/results").glob("*.md")))
    shown = re.findall(r"\d+\.\d+ ± \d+\.\d+", (ROOT / page).read_text())
    assert shown and [value for value in shown if value not in results] == []
