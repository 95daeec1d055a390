import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from typer.testing import CliRunner

from varient.cli import app

CONFIG = str(ROOT / "workflow/config/smoke.yaml")


def _varient(*arguments, cwd=ROOT, **variables):
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    return subprocess.run([sys.executable, "-m", "varient", *arguments], capture_output=True, text=True, cwd=cwd,
                          env=environment)


@pytest.mark.parametrize(("arguments", "message"), [
    (["real", "--config", "none.yaml", "--split", "train", "-o", "x"], "none.yaml: no such config file"),
    (["train", "classifier", "--config", CONFIG, "--role", "critic", "-o", "x"], "role 'critic' is unknown"),
    (["train", "supernet", "--config", CONFIG, "--depth", "5", "t", "b", "-o", "x"], "no entry for depth 5"),
    (["train", "base", "--config", CONFIG, "none.safetensors", "-o", "x"], "none.safetensors"),
    (["generate", "--config", CONFIG, "--system", "var-d7", "--shard", "0", "-o", "x"], "base network of smoke"),
    (["generate", "--config", CONFIG, "--system", "var-d6", "--shard", "2", "-o", "x"], r"shard 2 is outside 0..1"),
    (["score", "--config", CONFIG, "none.npz", "--reference", "r.npz", "-o", "x"], "none.npz: no such file"),
    (["score", "none.npz", "--reference", "r.npz", "-o", "x"], "score needs either --config"),
    (["score", "none.npz", "--reference", "r.npz", "--protocol", "adm", "-o", "x"], "none.npz: no such file"),
    (["export", "none.npz", "--format", "jpg", "-o", "x"], "format 'jpg' is unknown; known: adm, png"),
    (["train", "network", "--config", CONFIG, "dit2", "-o", "x"], "network 'dit2' is not one of smoke's: code-small"),
    (["table", "--config", CONFIG, "9", "-o", "x"], "table 9 is unknown"),
    (["sample", "--config", CONFIG, "--class", "10", "--depth", "4", "-o", "x.png"], "class 10 is outside 0..9"),
    (["sample", "--config", CONFIG, "--class", "1", "--depth", "7", "-o", "x.png"], "d = 7 is above the full depth"),
    (["sample", "--config", CONFIG, "--class", "1", "--depth", "4", "--bridge", "11", "-o", "x.png"], "N = 11"),
])
def test_bad_input_ends_in_one_line_and_leaves_nothing(arguments, message, tmp_path):
    result = _varient(*arguments[:-1], str(tmp_path / arguments[-1]))
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def _run_folder(tmp_path):
    """A folder with a file of every kind that commands read, and a config that names some of them."""
    settings = yaml.safe_load(Path(CONFIG).read_text("utf-8"))
    settings["tokenizer"] = {"model": settings["tokenizer"]["model"], "weights": str(tmp_path / "vae.pth")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings), "utf-8")
    for name in ("vae.pth", "a.npz", "b.npz", "a.csv", "b.csv", "t.safetensors", "images/0.png", "run/base.safetensors",
                 "run/supernet-d4.safetensors", "run/code-small.safetensors", "run/tokenizer.safetensors",
                 "run/training-supernet-d4/epoch-1.safetensors", "run/records/score-x.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("precious", "utf-8")


CONFIGURED = ["--config", "config.yaml"]


@pytest.mark.parametrize("arguments", [
    ["score", "a.npz", "--reference", "b.npz", "--protocol", "adm", "-o", "a.npz"],
    ["score", "a.npz", "--reference", "b.npz", "--protocol", "adm", "-o", "b.npz"],
    ["score", "a.npz", "--reference", "b.npz", "--protocol", "adm", "--weights", "vae.pth", "-o", "vae.pth"],
    ["score", "images", "--reference", "b.npz", "--protocol", "adm", "-o", "images/0.png"],
    ["score", "a.npz", "--reference", "b.npz", *CONFIGURED, "-o", "config.yaml"],
    ["score", "a.npz", "--reference", "b.npz", *CONFIGURED, "--run-dir", "run", "-o", "run/base.safetensors"],
    ["reconstruct", "t.safetensors", "a.npz", "--reference", "b.npz", *CONFIGURED, "-o", "t.safetensors"],
    ["real", *CONFIGURED, "--split", "train", "-o", "config.yaml"],
    ["generate", *CONFIGURED, "--system", "var-d6", "--shard", "0", "--run-dir", "run", "-o", "run/base.safetensors"],
    ["generate", *CONFIGURED, "--system", "var-d6", "--shard", "0", "-o", "vae.pth"],
    ["profile", *CONFIGURED, "--system", "var-d6", "--run-dir", "run", "-o", "run/../run/base.safetensors"],
    ["sample", *CONFIGURED, "--class", "1", "--depth", "4", "--checkpoint", "t.safetensors", "-o", "t.safetensors"],
    ["train", "tokenizer", *CONFIGURED, "-o", "vae.pth"],
    ["train", "classifier", *CONFIGURED, "--role", "judge", "-o", "config.yaml"],
    ["train", "base", *CONFIGURED, "t.safetensors", "-o", "t.safetensors"],
    ["train", "supernet", *CONFIGURED, "--depth", "4", "t.safetensors", "run/base.safetensors", "-o",
     "run/base.safetensors"],
    ["train", "network", *CONFIGURED, "code-refiner-n6", "--run-dir", "run", "-o", "run/code-small.safetensors"],
    ["epoch-weights", "run/supernet-d4.safetensors", "--epoch", "1", "-o", "run/supernet-d4.safetensors"],
    ["epoch-weights", "run/supernet-d4.safetensors", "--epoch", "1", "-o",
     "run/training-supernet-d4/epoch-1.safetensors"],
    ["cache-tokens", *CONFIGURED, "t.safetensors", "-o", "t.safetensors"],
    ["export", "a.npz", "-o", "./a.npz"],
    ["export", "a.npz", "b.npz", "-o", "b.npz"],
    ["export", "images", "-o", "images/0.png"],
    ["table", *CONFIGURED, "2", "--score", "a.csv", "-o", "a.tex"],
    ["table", *CONFIGURED, "2", "--profile", "a.csv", "-o", "a"],
    ["figure", *CONFIGURED, "fig5", "--score", "images/0.png", "-o", "images/0"],
    ["claims", *CONFIGURED, "--score", "a.csv", "-o", "a"],
    ["claims", *CONFIGURED, "--reconstruction", "a.csv", "-o", "a"],
    ["ablations", *CONFIGURED, "--score", "a.csv", "-o", "a.csv"],
    ["opening", "a.csv", "b.csv", "-o", "a.csv", "--summary", "new.html"],
    ["opening", "a.csv", "b.csv", "-o", "new.rst", "--summary", "b.csv"],
    ["opening", "a.csv", "b.csv", "-o", "new", "--summary", "new"],
    ["drift", *CONFIGURED, "--baseline", "run", "-o", "run/base.safetensors"],
    ["drift", *CONFIGURED, "--baseline", "run", "--update", "run"],
])
def test_no_result_takes_the_place_of_what_is_read(arguments, tmp_path, monkeypatch):
    _run_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1 and len(result.output.splitlines()) == 1, result.output
    told = ("is read as", "cannot be written", "two results cannot have one name")
    assert result.output.startswith("varient: ") and any(text in result.output for text in told)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("arguments", [
    ["train", "network", *CONFIGURED, "code-refiner-n6", "--run-dir", "run", "-o", "run/code-refiner-n6.safetensors"],
    ["generate", *CONFIGURED, "--system", "var-d6", "--shard", "0", "--run-dir", "run", "-o", "run/samples/0.npz"],
    ["claims", *CONFIGURED, "--found-in", "run", "-o", "run/claims"],
])
def test_a_result_of_before_may_be_made_again(arguments, tmp_path, monkeypatch):
    _run_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("code-refiner-n6.safetensors", "claims.csv", "samples/0.npz"):
        (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / name).touch()
    assert "is read as" not in CliRunner().invoke(app, arguments).output


def test_check_prints_the_whole_config():
    result = _varient("check", "--config", CONFIG)
    assert result.returncode == 0
    assert '"top_p": 0.96' in result.stdout
