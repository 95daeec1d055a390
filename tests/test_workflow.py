"""The rules: what their commands may hold, and what a running workflow keeps."""

import ast
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
import time
from pathlib import Path

import jinja2
import pytest
import yaml
from conftest import ROOT
from project_copy import BIN, SMOKE, copy_to, give_user_files, snakemake
from safetensors import safe_open

from varient.config import load_config
from varient.report.figures import FIGURES


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    return copy_to(tmp_path_factory.mktemp("project"))


@pytest.mark.parametrize("name", ["table", "figure", "claims", "summary", "ablations", "rivals"])
def test_captions_speak_of_the_experiment_that_they_stand_in(name):
    text = (ROOT / f"workflow/report/{name}.rst").read_text()

    def captions(config: str, **changes: str) -> str:
        settings = load_config(ROOT / f"workflow/config/{config}.yaml").model_dump(mode="json")
        settings["evaluation"] |= changes
        kinds = {"table": [{"table": str(number)} for number in range(1, 9)],
                 "figure": [{"figure": figure} for figure in FIGURES]}.get(name, [{}])
        return "\n".join(jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(text).render(
            snakemake={"config": settings, "wildcards": wildcards}) for wildcards in kinds)

    paper, digits, smoke = (captions(config) for config in ("imagenet256", "digits", "smoke"))
    for word in ("digits", "miniature", "real images", "control", "CPU"):
        assert word not in paper
    assert ("miniature" in digits) == (name in ("table", "claims", "summary"))
    assert ("control" in digits) == (name in ("figure", "ablations")) and "control" not in smoke
    rehearsal = captions("imagenet256", protocol="adm-rehearsal")
    assert ("A rehearsal" in rehearsal) == (name != "ablations") and "rehearsal" not in paper


def _files(folder: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("other", [["-n", "--config", "seed=77"], ["--summary", "--config", "sampling={cfg: 3.0}"]])
def test_a_look_at_another_plan_changes_no_file_of_a_run(copy, other):
    target = "runs/smoke/tokenizer.safetensors"
    assert snakemake(copy, "-n", *SMOKE, "--", target).returncode == 0
    before = _files(copy / "runs")
    result = snakemake(copy, *SMOKE, *other, "--", target)
    assert result.returncode == 0, result.stdout + result.stderr
    assert before and before.items() <= _files(copy / "runs").items()


def _trained_with(weights: Path) -> str:
    """Digest of the settings that a training has written into its file."""
    with safe_open(weights, "np") as file:
        return yaml.safe_load(file.metadata()["varient"])["settings"]


@pytest.mark.slow
def test_a_running_workflow_keeps_its_config_whatever_others_plan(tmp_path):
    folder, config = copy_to(tmp_path / "project"), "workflow/config/smoke.yaml"
    target = "runs/smoke/classifier-judge.safetensors"
    # The test says when the job may go on: a job that is started and reads its config later, as on a busy cluster.
    (folder / "bin").mkdir()
    (folder / "bin/wait").write_text("#!/bin/sh\ntouch started\nuntil [ -e go ]; do sleep 0.1; done\n")
    (folder / "bin/wait").chmod(0o755)
    rule = folder / "workflow/rules/train.smk"
    command = '"python -m varient train classifier'
    rule.write_text(rule.read_text().replace(command, command.replace("python", "bin/wait; python")))
    running = subprocess.Popen([BIN / "snakemake", "--cores", "1", *SMOKE, "--", target], cwd=folder,
                               env=os.environ | {"PYTHONPATH": str(folder)}, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        while not (folder / "started").exists():
            assert running.poll() is None
            time.sleep(0.1)
        assert snakemake(folder, "-n", *SMOKE, "--config", "seed=77", "--", target).returncode == 0
        refused = snakemake(folder, "--cores", "1", *SMOKE, "--config", "seed=78", "--", target)
        assert refused.returncode != 0 and "lock" in (refused.stdout + refused.stderr)
        settings = (folder / config).read_text()
        (folder / config).write_text(settings.replace("seed: 0", "seed: 79"))
        (folder / "go").touch()
        assert running.wait(120) == 0
    finally:
        running.kill()
        running.wait()
    expected = load_config(ROOT / config).digest("data", "evaluation.classifier")
    assert _trained_with(folder / target).startswith(expected)

    def plan(old: str, new: str) -> str:
        (folder / config).write_text(settings.replace(old, new))
        result = snakemake(folder, "-n", *SMOKE, "--", target)
        assert result.returncode == 0
        return result.stdout + result.stderr

    assert "Nothing to be done" in plan("seed: 0", "seed: 0")
    assert "Nothing to be done" in plan("repeats: 3", "repeats: 4")  # another config, of which the job uses nothing
    assert "Params have changed" in plan("seed: 0", "seed: 77")


@pytest.mark.slow
def test_a_job_in_a_process_of_its_own_reads_no_yaml_that_was_edited_meanwhile(tmp_path):
    """Such as a job on another node; here that of a rule with Python code."""
    folder = copy_to(tmp_path / "project")
    with (folder / "Snakefile").open("a") as file:
        file.write("\n\nrule edit:\n    output:\n        'edited'\n    shell:\n"
                   "        'sed -i \"s/seed: 0/seed: 77/\" workflow/config/*.yaml && touch {output}'\n"
                   "\n\nrule seed:\n    input:\n        'edited'\n    output:\n        'seed'\n    run:\n"
                   "        Path(output[0]).write_text(f'{EXPERIMENT.seed} {EXPERIMENT.sampling.cfg}')\n")
    result = snakemake(folder, "--cores", "1", *SMOKE, "--config", "sampling={cfg: 3.0}", "--", "seed")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "seed: 77" in (folder / "workflow/config/smoke.yaml").read_text()
    assert (folder / "seed").read_text() == "0 3.0"
    assert len(list((folder / "runs/smoke").glob("config-*.json"))) == 1


SMK = sorted(ROOT.glob("workflow/rules/*.smk"))


def _shell_commands(text: str) -> list[str]:
    """What stands after each `shell:` of a file of rules."""
    commands = re.findall(r"^( *)shell:\n((?:\1 +.*\n)+)", text, re.MULTILINE)
    assert len(commands) == text.count("shell:")
    return [ast.literal_eval(f"({command})") for _, command in commands]  # an f-string is no literal


def _unquoted(command: str) -> list[str]:
    """Fields of a shell command whose values the shell would read as code."""
    return [name for _, name, form, _ in string.Formatter().parse(command) if name is not None and form != "q"]


@pytest.mark.parametrize("rules", SMK, ids=lambda path: path.stem)
def test_every_value_in_a_shell_command_is_quoted(rules):
    for command in _shell_commands(rules.read_text()):
        assert _unquoted(command) == []
        for field in re.findall(r"\{[^{}]+:q\}", command):
            assert _unquoted(command.replace(field, field.replace(":q", ""))) != []


@pytest.mark.parametrize("rule", ["opening", "report_page"])
@pytest.mark.parametrize("damage", ["", "edited", "cut off", "gone"])
def test_results_are_read_only_as_they_were_made(tmp_path, rule, damage):
    """The command of the rule, with a `python` that says that it was called."""
    text = (ROOT / "workflow/rules/report.smk").read_text()
    (command,) = _shell_commands(text[text.index(f"rule {rule}:"):].partition("\n\n\n")[0] + "\n")
    (tmp_path / "it's a.csv").write_text("1,2\n3,4\n")
    (tmp_path / "a.sha256").write_text(subprocess.run(["sha256sum", "it's a.csv"], cwd=tmp_path, capture_output=True,
                                                      text=True, check=True).stdout)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text("#!/bin/sh\ntouch called summary\n")
    (tmp_path / "bin/python").chmod(0o755)
    if damage == "gone":
        (tmp_path / "it's a.csv").unlink()
    elif damage:
        (tmp_path / "it's a.csv").write_text("1,2\n3,5\n" if damage == "edited" else "1,2\n")
    known = {"input.sums": "a.sha256", "log": "log", "output.summary": "summary", "output.sums": "summary.sha256"}
    filled = re.sub(r"\{([\w.]+):q\}", lambda field: known.get(field[1], "x"), command)
    result = subprocess.run(["bash", "-c", f"set -euo pipefail; {filled}"], cwd=tmp_path,
                            env=os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"})
    assert (result.returncode == 0) == (tmp_path / "called").exists() == (not damage)
    if damage:
        said = (tmp_path / "log").read_text()
        assert "it's a.csv: FAILED" in said and "delete it, and it is made again" in said


@pytest.mark.parametrize("name", ["-x it's $(touch x) `touch x` $PATH \"é\" {a b a\\b ;touch x #",
                                  pytest.param(" *", marks=pytest.mark.slow)], ids=ascii)
def test_names_of_files_are_words_of_the_commands_and_nothing_else(copy, name):
    """In each path that a config can hold."""
    give_user_files(copy, "train", "val")
    shutil.copytree(copy / "weights", copy / name, dirs_exist_ok=True)
    (copy / name / "imagenet").symlink_to(copy / "data/imagenet")
    text = (ROOT / "workflow/config/imagenet256.yaml").read_text()
    settings = yaml.safe_load(text.replace("weights/", "FOLDER/").replace("data/imagenet", "FOLDER/imagenet"))
    (copy / "hostile.yaml").write_text(yaml.safe_dump(_with(settings, name)))
    systems = ("code-n6", "dit-xl2", "llamagen-xxl", "variant-d16")
    result = snakemake(copy, "-n", "-p", "--configfile", "hostile.yaml", "--",
                        *(f"runs/imagenet256/records/score-{system}.json" for system in systems))
    assert result.returncode == 0, result.stdout + result.stderr
    scores = re.findall(r"^Shell command: (python -m varient score .*)$", result.stdout, re.MULTILINE)
    assert len(scores) == len(systems)
    for words in map(shlex.split, scores):
        assert words[words.index("--reference") + 1] == f"{name}/VIRTUAL_imagenet256_labeled.npz"


def _with(settings, name):
    """Settings with a name in place of each FOLDER."""
    if isinstance(settings, dict):
        return {key: _with(value, name) for key, value in settings.items()}
    return settings.replace("FOLDER", name) if isinstance(settings, str) else settings


@pytest.mark.slow
def test_a_reference_with_a_hostile_name_is_read(copy):
    real = snakemake(copy, "--cores", "1", *SMOKE, "--", "runs/smoke/real/train.npz")
    assert real.returncode == 0, real.stdout + real.stderr
    name = "-ref $(touch pwned) it's \"é\"; {a b.npz"
    shutil.copy(copy / "runs/smoke/real/train.npz", copy / name)
    settings = yaml.safe_load((ROOT / "workflow/config/smoke.yaml").read_text())
    settings["evaluation"]["reference"] = name
    (copy / "named.yaml").write_text(yaml.safe_dump(settings))
    target = copy / "runs/smoke/records/score-real-holdout.json"
    result = snakemake(copy, "--cores", "1", "--configfile", "named.yaml", "--", str(target.relative_to(copy)))
    assert result.returncode == 0, result.stdout + result.stderr
    assert target.exists() and not (copy / "pwned").exists()


@pytest.mark.slow
def test_the_project_may_lie_in_a_folder_of_any_name(tmp_path):
    """With its environment; `python` of PATH has none of our packages."""
    folder = copy_to(tmp_path / "my proj's $x \"{y}\"")
    (folder / ".venv").symlink_to(sys.prefix)
    result = subprocess.run(
        [folder / ".venv/bin/python", "-m", "snakemake", "--cores", "1", *SMOKE, "--", "runs/smoke/real/train.npz"],
        cwd=folder, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder)}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (folder / "runs/smoke/real/train.npz").exists()


@pytest.mark.slow
def test_a_command_of_a_rule_stops_where_a_part_of_it_fails(tmp_path):
    folder = copy_to(tmp_path / "project")
    with (folder / "Snakefile").open("a") as file:
        file.write("\n\nrule piped:\n    output:\n        'piped'\n    shell:\n        'false | cat > {output}'\n")
    assert snakemake(folder, "--cores", "1", *SMOKE, "--", "piped").returncode != 0


def test_lint_and_format_are_clean(copy):
    result = snakemake(copy, "--lint")
    assert result.returncode == 0, result.stdout + result.stderr
    formatted = subprocess.run([BIN / "snakefmt", "--check", "Snakefile", "workflow/rules"], cwd=ROOT,
                               capture_output=True, text=True)
    assert formatted.returncode == 0, formatted.stderr


def test_every_rule_that_may_load_the_papers_networks_asks_slurm_for_its_memory():
    """A rule with a GPU loads them, 8 GB each in float32: as much as the profile's default."""
    asked = yaml.safe_load((ROOT / "workflow/profiles/slurm/profile.yaml").read_text())["set-resources"]
    rules = re.split(r"^rule (\w+):$", "\n".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk")),
                     flags=re.MULTILINE)
    loading = {name for name, body in zip(rules[1::2], rules[2::2], strict=True) if re.search(r"^        gpu=", body,
                                                                                              re.MULTILINE)}
    assert {"fidelity", "generate_shard", "held_out_loss", "train_supernet"} < loading
    assert {name for name in loading if asked.get(name, {}).get("mem_mb", 0) < 32_000} == set()
