"""docs/adding-a-system.md as a user would follow it: a package outside the project becomes a row of Table 2."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from conftest import ROOT

GUIDE = (ROOT / "docs/adding-a-system.md").read_text()


def _block(language: str) -> str:
    (text,) = re.findall(rf"```{language}\n(.*?)```", GUIDE, re.S)
    return text


@pytest.fixture
def workplace(tmp_path) -> Path:
    """A folder with the package as `pip install --target` leaves it, and an experiment that has the row."""
    package = tmp_path / "site"
    (package / "mean_image-1.0.dist-info").mkdir(parents=True)
    (package / "mean_image.py").write_text(_block("python"))
    entry_points = re.search(r"\[project\.entry-points\.\"varient\.systems\"\]\n(\w+) = \"(\w+)\"", _block("toml"))
    (package / "mean_image-1.0.dist-info/entry_points.txt").write_text(
        f"[varient.systems]\n{entry_points[1]} = {entry_points[2]}\n")
    (package / "mean_image-1.0.dist-info/METADATA").write_text("Name: mean-image\nVersion: 1.0\n")
    settings = yaml.safe_load((ROOT / "workflow/config/smoke.yaml").read_text())
    added = yaml.safe_load(_block("yaml"))
    settings |= {"systems": added["systems"], "rows": added["rows"]}  # the example alone
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


def _varient(workplace: Path, *arguments: str, packages: tuple[str, ...] = ("site",)) -> subprocess.CompletedProcess:
    path = os.pathsep.join(map(str, [*(workplace / package for package in packages), ROOT]))
    return subprocess.run([sys.executable, "-m", "varient", *arguments], cwd=workplace, capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": path})


def test_the_example_is_short():
    assert len(_block("python").splitlines()) < 60


@pytest.mark.slow
def test_the_row_is_made_by_the_verbs_that_make_all_rows(workplace):
    def run(*arguments: str) -> None:
        result = _varient(workplace, *arguments)
        assert result.returncode == 0, result.stderr

    config = ("--config", "config.yaml")
    row = ("--system", "mean-image")
    run("train", "network", *config, "mean-image", "-o", "runs/smoke/mean-image.safetensors")
    shards = [f"shard-{shard}.npz" for shard in range(2)]
    for shard, path in enumerate(shards):
        run("generate", *config, *row, "--shard", str(shard), "-o", path)
    for role in ("features", "judge"):
        run("train", "classifier", *config, "--role", role, "-o", f"runs/smoke/classifier-{role}.safetensors")
    run("real", *config, "--split", "train", "-o", "real.npz")
    run("score", *config, *shards, "--reference", "real.npz", "-o", "score.json")
    run("profile", *config, *row, "-o", "profile.json")
    run("table", *config, "2", "--score", "score.json", "--profile", "profile.json", "-o", "table2.csv")
    table = pd.read_csv(workplace / "table2.csv", dtype=str, keep_default_na=False).set_index("system")
    assert float(table.loc["mean-image", "fid"]) > 0 and table.loc["mean-image", "steps"] == "1"
    assert table.loc["mean-image", "method"] == "mean-image" and table.loc["mean-image", "kv_cache_mb"] == "0.000"


def test_a_wrong_setting_of_the_family_is_one_line(workplace):
    settings = yaml.safe_load((workplace / "config.yaml").read_text())
    settings["systems"]["mean"] = {"nois": 1}
    (workplace / "config.yaml").write_text(yaml.safe_dump(settings))
    result = _varient(workplace, "check", "--config", "config.yaml")
    assert result.returncode == 1
    assert "config.yaml: systems.mean.nois: Extra inputs are not permitted (got 1)" in result.stderr


def test_a_family_that_is_not_installed_is_named(workplace):
    result = _varient(workplace, "check", "--config", "config.yaml", packages=())
    assert result.returncode == 1
    assert "systems.mean: no installed system family has this name; known: code, dit" in result.stderr
