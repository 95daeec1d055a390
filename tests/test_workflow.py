"""The DAG: what is planned, what is refused before any job, and what a rule's command may hold."""

import ast
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import jinja2
import pytest
import torch
import yaml
from conftest import ROOT
from project_copy import BIN, SMOKE, copy_to, snakemake
from safetensors import safe_open

from varient.config import load_config
from varient.report.figures import FIGURES
from varient.training.fashion_mnist import SHA256 as FASHION_MNIST

RELEASED = ("vae_ch160v4096z32.pth", "var_d30.pth", "var_d16.pth", "drafter_6.pth", "refiner_6.pth",
            "DiT-XL-2-256x256.pt", "c2i_XXL_384.pt", "vq_ds16_c2i.pt",
            "weights-inception-2015-12-05-6726825d.pth", "VIRTUAL_imagenet256_labeled.npz",
            "sd-vae-ft-ema/config.json", "sd-vae-ft-ema/diffusion_pytorch_model.safetensors")
@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    return copy_to(tmp_path_factory.mktemp("project"))


def _give(folder: Path, *splits: str) -> None:
    """The user's files, which the paper's experiment starts from, and folders of ImageNet's classes."""
    for released in RELEASED:
        (folder / "weights" / released).parent.mkdir(parents=True, exist_ok=True)
        (folder / "weights" / released).touch()
    shutil.rmtree(folder / "data", ignore_errors=True)
    for split in splits:
        for number in range(1000):
            (folder / f"data/imagenet/{split}/n{number:08d}").mkdir(parents=True)
            (folder / f"data/imagenet/{split}/n{number:08d}/0.JPEG").touch()
    (folder / "data/fashion-mnist").mkdir(parents=True)
    for name in FASHION_MNIST:
        (folder / f"data/fashion-mnist/{name}.gz").touch()


@pytest.mark.parametrize("config", ["smoke", *(pytest.param(name, marks=pytest.mark.slow) for name in
                                               ("digits", "fashion", "digits_c", "imagenet256", "imagenet256_var"))])
def test_the_dag_of_every_shipped_config_resolves(copy, config):
    _give(copy, "train", "val")
    result = snakemake(copy, "-n", "--configfile", f"workflow/config/{config}.yaml")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["fd-dinov2", "cmmd"])
def test_the_config_alone_names_an_encoders_protocol(copy, protocol):
    """The same jobs as under `adm`, each scoring with the other file."""
    _give(copy, "train", "val")
    settings = yaml.safe_load((copy / "workflow/config/imagenet256_var.yaml").read_text())
    settings["evaluation"] |= {"protocol": protocol, "inception_weights": "weights/encoder.safetensors"}
    config = copy / f"{protocol}.yaml"
    config.write_text(yaml.safe_dump(settings))
    missing = snakemake(copy, "-n", "--configfile", config)
    assert missing.returncode != 0 and "weights/encoder.safetensors" in missing.stdout + missing.stderr
    (copy / "weights/encoder.safetensors").touch()
    result = snakemake(copy, "-n", "--configfile", config)
    (copy / "weights/encoder.safetensors").unlink()
    assert result.returncode == 0, result.stdout + result.stderr
    assert "weights/encoder.safetensors" in result.stdout and "inception" not in result.stdout


@pytest.mark.slow
def test_weight_files_that_are_missing_are_named_before_any_job(copy):
    _give(copy)
    (copy / "weights" / "var_d30.pth").unlink()
    result = snakemake(copy, "-n", "--configfile", "workflow/config/imagenet256.yaml")
    assert result.returncode != 0
    assert "var_d30.pth" in result.stdout + result.stderr


@pytest.mark.slow
def test_what_every_job_would_fail_at_stops_the_workflow_before_the_first(copy):
    """Files that are none, and no GPU: one refusal names all of it, but no file that the target leaves out."""
    _give(copy)
    target = "runs/imagenet256/samples/var-d30/shard-0.npz"
    result = snakemake(copy, "--cores", "1", "--configfile", "workflow/config/imagenet256.yaml", "--", target,
                       VARIENT_DEVICE="cuda", CUDA_VISIBLE_DEVICES="")
    told = result.stdout + result.stderr
    assert result.returncode != 0 and not (copy / "runs/imagenet256/logs/train_tokenizer.log").exists()
    assert "tokenizer.weights: weights/vae_ch160v4096z32.pth" in told and "VARIENT_DEVICE" in told
    assert "var_d30.pth" in told and "c2i_XXL_384.pt" not in told
    alone = snakemake(copy, "--cores", "1", "--configfile", "workflow/config/imagenet256.yaml", "--",
                      "runs/imagenet256/tokenizer.safetensors", VARIENT_DEVICE="cuda", CUDA_VISIBLE_DEVICES="")
    assert "VARIENT_DEVICE" not in alone.stdout + alone.stderr  # an import needs no GPU


@pytest.mark.slow
def test_all_files_that_are_missing_are_named_in_one_run(copy):
    """Also a folder's; and none that is there, nor any where what is made of it is there."""
    _give(copy)
    gone = ("var_d30.pth", "drafter_6.pth", "VIRTUAL_imagenet256_labeled.npz", "sd-vae-ft-ema/config.json")
    for name in gone:
        (copy / "weights" / name).unlink()
    for target in ("base.safetensors", "code-drafter-n6.safetensors", "records/score-var-d30.json",
                   "samples/dit-xl2/shard-0.npz", "records/profile-dit-xl2.json"):
        dry = ("-n", "--configfile", "workflow/config/imagenet256.yaml", "--", f"runs/imagenet256/{target}")
        result = snakemake(copy, *dry)
        said = result.stdout + result.stderr
        assert result.returncode != 0 and all(f"weights/{name}" in said for name in gone), said
        assert "weights/var_d16.pth" not in said
    made = copy / "runs/imagenet256/base.safetensors"
    made.parent.mkdir(parents=True, exist_ok=True)
    made.touch()
    again = snakemake(copy, "-n", "--configfile", "workflow/config/imagenet256.yaml", "--", str(made.relative_to(copy)))
    made.unlink()
    assert "no such file" not in again.stdout + again.stderr


@pytest.mark.slow
def test_another_inception_stops_the_run_before_its_first_job(copy):
    """Said once, with the settings that take another, and not by each of the scorings."""
    _give(copy)
    torch.save({}, copy / "weights/weights-inception-2015-12-05-6726825d.pth")
    shutil.rmtree(copy / "runs/imagenet256", ignore_errors=True)
    result = snakemake(copy, "--cores", "2", "--keep-going", "--configfile", "workflow/config/imagenet256.yaml", "--",
                       "runs/imagenet256/records/score-var-d30.json", VARIENT_DEVICE="cpu")
    said = result.stdout + result.stderr
    assert result.returncode == 1 and not (copy / "runs/imagenet256/logs").exists()
    assert said.count("expected 6726825d") == 1 and "evaluation.weights_sha256" in said and "--sha256" in said


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


@pytest.mark.parametrize(("target", "splits", "missing"), [
    ("runs/imagenet256/supernet-d16.safetensors", ("train",), None),
    ("runs/imagenet256/supernet-d16.safetensors", (), "train"),
    # whose losses are in Fig. 2b
    pytest.param("runs/imagenet256/supernet-d16-p10.safetensors", ("train",), "val", marks=pytest.mark.slow),
    # untrained subnets
    pytest.param("results/imagenet256/table1.csv", (), None, marks=pytest.mark.slow),
])
def test_imagenet_is_asked_for_before_any_job_where_a_training_needs_it(copy, target, splits, missing):
    _give(copy, *splits)
    result = snakemake(copy, "-n", "--configfile", "workflow/config/imagenet256.yaml", "--", target)
    said = f"data/imagenet/{missing} has 0 class folders, data.num_classes = 1000"
    assert (result.returncode == 0) == (missing is None), result.stdout + result.stderr
    assert missing is None or said in result.stdout + result.stderr


def _commands(dry: str, verb: str) -> list[list[str]]:
    """Words of the commands of a dry run that begin with a verb of `varient`."""
    found = re.findall(rf"^Shell command: (python -m varient(?:\.launch)? {verb} .*)$", dry, re.MULTILINE)
    return [shlex.split(command) for command in found]


def _options(words: list[str], option: str) -> list[str]:
    return [value for name, value in pairwise(words) if name == option]


def test_each_network_is_asked_once_for_the_losses_of_all_its_systems(copy):
    """Also at the end of a phase, after another base, and before any training."""
    dry = snakemake(copy, "-n", "-p", *SMOKE, "--", "results/smoke/ablations.csv").stdout
    asked = {Path(_options(words, "--output")[0]).stem: _options(words, "--system")
             for words in _commands(dry, "held-out")}
    assert len(_commands(dry, "held-out")) == len(asked)
    assert asked["heldout-supernet-d2"] == ["variant-d2", "variant-d2-full", "variant-d2-full-plain"]
    assert asked["heldout-base"] == ["free-d2", "free-d2-r1to3", "free-d4", "var-d6", "var-d6-plain"]
    assert asked["heldout-base-b1"] == ["var-d6-b1"]
    assert asked["heldout-supernet-d4-e3"] == ["variant-d4-e3", "variant-d4-e3-full"]
    (ablations,) = _commands(dry, "ablations")
    assert {Path(path).stem for path in _options(ablations, "--held-out")} == set(asked)


def test_each_network_is_compared_once_with_the_full_one_for_all_its_systems(copy):
    """Also itself; the tables and the figure read the records of their own rows."""
    dry = snakemake(copy, "-n", "-p", "--configfile", "workflow/config/digits.yaml", "--", "results/table2.csv",
                    "results/rivals.csv", "figures/fidelity.png").stdout
    asked = {Path(_options(words, "--output")[0]).stem: _options(words, "--system")
             for words in _commands(dry, "fidelity")}
    assert len(_commands(dry, "fidelity")) == len(asked)
    assert set(asked) == {"fidelity-base", *(f"fidelity-supernet-d{depth}" for depth in (16, 8, 4, 2))}
    assert asked["fidelity-supernet-d8"] == ["variant-d8", "variant-d8-w1", "variant-d8-w2-kv8",
                                               "variant-d8-w2-kv8-gmap"]
    assert {"var-d30", "var-d30-w1-c0", "var-d30-kv4", "free-d16-prefix"} <= set(asked["fidelity-base"])
    for verb, shown in (("table", set(asked)), ("rivals", set(asked)), ("figure", set(asked) - {"fidelity-base"})):
        (command,) = _commands(dry, verb)
        assert {Path(path).stem for path in _options(command, "--fidelity")} == shown


def test_sweeps_are_a_target_of_their_own(copy):
    dry = snakemake(copy, "-n", "-p", *SMOKE, "--", "sweeps").stdout
    asked = {Path(re.search(r"> (\S+) 2>", " ".join(words))[1]).stem: _options(words, "--system")[0]
             for words in _commands(dry, "sweep")}
    systems = ["var-d6", "variant-d4", "variant-d2"]
    assert asked == dict(zip(systems, systems, strict=True))
    (figure,) = _commands(dry, "figure")
    assert _options(figure, "--sweep") == [f"runs/smoke/sweeps/{name}" for name in systems]
    assert not _commands(snakemake(copy, "-n", "-p", *SMOKE).stdout, "sweep")


def test_another_base_network_is_trained_with_its_seed_and_supernets_start_from_it(copy):
    dry = snakemake(copy, "-n", "-p", *SMOKE, "--", "runs/smoke/supernet-d2-b1.safetensors").stdout
    (base,), (supernet,) = _commands(dry, "train base"), _commands(dry, "train supernet")
    assert (_options(base, "--seed"), _options(base, "--output")) == (["1"], ["runs/smoke/base-b1.safetensors"])
    assert (_options(supernet, "--seed"), _options(supernet, "--base-seed")) == (["0"], ["1"])
    assert "runs/smoke/base-b1.safetensors" in supernet and "runs/smoke/base.safetensors" not in supernet


@pytest.mark.slow
def test_losses_on_a_folder_are_left_out_unless_they_are_asked_for_and_then_need_its_val(copy):
    dry = ("-n", "--configfile", "workflow/config/imagenet256.yaml")
    table = "results/imagenet256/table8.csv"
    _give(copy, "train")
    assert "held_out_loss" not in snakemake(copy, *dry, "--", table).stdout
    losses = ("--config", "held_out_loss=true")
    refused = snakemake(copy, *dry, *losses, "--", table)
    assert refused.returncode != 0 and "data/imagenet/val has 0 class folders" in refused.stdout + refused.stderr
    _give(copy, "train", "val")
    given = snakemake(copy, *dry, *losses, "--", table)
    assert given.returncode == 0 and "rule held_out_loss" in given.stdout, given.stdout + given.stderr


@pytest.mark.parametrize("odd", ["empty", pytest.param("extra", marks=pytest.mark.slow)])
def test_the_odd_class_folder_of_imagenet_is_named_before_any_job(copy, odd):
    _give(copy, "train")
    if odd == "empty":
        (copy / "data/imagenet/train/n00000123/0.JPEG").rename(copy / "data/imagenet/train/n00000123/.0.JPEG")
    else:
        (copy / "data/imagenet/train/n00000123").rename(copy / "data/imagenet/train/n123-old")
        (copy / "data/imagenet/train/n00000123").mkdir()
        (copy / "data/imagenet/train/n00000123/0.JPEG").touch()
    result = snakemake(copy, "-n", "--configfile", "workflow/config/imagenet256.yaml", "--",
                        "runs/imagenet256/supernet-d16.safetensors")
    assert result.returncode != 0
    assert {"empty": "n00000123", "extra": "n123-old"}[odd] in result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("target", "missing"), zip(
    ("tokenizer.safetensors", "classifier-judge.safetensors", "dit.safetensors", "real/holdout.npz"), FASHION_MNIST,
    strict=True))
def test_fashion_mnist_is_asked_for_before_any_job_where_images_are_read(copy, target, missing):
    _give(copy)
    (copy / f"data/fashion-mnist/{missing}.gz").unlink()
    dry = ("-n", "--configfile", "workflow/config/fashion.yaml", "--", f"runs/fashion/{target}")
    result = snakemake(copy, *dry)
    assert result.returncode != 0
    assert re.search(rf"data/fashion-mnist/{missing}: no such file.*dataset-fashion-mnist",
                     result.stdout + result.stderr)
    made = copy / f"runs/fashion/{target}"
    made.parent.mkdir(parents=True, exist_ok=True)
    made.touch()
    result = snakemake(copy, *dry)
    made.unlink()
    assert "no such file" not in result.stdout + result.stderr


@pytest.mark.parametrize(("variables", "training", "sampling"), [
    ({}, 0, 1),
    pytest.param({"VARIENT_DEVICE": "cpu"}, 0, 0, marks=pytest.mark.slow),
    pytest.param({"VARIENT_DEVICE": "cuda"}, 1, 1, marks=pytest.mark.slow),
    ({"VARIENT_DEVICE": "cuda", "VARIENT_LAUNCH": "torchrun --standalone --nproc-per-node 4"}, 4, 1),
])
def test_jobs_say_how_many_gpus_they_take(copy, variables, training, sampling):
    empty = {"VARIENT_DEVICE": "", "VARIENT_LAUNCH": ""}
    dry = snakemake(copy, "-n", *SMOKE, "--", "runs/smoke/samples/variant-d4/shard-0.npz", **empty | variables).stdout
    jobs = re.findall(r"^rule (\w+):$.*?^    resources: (.*?)$", dry, re.MULTILINE | re.DOTALL)
    taken = {rule: re.search(r"gpu=(\d+)", resources) for rule, resources in jobs}
    assert {rule: int(found[1]) if found else 0 for rule, found in taken.items()} == {
        "train_tokenizer": 0, "train_base": training, "train_supernet": training, "generate_shard": sampling}


def test_a_launcher_that_does_not_say_how_many_processes_stops_before_any_job(copy):
    result = snakemake(copy, "-n", *SMOKE, VARIENT_LAUNCH="torchrun --standalone", VARIENT_DEVICE="cuda")
    assert result.returncode != 0 and "must give the number of processes" in result.stdout + result.stderr


def test_a_variable_that_there_is_not_stops_before_any_job(copy):
    result = snakemake(copy, "-n", *SMOKE, VARIENT_DEVCE="cpu")
    (line,) = [line for line in (result.stdout + result.stderr).splitlines() if "VARIENT_DEVCE" in line]
    assert result.returncode != 0 and "VARIENT_DEVICE" in line


def test_a_launcher_whose_program_is_missing_stops_before_any_job(copy):
    result = snakemake(copy, "-n", *SMOKE, VARIENT_LAUNCH="no-such-launcher --nproc-per-node 2", VARIENT_DEVICE="cpu")
    (line,) = [line for line in (result.stdout + result.stderr).splitlines() if "VARIENT_LAUNCH" in line]
    assert result.returncode != 0 and "no-such-launcher" in line


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
    _give(copy, "train", "val")
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


def test_a_wrong_key_stops_before_any_job(copy):
    result = snakemake(copy, "-n", "--config", "sed=3")
    assert result.returncode != 0
    assert "config: sed: Extra inputs are not permitted" in result.stdout + result.stderr


@pytest.mark.parametrize("default", [True, False])
def test_a_key_given_twice_stops_before_any_job(tmp_path, copy, default):
    """Snakemake's own reader takes the last; in the Snakefile's default as in a config named on the command line."""
    path = copy / "workflow/config/digits.yaml" if default else tmp_path / "twice.yaml"
    text = (ROOT / "workflow/config/digits.yaml").read_text("utf-8")
    path.write_text(f"{text}\nseed: 1\n", "utf-8")
    try:
        result = snakemake(copy, "-n", *([] if default else ["--configfile", str(path)]))
    finally:
        shutil.copy(ROOT / "workflow/config/digits.yaml", copy / "workflow/config/digits.yaml")
    first = 1 + next(line for line, words in enumerate(text.splitlines()) if words.startswith("seed:"))
    said = f"{path.name}: key 'seed' is given twice, in line {first} and in line {len(text.splitlines()) + 2}"
    assert result.returncode != 0 and said in result.stdout + result.stderr
