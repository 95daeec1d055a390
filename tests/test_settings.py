"""The VARIENT_ variables: what they may be, and that the documents list them as they are."""

import os
import re
import subprocess
import sys
from typing import get_args

import pytest
from conftest import ROOT

from varient.config import ConfigError
from varient.settings import Settings, read_settings


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    for name in [name for name in os.environ if name.upper().startswith("VARIENT_")]:
        monkeypatch.delenv(name)


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch):
    for field in Settings.model_fields.values():
        monkeypatch.setenv(field.alias, "")
    assert read_settings() == Settings()


def test_settings_are_read_anew(monkeypatch):
    assert read_settings().workers == 0
    monkeypatch.setenv("VARIENT_WORKERS", "12")
    assert read_settings().workers == 12


@pytest.mark.parametrize(("name", "value"), [
    ("DEVICE", "tpu"), ("DEVICE", "cuda:0"), ("DEVICE", " "), ("STRATEGY", "zero"), ("STRATEGY", "DDP"),
    ("MICRO_BATCH", "0"), ("MICRO_BATCH", "many"), ("MICRO_BATCH", "1.5"), ("WORKERS", "-2"), ("WORKERS", "1e2"),
    ("WORKERS", "100000"), ("WORKERS", "9" * 5000), ("SAVE_EVERY", "0"), ("SAVE_EVERY", "nan"),
    ("RECOMPUTE", "yes"), ("RECOMPUTE", "2"), ("RECOMPUTE", "true"), ("GPUS_TAKEN", "yes")])
def test_a_value_that_cannot_be_is_one_line_that_names_the_variable(monkeypatch, name, value):
    monkeypatch.setenv(f"VARIENT_{name}", value)
    with pytest.raises(ConfigError) as error:
        read_settings()
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"VARIENT_{name}: ") and value[:20] in line and len(line) < 200


@pytest.mark.parametrize(("name", "meant"), [
    ("VARIENT_DEVCE", "VARIENT_DEVICE"), ("VARIENT_WORKER", "VARIENT_WORKERS"), ("VARIENT_MICROBATCH",
    "VARIENT_MICRO_BATCH"), ("varient_device", "VARIENT_DEVICE"), ("VARIENT_LAUNCHER", "VARIENT_LAUNCH"),
    ("VARIENT_SAVE-EVERY", "VARIENT_SAVE_EVERY"), ("Varient_Strategy", "VARIENT_STRATEGY")])
def test_a_variable_that_there_is_not_is_one_line_with_the_nearest(monkeypatch, name, meant):
    monkeypatch.setenv(name, "cpu")
    with pytest.raises(ConfigError) as error:
        read_settings()
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"{name}: ") and line.endswith(f"{meant}?")


def test_a_variable_that_is_like_none_is_one_line_with_all_of_them(monkeypatch):
    monkeypatch.setenv("VARIENT_HOME", "/tmp")
    with pytest.raises(ConfigError) as error:
        read_settings()
    (line,) = str(error.value).splitlines()
    assert line.startswith("VARIENT_HOME: ") and {f"VARIENT_{name}" for name in _documented()} <= set(
        re.findall(r"VARIENT_\w+", line))


def test_each_wrong_variable_has_a_line(monkeypatch):
    monkeypatch.setenv("VARIENT_WORKERS", "many")
    monkeypatch.setenv("VARIENT_DEVICE", "tpu")
    monkeypatch.setenv("VARIENT_DEVCE", "cpu")
    with pytest.raises(ConfigError) as error:
        read_settings()
    assert {line.partition(":")[0] for line in str(error.value).splitlines()} == {
        "VARIENT_WORKERS", "VARIENT_DEVICE", "VARIENT_DEVCE"}


@pytest.mark.parametrize("arguments", [
    ["varient", "cost", "--compare"], ["varient", "train", "tokenizer", "--config", "smoke", "-o", "x"],
    ["varient", "profile", "--config", "smoke", "--system", "var-d6", "-o", "x"], ["varient.launch", "train", "base"]])
@pytest.mark.parametrize("variable", ["VARIENT_DEVCE", "VARIENT_STRATEGY"])
def test_every_command_stops_before_it_begins(arguments, variable, tmp_path):
    result = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, cwd=tmp_path,
                            env=os.environ | {variable: "cpu", "PYTHONPATH": str(ROOT)})
    assert result.returncode == 1 and list(tmp_path.iterdir()) == [] and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"varient: {variable}: ")


def _documented():
    """Variables of the table in the documents, without their prefix -> values and default, as they are printed."""
    text = (ROOT / "docs/running-at-scale.md").read_text("utf-8")
    return {name: (values, default) for name, values, default in re.findall(
        r"^\| `VARIENT_(\w+)` \| ([^|]*) \| ([^|]*) \|", text, re.MULTILINE)}


def test_the_documents_list_the_variables_with_values_and_defaults():
    public = {name: field for name, field in Settings.model_fields.items() if name != "gpus_taken"}
    documented = _documented()
    assert list(documented) == [name.upper() for name in public]
    for name, field in public.items():
        values, default = documented[name.upper()]
        if words := [value for value in get_args(field.annotation) if isinstance(value, str)]:
            assert re.findall(r"`(\w+)`", values) == words
        if field.default:
            assert str(field.default) in default


def test_no_other_module_reads_a_variable_of_ours():
    """Names occur in messages and where one is set for other processes, never in what asks the environment."""
    asked = re.compile(r"(environ(\.get)?|getenv)[(\[]\s*(f?\"VARIENT_|VARIABLE\b|_TAKEN\b)")
    for folder in ("varient", "baselines", "workflow", "benchmarks"):
        for path in (path for suffix in ("py", "smk") for path in (ROOT / folder).rglob(f"*.{suffix}")):
            reads = [line for line in path.read_text("utf-8").splitlines() if asked.search(line) and "] =" not in line]
            kept = [line for line in reads if "before = " not in line and "del " not in line]  # put back by `wanting`
            assert not kept, path
