"""The DAG before it runs: what is planned, and what is refused before any job."""

import re
import shlex
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT
from further_arms import CONFIGS_OF_MAKE_FURTHER
from project_copy import SMOKE, copy_to, give_user_files, snakemake

from varient.training.fashion_mnist import SHA256 as FASHION_MNIST


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    return copy_to(tmp_path_factory.mktemp("project"))


@pytest.mark.parametrize("config", ["smoke", *(pytest.param(name, marks=pytest.mark.slow) for name in
                                               ("digits", "fashion", "digits_c", "imagenet256", "imagenet256_var"))])
def test_the_dag_of_every_shipped_config_resolves(copy, config):
    give_user_files(copy, "train", "val")
    result = snakemake(copy, "-n", "--configfile", f"workflow/config/{config}.yaml")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["fd-dinov2", "cmmd"])
def test_the_config_alone_names_an_encoders_protocol(copy, protocol):
    """The same jobs as under `adm`, each scoring with the other file."""
    give_user_files(copy, "train", "val")
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
    give_user_files(copy)
    (copy / "weights" / "var_d30.pth").unlink()
    result = snakemake(copy, "-n", "--configfile", "workflow/config/imagenet256.yaml")
    assert result.returncode != 0
    assert "var_d30.pth" in result.stdout + result.stderr


@pytest.mark.slow
def test_what_every_job_would_fail_at_stops_the_workflow_before_the_first(copy):
    """Files that are none, and no GPU: one refusal names all of it, but no file that the target leaves out."""
    give_user_files(copy)
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
    give_user_files(copy)
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
    give_user_files(copy)
    torch.save({}, copy / "weights/weights-inception-2015-12-05-6726825d.pth")
    shutil.rmtree(copy / "runs/imagenet256", ignore_errors=True)
    result = snakemake(copy, "--cores", "2", "--keep-going", "--configfile", "workflow/config/imagenet256.yaml", "--",
                       "runs/imagenet256/records/score-var-d30.json", VARIENT_DEVICE="cpu")
    said = result.stdout + result.stderr
    assert result.returncode == 1 and not (copy / "runs/imagenet256/logs").exists()
    assert said.count("expected 6726825d") == 1 and "evaluation.weights_sha256" in said and "--sha256" in said


@pytest.mark.parametrize(("target", "splits", "missing"), [
    ("runs/imagenet256/supernet-d16.safetensors", ("train",), None),
    ("runs/imagenet256/supernet-d16.safetensors", (), "train"),
    # whose losses are in Fig. 2b
    pytest.param("runs/imagenet256/supernet-d16-p10.safetensors", ("train",), "val", marks=pytest.mark.slow),
    # untrained subnets
    pytest.param("results/imagenet256/table1.csv", (), None, marks=pytest.mark.slow),
])
def test_imagenet_is_asked_for_before_any_job_where_a_training_needs_it(copy, target, splits, missing):
    give_user_files(copy, *splits)
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
def test_the_further_arms_are_those_of_make_all_and_more(copy):
    of_all, of_further = (
        set(re.findall(r"^    output: runs/digits/(supernet\S+)\.safetensors$", found.stdout, re.MULTILINE))
        for found in (snakemake(copy, "-n", "results/ablations.md", *more)
                      for more in ([], ["--configfile", *CONFIGS_OF_MAKE_FURTHER])))
    assert of_all < of_further and {"supernet-d16-p80", "supernet-d4-cosine"} < of_further


@pytest.mark.slow
def test_losses_on_a_folder_are_left_out_unless_they_are_asked_for_and_then_need_its_val(copy):
    dry = ("-n", "--configfile", "workflow/config/imagenet256.yaml")
    table = "results/imagenet256/table8.csv"
    give_user_files(copy, "train")
    assert "held_out_loss" not in snakemake(copy, *dry, "--", table).stdout
    losses = ("--config", "held_out_loss=true")
    refused = snakemake(copy, *dry, *losses, "--", table)
    assert refused.returncode != 0 and "data/imagenet/val has 0 class folders" in refused.stdout + refused.stderr
    give_user_files(copy, "train", "val")
    given = snakemake(copy, *dry, *losses, "--", table)
    assert given.returncode == 0 and "rule held_out_loss" in given.stdout, given.stdout + given.stderr


@pytest.mark.parametrize("odd", ["empty", pytest.param("extra", marks=pytest.mark.slow)])
def test_the_odd_class_folder_of_imagenet_is_named_before_any_job(copy, odd):
    give_user_files(copy, "train")
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
@pytest.mark.parametrize(("target", "missing"), [*zip(
    ("tokenizer.safetensors", "classifier-judge.safetensors", "dit.safetensors", "real/holdout.npz"), FASHION_MNIST,
    strict=True)])
def test_fashion_mnist_is_asked_for_before_any_job_where_images_are_read(copy, target, missing):
    give_user_files(copy)
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
