import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import ROOT
from typer.main import get_command
from typer.testing import CliRunner

from varient.cli import app
from varient.cli.options import config_file

CONFIG = str(ROOT / "workflow/config/smoke.yaml")


def _varient(*arguments, **variables):
    return subprocess.run([sys.executable, "-m", "varient", *arguments], capture_output=True, text=True, cwd=ROOT,
                          env=os.environ | variables)


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
    (["score", "none.npz", "--reference", "r.npz", "--protocol", "adm", "--test", "t.npz", "-o", "x"], "--test needs"),
    (["held-out", "--config", CONFIG, "--system", "var-d7", "-o", "x"], "base network of smoke"),
    (["fidelity", "--config", CONFIG, "--system", "var-d7", "-o", "x"], "base network of smoke"),
    (["held-out", "--config", CONFIG, "--system", "var-d6", "--run-dir", "none", "-o", "x"], "none/base.safetensors"),
    (["held-out", "--config", CONFIG, "--system", "dit-mini", "-o", "x"], "only VAR and its subnets"),
    (["real", "--config", CONFIG, "--split", "test", "-o", "x"], "split 'test' is unknown; known: train, holdout"),
    (["export", "none.npz", "--format", "jpg", "-o", "x"], "format 'jpg' is unknown; known: adm, png"),
    (["train", "network", "--config", CONFIG, "dit2", "-o", "x"], "network 'dit2' is not one of smoke's: code-small"),
    (["table", "--config", CONFIG, "9", "-o", "x"], "table 9 is unknown"),
    (["sample", "--config", CONFIG, "--class", "10", "--depth", "4", "-o", "x.png"], "class 10 is outside 0..9"),
    (["sample", "--config", CONFIG, "--class", "1", "--depth", "7", "-o", "x.png"], "d = 7 is above the full depth"),
    (["sample", "--config", CONFIG, "--class", "1", "--depth", "4", "--bridge", "11", "-o", "x.png"], "N = 11"),
])
def test_bad_input_ends_in_one_line_and_leaves_nothing(arguments, message, tmp_path):
    result = CliRunner().invoke(app, [*arguments[:-1], str(tmp_path / arguments[-1])])
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert message in result.output.splitlines()[-1] and "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_no_classifier_is_trained_for_a_protocol_without_one(tmp_path):
    settings = yaml.safe_load(Path(CONFIG).read_text("utf-8"))
    settings["evaluation"] = {"protocol": "clean-fid", "inception_weights": "inception.pt", "reference": "real.npz"}
    settings["sampling"]["num_images"] = 2050  # FID of 2048 features needs more images than features
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings), "utf-8")
    result = _varient("train", "classifier", "--config", str(tmp_path / "config.yaml"), "--role", "features",
                      "-o", str(tmp_path / "x"))
    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    assert "clean-fid uses no trained classifier" in result.stderr and not (tmp_path / "x").exists()


def _run_folder(tmp_path):
    """A folder with a file of every kind that commands read, and a config that names some of them."""
    settings = yaml.safe_load(Path(CONFIG).read_text("utf-8"))
    settings["tokenizer"] = {"model": settings["tokenizer"]["model"], "weights": str(tmp_path / "vae.pth")}
    for config in ("config.yaml", "profile-b1.json"):  # a sweep's first record has the second name
        (tmp_path / config).write_text(yaml.safe_dump(settings), "utf-8")
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
    ["held-out", *CONFIGURED, "--system", "var-d6", "--run-dir", "run", "-o", "run/base.safetensors"],
    ["fidelity", *CONFIGURED, "--system", "var-d6", "--run-dir", "run", "-o", "run/base.safetensors"],
    ["compare", "a.npz", "b.npz", "-o", "b.npz"],
    ["compare", "a.npz", "--reference", "b.npz", "-o", "b.npz"],
    ["compare", "a.npz", "b.npz", "--lpips", "vae.pth", "-o", "vae.pth"],
    ["compare", "images", "images", "-o", "images/0.png"],
    ["rivals", *CONFIGURED, "--fidelity", "a.csv", "-o", "a"],
    ["profile", *CONFIGURED, "--system", "var-d6", "--run-dir", "run", "-o", "run/../run/base.safetensors"],
    ["sweep", *CONFIGURED, "--system", "var-d6", "--run-dir", "run", "-o", "vae.pth"],
    ["sweep", "--config", "profile-b1.json", "--system", "var-d6", "-o", "."],
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
    ["ablations", *CONFIGURED, "--held-out", "a.csv", "-o", "a.csv"],
    ["ablations", *CONFIGURED, "-o", "new.md"],
    ["table", *CONFIGURED, "4", "--held-out", "a.csv", "-o", "a"],
    ["rivals", *CONFIGURED, "--score", "a.csv", "-o", "a.tex"],
    ["rivals", *CONFIGURED, "--profile", "a.csv", "-o", "a"],
    ["opening", "a.csv", "b.csv", "c.png", "-o", "a.csv", "--summary", "new.html"],
    ["opening", "a.csv", "b.csv", "c.png", "-o", "new.rst", "--summary", "b.csv"],
    ["opening", "a.csv", "b.csv", "c.png", "-o", "new", "--summary", "new"],
    ["drift", *CONFIGURED, "--baseline", "run", "-o", "run/base.safetensors"],
    ["drift", *CONFIGURED, "--baseline", "run", "--update", "run"],
])
def test_no_result_takes_the_place_of_what_is_read(arguments, tmp_path, monkeypatch):
    _run_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1 and len(result.output.splitlines()) == 1, result.output
    told = ("would overwrite the input", "cannot be written", "is named for two results")
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
    assert "would overwrite the input" not in CliRunner().invoke(app, arguments).output


@pytest.mark.parametrize(("arguments", "message"), [
    (["sample", "--class", "1", "--depth", "4", "--seed", "9" * 20], "seed 99999999999999999999 is above 2147483647"),
    (["sample", "--class", "1", "--depth", "4", "--seed", "-1"], "seed -1 is below 0"),
    (["sample", "--class", "1", "--depth", "4", "--count", "1000000000"], "count 1000000000 is above 10000"),
    (["sample", "--class", "1", "--depth", "4", "--count", "0"], "count 0 is below 1"),
    (["sample", "--class", "1", "--depth", "4", "--count", "5000"], "too large for one picture"),
    (["sample", "--class", "1", "--depth", "0"], "d = 0"),
    (["sample", "--class", "99", "--depth", "4"], "class 99 is outside 0..9"),
    (["sample", "--class", "-1", "--depth", "4"], "class -1 is outside 0..9"),
    (["sample", "--class", "1", "--depth", "4", "--bridge", "-1"], "N = -1 is outside 0..10"),
    (["generate", "--system", "var-d6", "--shard", "-1"], "shard -1 is below 0"),
    (["generate", "--system", "var-d6", "--shard", "9" * 5000], "'--shard'"),
    (["profile", "--system", "var-d6", "--batch", str(2 ** 31)], "batch 2147483648 is above 1048576"),
    (["profile", "--system", "var-d6", "--batch", "-1"], "batch size -1 is below 1"),
    (["train", "supernet", "--depth", "4", "t", "b", "--seed", str(2 ** 63)], "seed 9223372036854775808 is above"),
    (["cost", "--system", "var-d30", "--batch", "0"], "batch size 0 is below 1"),
    (["cost", "--system", "var-d30", "--batch", "1" + "0" * 400], "batch 100000"),
    (["plan", "--memory", "-3GiB"], "size '-3GiB' is not understood"),
    (["plan", "--memory", "nan"], "size 'nan' is not understood"),
    (["plan", "--memory", "inf"], "size 'inf' is not understood"),
    (["plan", "--memory", "12GiB", "--latency", "0s"], "latency '0s' is no time"),
    (["plan", "--memory", "12GiB", "--runners-up", "-1"], "runners-up -1 is below 0"),
    (["train", "base", "t", "--dry-run", f"h100:{10 ** 20}"], "a training needs at least 1"),
])
def test_numbers_out_of_bounds_are_told_before_anything_is_loaded(arguments, message, tmp_path):
    if arguments[0] not in ("cost", "plan"):
        arguments = [*arguments, "--config", CONFIG, "-o", str(tmp_path / "x.png")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code and message in result.output and "Traceback" not in result.output
    if "'--" not in message:  # what is no number at all is click's to tell
        assert result.exit_code == 1 and len(result.output.splitlines()) == 1 and len(result.output) < 300
    assert list(tmp_path.iterdir()) == []


def _torch_error():
    import torch

    return torch.empty(2 ** 48)  # beyond the address space


@pytest.mark.parametrize(("raised", "told"), [
    (_torch_error, "can't allocate memory"),
    (lambda: [0] * 2 ** 60, "out of memory"),
    (lambda: np.empty(2 ** 58), "Unable to allocate"),
])
def test_a_host_without_memory_ends_in_one_line(raised, told, tmp_path, monkeypatch):
    monkeypatch.setattr("varient.generation.generate_shard", lambda *_: raised())
    result = CliRunner().invoke(app, ["generate", "--config", CONFIG, "--system", "var-d6", "--shard", "0", "-o",
                                      str(tmp_path / "x.npz")])
    assert result.exit_code == 1 and len(result.output.splitlines()) == 1
    assert result.output.startswith("varient: out of memory") and told in result.output


def test_other_errors_of_a_run_are_not_taken_for_want_of_memory(tmp_path, monkeypatch):
    def wrong(*_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("varient.generation.generate_shard", wrong)
    result = CliRunner().invoke(app, ["generate", "--config", CONFIG, "--system", "var-d6", "--shard", "0", "-o",
                                      str(tmp_path / "x.npz")])
    assert isinstance(result.exception, RuntimeError)


@pytest.mark.parametrize("arguments", [
    ["drift", "--baseline", "/nowhere"],
    ["drift", "--baseline", "file.json"],
    ["drift", "--baseline", "broken"],
    ["plan", "--memory", "12GiB", "--records", "file.json"],
    ["plan", "--memory", "12GiB", "--records", "/nowhere"],
    ["plan", "--memory", "12GiB", "--records", "records"],
    *(["table", "--config", CONFIG, "2", option, name, "-o", "out"]
      for option in ("--score", "--profile", "--reconstruction", "--held-out", "--fidelity")
      for name in ("file.json", "bytes", "folder")),
    ["table", "--config", CONFIG, "2", "--found-in", "file.json", "-o", "out"],
    ["claims", "--config", CONFIG, "--score", "bytes", "-o", "out"],
    ["figure", "--config", CONFIG, "fig5", "--score", "folder", "-o", "out"],
    *(["figure", "--config", CONFIG, "throughput", "--sweep", name, "-o", "out"]
      for name in ("file.json", "folder", "/nowhere", "sweep")),
    ["ablations", "--config", CONFIG, "--score", "bytes", "-o", "out"],
    ["rivals", "--config", CONFIG, "--score", "bytes", "-o", "out"],
    ["rivals", "--config", CONFIG, "--found-in", "file.json", "-o", "out"],
    ["opening", "bytes", "file.json", "file.json", "-o", "out", "--summary", "out2"],
    ["opening", "folder", "file.json", "file.json", "-o", "out", "--summary", "out2"],
    ["export", "folder", "-o", "out"],
    ["export", "bytes", "-o", "out"],
    ["check", "--config", "bytes"],
    ["check", "--config", "folder"],
    ["epoch-weights", "folder", "--epoch", "1", "-o", "out"],
    ["train", "base", "--config", CONFIG, "bytes", "-o", "out"],
    ["train", "supernet", "--config", CONFIG, "--depth", "4", "folder", "bytes", "-o", "out"],
])
def test_files_of_other_kinds_are_named_in_one_line(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("folder", "broken", "records", "sweep"):
        Path(folder).mkdir()
    Path("file.json").write_text("{}", "utf-8")
    Path("bytes").write_bytes(b"\xff\xfe\x00")
    for damaged in ("broken/drift.json", "records/score-var-d30.json", "sweep/profile-b1.json"):
        Path(damaged).write_text('{"fid": NaN}', "utf-8")
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1 and len(result.output.splitlines()) == 1, result.output
    named = {"broken": "broken/drift.json", "records": "records/score-var-d30.json", "sweep": "sweep/profile-b1.json"}
    inputs = {"folder", "bytes", "file.json", "/nowhere", *named} & set(arguments)
    assert any(named.get(name, name) in result.output for name in inputs)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_terminal_without_the_characters_is_no_reason_to_fail():
    result = _varient("train", "supernet", "--config", CONFIG, "--depth", "4", "t", "b", "-o", "x", "--dry-run", "h100",
                      LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert result.returncode == 0, result.stderr
    assert "subnet batches" in result.stdout and result.stdout.isascii()


def test_check_prints_the_whole_config():
    result = _varient("check", "--config", CONFIG)
    assert result.returncode == 0
    assert '"top_p": 0.96' in result.stdout


@pytest.mark.parametrize(("arguments", "said"), [
    (["plan", "--memory", "12GiB", "--runners-up", "1"], {"memory_mib": 12 * 1024, "latency_s": None}),
    (["cost", "--system", "variant-d16"], {"system": "variant-d16", "cache_policy": "lean"}),
    (["train", "base", "--config", CONFIG, "t", "-o", "x", "--dry-run", "h100"], {"training": "base", "devices": 1}),
    (["train", "supernet", "--config", "imagenet256", "--depth", "16", "t", "b", "-o", "x", "--dry-run", "h100:8"],
     {"training": "supernet-d16", "accumulation": 1, "devices": 8}),
])
def test_answers_are_one_json_document_where_that_is_asked_for(arguments, said):
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.output)
    assert {key: document[key] for key in said} == said
    for row in document.get("configurations", ()):
        assert (row["depth"], row["precision"], row["fid_source"]) == (8, "fp16", "paper, Table 8")


@pytest.mark.parametrize("arguments", [["base", "t"], ["supernet", "--depth", "4", "t", "b"]])
def test_a_training_that_starts_has_no_document(arguments, tmp_path):
    result = CliRunner().invoke(app, ["train", arguments[0], "--config", CONFIG, *arguments[1:], "--json",
                                      "-o", str(tmp_path / "x")])
    assert result.exit_code == 1 and list(tmp_path.iterdir()) == []
    (line,) = result.output.splitlines()
    assert "--json" in line and "--dry-run" in line


def test_options_that_messages_name_exist():
    known = {"--help", "--porcelain", "--cores", "--configfile", "--no-deps"}  # of typer, git, snakemake and pip
    known |= {"--standalone", "--nproc-per-node", "--nproc_per_node", "--num-processes", "--num_processes"}  # launchers

    def visit(command):
        known.update(option for parameter in command.params for option in parameter.opts)
        for child in getattr(command, "commands", {}).values():
            visit(child)

    visit(get_command(app))
    for folder in ("varient", "baselines"):
        for path in (ROOT / folder).rglob("*.py"):
            texts = [node.value for node in ast.walk(ast.parse(path.read_text("utf-8")))
                     if isinstance(node, ast.Constant) and isinstance(node.value, str)]
            assert {option for text in texts for option in re.findall(r"(?<![\w-])--[a-z][\w-]+", text)} <= known, path


@pytest.fixture
def own_baseline(tmp_path, monkeypatch):
    """A folder that stands for the shipped baseline, with a file of each kind that it has."""
    for name in ("config.json", "drift.json", "speed.json", "tokenizer.safetensors"):
        (tmp_path / name).write_text("precious", "utf-8")
    monkeypatch.setattr("varient.cli.answers.shipped", lambda _: tmp_path)
    return tmp_path


@pytest.mark.parametrize("arguments", [["drift"], ["drift", "--speed"], ["sample", "--class", "1", "--depth", "4"]])
@pytest.mark.parametrize("name", ["config.json", "drift.json", "speed.json", "tokenizer.safetensors"])
def test_no_result_takes_the_place_of_the_baseline_that_is_read_by_default(arguments, name, own_baseline):
    result = CliRunner().invoke(app, [*arguments, "-o", str(own_baseline / name)])
    assert result.exit_code == 1 and len(result.output.splitlines()) == 1
    assert "would overwrite the input" in result.output
    assert {path.read_text("utf-8") for path in own_baseline.iterdir()} == {"precious"}


def test_a_baseline_of_ones_own_can_be_made_again(own_baseline, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    result = CliRunner().invoke(app, ["drift", "--baseline", str(own_baseline), "--update", str(run)])
    assert result.exit_code == 1 and "overwrite" not in result.output and str(run) in result.output


def test_a_config_whose_name_no_file_can_have_is_told_in_one_line():
    result = CliRunner().invoke(app, ["check", "--config", "a" * 5000])
    assert result.exit_code == 1 and len(result.output.splitlines()) == 1
    assert result.output.startswith("varient: ") and len(result.output) < 2000


def test_every_config_may_be_the_name_of_a_shipped_one():
    commands = [get_command(app)]
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        for parameter in command.params:
            if "--config" in parameter.opts:
                assert parameter.type_descriptor.parameter_info.parser is config_file, command.name
