"""What the type checker is asked to look at, and what it is not."""

import tomllib

import pytest
from conftest import ROOT

from varient.sources import stage_sources

MYPY = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
MOST_UNMENDED = 20
"""Modules that may have errors: lower it whenever one is mended."""


def _unmended() -> list[str]:
    (modules,) = (part["module"] for part in MYPY["overrides"] if part.get("ignore_errors"))
    return modules


def test_modules_with_errors_become_fewer():
    assert _unmended() == sorted(set(_unmended())) and len(_unmended()) <= MOST_UNMENDED


@pytest.mark.parametrize("module", _unmended())
def test_each_of_them_is_there(module):
    assert stage_sources(module)


def test_every_baseline_is_checked():
    folders = {f"varient.baselines.{path.parent.name}" for path in (ROOT / "baselines").glob("*/__init__.py")}
    assert folders and folders == set(MYPY["packages"]) - {"varient"}
    assert (ROOT / ".types/varient/baselines").resolve() == ROOT / "baselines"


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "varient/py.typed").read_text() == ""
