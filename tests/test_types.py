"""What the type checker is asked to look at, and what it is not."""

import tomllib

from conftest import ROOT

MYPY = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]


def test_no_module_is_left_out():
    assert not [part["module"] for part in MYPY["overrides"] if part.get("ignore_errors")]


def test_every_baseline_is_checked():
    folders = {f"varient.baselines.{path.parent.name}" for path in (ROOT / "baselines").glob("*/__init__.py")}
    assert folders and folders == set(MYPY["packages"]) - {"varient"}
    assert (ROOT / ".types/varient/baselines").resolve() == ROOT / "baselines"


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "varient/py.typed").read_text() == ""
