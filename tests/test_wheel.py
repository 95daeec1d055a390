"""An installed package, outside the project: what it brings, and that its commands find it."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

from varient.shipped import in_project, shipped

COMMANDS = {
    "claims": ("claims", "-o", "verdicts"),
    "cost": ("cost", "--compare"),
    "plan": ("plan", "--memory", "12GiB"),
    "drift": ("drift",),
    "sample": ("sample", "--class", "3", "--depth", "30", "--depth", "4", "--count", "2", "-o", "grid.png"),
    "check": ("check", "--config", "imagenet256_var"),
    "demo": ("demo", "--static", "page"),
}
WRITTEN = {"claims": ["verdicts.csv", "verdicts.md"], "sample": ["grid.png"], "demo": ["page"]}


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the package as pip unpacks it from a wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True,
                   capture_output=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target",
                    str(folder / "site"), str(wheel)], check=True, capture_output=True)
    return folder / "site"


@pytest.mark.slow
def test_no_name_but_ours_appears_in_an_environment(installed):
    assert {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")} <= {"varient", "bin"}


@pytest.mark.slow
def test_checkers_of_other_code_see_its_types(installed):
    assert (installed / "varient/py.typed").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_work_from_an_empty_folder(installed, tmp_path, name):
    result = subprocess.run([sys.executable, "-m", "varient", *COMMANDS[name]], cwd=tmp_path, text=True,
                            env=os.environ | {"PYTHONPATH": str(installed)}, capture_output=True)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == WRITTEN.get(name, [])
    where = subprocess.run([sys.executable, "-c", "import varient.baselines.code as code; print(code.__file__)"],
                           cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(installed)}, capture_output=True,
                           text=True, check=True).stdout
    assert where.startswith(str(installed))


@pytest.mark.slow
def test_the_accepted_state_of_a_package_is_not_written_into(installed, tmp_path):
    (tmp_path / "runs").mkdir()
    result = subprocess.run([sys.executable, "-m", "varient", "drift", "--update", "runs"], cwd=tmp_path, text=True,
                            env=os.environ | {"PYTHONPATH": str(installed)}, capture_output=True)
    assert result.returncode == 1 and "--baseline" in result.stderr and len(result.stderr.splitlines()) == 1


def test_what_is_imported_is_declared():
    """Imports of the package are its dependencies, by the names that they have on an index."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {line.split("[")[0].split(">")[0].split("<")[0].lower().replace("_", "-")
                for lines in (project["dependencies"], *project["optional-dependencies"].values()) for line in lines}
    names = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "pynvml": "nvidia-ml-py",
             "cleanfid": "clean-fid", "torch_fidelity": "torch-fidelity", "open_clip": "open-clip-torch",
             "pydantic_settings": "pydantic-settings"}
    imported = set()
    for folder in ("varient", "baselines"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                modules = ([alias.name for alias in node.names] if isinstance(node, ast.Import) else
                           [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else [])
                imported |= {module.split(".")[0] for module in modules}
    foreign = {names.get(module, module) for module in imported - set(sys.stdlib_module_names) - {"varient"}}
    assert foreign <= declared, foreign - declared


def test_a_wheel_can_be_told_from_a_checkout():
    assert in_project() and shipped("baseline") == ROOT / "results/baseline"


@pytest.mark.slow
@pytest.mark.parametrize("pages", ["report", "demo"])
def test_the_templates_of_pages_come_along(installed, pages):
    templates = {path.name: path.read_text() for path in (ROOT / f"varient/{pages}/templates").iterdir()}
    assert len(templates) > 1
    assert {path.name: path.read_text() for path in (installed / f"varient/{pages}/templates").iterdir()} == templates
