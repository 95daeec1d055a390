"""A copy of the project in a folder of its own, and its workflow run there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

BIN = Path(sys.executable).parent
"""Programs of the environment that runs the tests; PATH need not hold it."""
SMOKE = ["--configfile", "workflow/config/smoke.yaml"]


def snakemake(folder: Path, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess:
    """Run the workflow of a copy of the project, with that copy's code."""
    environment = os.environ | {"PYTHONPATH": str(folder)} | variables
    return subprocess.run([BIN / "snakemake", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def copy_to(folder: Path) -> Path:
    """The project's files, without results; Fashion-MNIST is looked for in them."""
    folder.mkdir(exist_ok=True)
    for name in ("Snakefile", "environment.yml", "environment.post-deploy.sh", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in ("varient", "baselines", "workflow"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    fashion = folder / "workflow/config/fashion.yaml"
    fashion.write_text(fashion.read_text().replace("/usr/share/datasets/fashion-mnist", "data/fashion-mnist"))
    return folder
