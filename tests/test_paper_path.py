"""The paper's experiment end to end, on stand-ins for everything that it asks of the user (tests/standins)."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import yaml
from project_copy import BIN, copy_to
from standins import write_standins
from standins.settings import CONFIG, PAPER, settings_for

from varient.ablations import arms
from varient.config import load_config
from varient.experiment import named_files, parse_experiment
from varient.profile_records import ProfileRecord
from varient.records import FidelityRecord, ScoreRecord, read_record
from varient.report.table2 import DISTURBED
from varient.report.tables import TABLES

KINDS = {"score": ScoreRecord, "profile": ProfileRecord, "fidelity": FidelityRecord}
OFFLINE = Path(__file__).parent / "standins/offline"
RUN = ["--cores", "2", "--configfile", CONFIG, "--set-threads", "score=1"]


def _environment(folder: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{OFFLINE}", "VARIENT_DEVICE": "cpu",
                         "OMP_NUM_THREADS": "1", "OFFLINE_NETWORK_LOG": str(folder / "network.log")}


def _snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([BIN / "snakemake", *arguments], cwd=folder, env=_environment(folder), capture_output=True,
                          text=True)


def _jobs(said: str) -> dict[str, int]:
    """Jobs of each rule, as Snakemake counts them before it begins."""
    stats = said.partition("Job stats:")[2].partition("\ntotal")[0]
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", stats, re.MULTILINE)}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project with the stand-ins."""
    folder = copy_to(tmp_path_factory.mktemp("project"))
    write_standins(folder)
    return folder


def test_the_small_config_has_every_kind_of_job_and_of_arm_that_the_papers_has():
    small, paper = parse_experiment(settings_for(weights_sha256="0" * 64), CONFIG), load_config(PAPER)
    assert {arm.comparison for arm in arms(small)} == {arm.comparison for arm in arms(paper)}
    assert {path.name for path in named_files(small)} == {path.name for path in named_files(paper)}
    assert set(small.systems) == set(paper.systems) and small.name == paper.name
    assert small.transformer.depth == paper.transformer.depth and small.patch_nums == paper.patch_nums


def test_a_setting_that_the_papers_config_lost_is_noticed(monkeypatch):
    paper = yaml.safe_load(PAPER.read_text())
    del paper["sampling"]["top_p"], paper["profiling"]["repeats"]
    monkeypatch.setattr("standins.settings.yaml.safe_load", lambda text: paper)
    with pytest.raises(KeyError, match="profiling.repeats"):
        settings_for(weights_sha256="0" * 64)


def test_processes_of_the_run_cannot_reach_the_network(tmp_path):
    code = ("import socket, urllib.request\n"
            "a, b = socket.socketpair(); b.sendall(b'x')\n"
            "server = socket.create_server(('127.0.0.1', 0)); socket.create_connection(server.getsockname()).close()\n"
            "for attempt in (lambda: socket.create_connection(('192.0.2.1', 80), timeout=1),\n"
            "                lambda: urllib.request.urlopen('http://example.org', timeout=1)):\n"
            "    try:\n        attempt()\n    except OSError as error:\n        assert 'offline' in str(error)\n"
            "    else:\n        raise SystemExit('reached')\n")
    done = subprocess.run([sys.executable, "-c", code], env=_environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = (tmp_path / "network.log").read_text()
    assert "192.0.2.1" in said and "example.org" in said and "127.0.0.1" not in said


def _killed_in_the_middle(project: Path) -> None:
    """Start the run, and kill all of its processes at once when some, but not all, of the shards are there."""
    wanted = random.Random(20261128).randint(3, 8)
    running = subprocess.Popen([BIN / "snakemake", *RUN], cwd=project, env=_environment(project),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        while len(list(project.glob("runs/imagenet256/samples/*/shard-*.npz"))) < wanted:
            assert running.poll() is None
            time.sleep(0.2)
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()


class Run(NamedTuple):
    """The whole experiment, killed in the middle and run again.

    Attributes:
        planned, left: jobs of each rule, before the first start and before the second.
        remade: weights and shards that were there at the kill and were written once more.
    """

    project: Path
    planned: dict[str, int]
    left: dict[str, int]
    remade: list[Path]


@pytest.fixture(scope="module")
def run(project) -> Run:
    planned = _jobs(_snakemake(project, "-n", *RUN).stdout)
    _killed_in_the_middle(project)
    kept = {path: path.stat().st_mtime_ns for path in project.glob("runs/imagenet256/*.safetensors")}
    kept |= {path: path.stat().st_mtime_ns for path in project.glob("runs/imagenet256/samples/*/shard-*.npz")}
    assert _snakemake(project, *RUN, "--unlock").returncode == 0
    resumed = _snakemake(project, *RUN, "--rerun-incomplete", "--show-failed-logs")
    assert resumed.returncode == 0, (resumed.stdout + resumed.stderr)[-5000:]
    remade = [path for path, changed in kept.items() if path.stat().st_mtime_ns != changed]
    return Run(project, planned, _jobs(resumed.stdout + resumed.stderr), remade)


@pytest.mark.slow
@pytest.mark.all_cores
def test_a_killed_run_of_the_papers_experiment_continues_without_the_network(run):
    papers = {"train_tokenizer", "train_base", "train_supernet", "epoch_weights", "train_network", "generate_shard",
              "score", "fidelity", "profile", "table", "figure", "claims", "ablations", "opening", "report_page", "all"}
    assert set(run.planned) == papers
    assert 0 < run.left["generate_shard"] < run.planned["generate_shard"]
    assert len(run.remade) <= 2  # what was being written, on two cores
    assert not (run.project / "network.log").exists()
    again = _snakemake(run.project, "-n", *RUN)
    assert "Nothing to be done" in again.stdout + again.stderr


@pytest.mark.slow
@pytest.mark.all_cores
def test_the_papers_experiment_on_stand_ins_shows_nothing_as_imagenets(run):
    project, planned = run.project, run.planned
    results, records = project / "results/imagenet256", project / "runs/imagenet256/records"
    config = load_config(project / CONFIG)
    scores = [read_record(path, ScoreRecord) for path in records.glob("score-*.json")]
    assert len(scores) == planned["score"] and len(list(records.glob("profile-*.json"))) == planned["profile"]
    for record in scores:
        assert record.fid > 0 and record.num_images == config.sampling.num_images
        assert record.provenance.imported_sha256 and record.provenance.sampled_on.startswith("CPU")
    table = pd.read_csv(results / "table2.csv", dtype=str, keep_default_na=False).set_index("system")
    for system in ("var-d30", "variant-d16", "dit-xl2", "llamagen-xxl", "code-n6", "free-code-n6"):
        assert float(table.loc[system, "fid"]) > 0
        assert float(table.loc[system, "latency_s"].removesuffix(DISTURBED)) > 0
        assert "unknown weights" in table.loc[system, "fid_source"]
    assert pd.read_csv(results / "ablations.csv")["fid"].notna().all()
    for number in TABLES:
        text = (results / f"table{number}.md").read_text()
        assert "A rehearsal (adm-rehearsal)" in text
        assert "Not the paper's experiment, and nothing of it is ImageNet's: classes 3, the paper's 1000" in text
        assert ("Unknown weights: " in text) == (number not in (3, 6, 7))  # which show nothing that weights made
    for name in ("fig1", "fig2", "fig3", "fig4", "fig5", "fig6", "fig7", "quality-cost", "kv-live",
                 "latency-by-scale", "rivals", "fidelity"):
        assert (project / f"figures/imagenet256/{name}.png").stat().st_size > 10_000
    claims = pd.read_csv(results / "claims.csv")
    assert not claims["verdict"].isin(["reproduced", "not reproduced"]).any()
    assert not claims["verdict"].str.contains("in miniature").any()
    assert f"{planned['score']} score records whose images a CPU drew" in (results / "claims.md").read_text()
    assert (results / "report.html").stat().st_size > 100_000


@pytest.mark.slow
@pytest.mark.all_cores
def test_records_of_stand_ins_that_were_edited_get_no_verdict_at_the_papers_size(run, tmp_path):
    """Another device and 50,000 images, as if a GPU had drawn them: under their own config and under the paper's."""
    project, folder = run.project, tmp_path / "runs/imagenet256/records"
    folder.mkdir(parents=True)
    for path in sorted(project.glob("runs/imagenet256/records/*.json")):
        record = json.loads(path.read_text())
        record["provenance"] |= {"device": "NVIDIA H100"} | (
            {"sampled_on": "NVIDIA H100"} if record["kind"] != "profile" else {})
        if record["kind"] == "score":
            record |= {"num_images": 50_000, "protocol": "adm", "num_reference": 10_000}
        (folder / path.name).write_text(json.dumps(record))
        read_record(folder / path.name, KINDS[record["kind"]])
    for config in (project / CONFIG, PAPER):
        stem = tmp_path / "claims"
        for command in (["claims", "-o", str(stem)], *(["table", str(n), "-o", str(tmp_path / f"table{n}")]
                                                       for n in (1, 2, 4, 5, 6, 7, 8))):
            done = subprocess.run([sys.executable, "-m", "varient", *command, "--config", str(config), "--found-in",
                                   str(tmp_path / "runs/imagenet256")], env=_environment(project), cwd=project,
                                  capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        verdicts = pd.read_csv(f"{stem}.csv")["verdict"]
        assert not verdicts.isin(["reproduced", "not reproduced"]).any()
        for number in (1, 2, 4, 5, 6, 7, 8):
            assert "unknown weights" in (tmp_path / f"table{number}.md").read_text().lower()
        assert "unknown weights" in Path(f"{stem}.md").read_text().partition("## ")[0].lower()
