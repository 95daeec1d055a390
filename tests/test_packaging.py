"""What the project says of itself in several files is the same in each."""

import json
import re
import tomllib

import pytest
import yaml
from conftest import ROOT

from varient.config import ExperimentConfig

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line)


def _plain(name: str) -> str:
    return re.split(r"[\[<>=]", name)[0].strip().lower().replace("_", "-")


def _conda() -> dict[str, str]:
    (pip,) = (part["pip"] for part in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
              if isinstance(part, dict))
    return dict(line.split("==") for line in pip)


def test_conda_gets_the_locked_versions():
    locked = {_plain(name): version for name, version in LOCK.items()}
    assert {name: locked.get(_plain(name)) for name in _conda()} == _conda()


def test_conda_gets_all_that_is_declared_and_so_does_the_lock():
    lines = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    declared = {_plain(line) for line in lines} - {"varient"}
    assert len(declared) > 20
    assert declared <= set(map(_plain, _conda())) and declared <= set(map(_plain, LOCK))


def test_all_is_every_extra_but_that_of_tests():
    (whole,) = PROJECT["optional-dependencies"]["all"]
    assert set(re.search(r"\[(.*)\]", whole)[1].split(",")) == set(PROJECT["optional-dependencies"]) - {"all", "test"}


def test_the_workflow_and_the_package_name_the_same_least_snakemake():
    (workflow,) = (line for line in PROJECT["optional-dependencies"]["workflow"] if line.startswith("snakemake"))
    assert f'min_version("{workflow.partition(">=")[2]}")' in (ROOT / "Snakefile").read_text()


def test_the_oldest_python_and_torch_that_are_claimed_are_tried():
    ci = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    tried = ci["jobs"]["range"]["strategy"]["matrix"]["include"]
    (torch,) = (line for line in PROJECT["dependencies"] if line.startswith("torch>"))
    assert {"python": PROJECT["requires-python"].removeprefix(">="), "torch": torch.replace(">=", "==") + ".*"} in tried


def test_the_schema_of_configs_is_current():
    committed = json.loads((ROOT / "workflow/config/schema.json").read_text())
    assert committed == ExperimentConfig.model_json_schema(), "varient schema > workflow/config/schema.json"


@pytest.mark.parametrize("name", ["digits", "digits_c", "fashion", "imagenet256", "imagenet256_var", "smoke"])
def test_shipped_configs_say_where_their_schema_is(name):
    first = (ROOT / f"workflow/config/{name}.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=schema.json"
