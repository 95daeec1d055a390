"""The Slurm profile against a real Slurm of one node, started on the loopback and stopped again."""

import getpass
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")
PATH = f"{os.environ['PATH']}:/usr/sbin"  # where Debian puts the daemons
MISSING = [program for program in PROGRAMS if not shutil.which(program, path=PATH)]
CONFIG = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
MinJobAge=600
ReturnToService=2
# The node pretends to have what the profile asks for.
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=128 RealMemory=1000000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs Slurm ({', '.join(MISSING)} not installed): apt-get install "
                                             "slurmctld slurmd munge slurm-client"),
    pytest.mark.skipif(importlib.util.find_spec("snakemake_executor_plugin_slurm") is None,
                       reason="needs snakemake-executor-plugin-slurm: pip install -e '.[slurm]'"),
]


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """The environment of commands that speak to a Slurm of this test's own."""
    # Not pytest's folder: the path of a socket may have 107 characters.
    with tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as name:
        folder, host = Path(name), socket.gethostname().split(".")[0]
        for part in ("state", "spool"):
            (folder / part).mkdir()
        (folder / "munge.key").touch(mode=0o600)
        (folder / "munge.key").write_bytes(os.urandom(1024))
        config = folder / "slurm.conf"
        config.write_text(CONFIG.format(host=host, ports=_free_ports(2), user=getpass.getuser(), folder=folder))
        # The plugin takes SLURM_CONF from its srun as it does all of Slurm's variables; where Slurm is installed for
        # good, the file lies where srun looks.
        (folder / "bin").mkdir()
        srun = shutil.which("srun", path=PATH)
        (folder / "bin/srun").write_text(f'#!/bin/sh\nSLURM_CONF={config} exec {srun} "$@"\n')
        (folder / "bin/srun").chmod(0o755)
        environment = os.environ | {"PATH": f"{folder}/bin:{PATH}", "SLURM_CONF": str(config)}
        environment = {key: value for key, value in environment.items() if key == "SLURM_CONF" or
                       not key.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
        munged = ["munged", "--foreground", "--force", f"--key-file={folder}/munge.key",
                  f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid",
                  f"--seed-file={folder}/munged.seed", f"--log-file={folder}/munged.log"]
        daemons = []
        try:
            for command in (munged, ["slurmctld", "-D", "-i"], ["slurmd", "-D"]):
                with (folder / f"{command[0]}.out").open("w") as out:
                    daemons.append(subprocess.Popen(command, env=environment, stdout=out, stderr=out))
                if command is munged:
                    _wait_for((folder / "munge.socket").exists, daemons, folder)

            def is_idle() -> bool:
                states = subprocess.run(["sinfo", "--noheader", "--format=%T"], env=environment, capture_output=True,
                                        text=True)
                return states.stdout.strip() == "idle"

            _wait_for(is_idle, daemons, folder)
            yield environment
        finally:
            for daemon in reversed(daemons):
                daemon.terminate()
            for daemon in reversed(daemons):
                try:
                    daemon.wait(20)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait_for(condition, daemons: list[subprocess.Popen], folder: Path) -> None:
    for _ in range(150):
        if condition():
            return
        if any(daemon.poll() is not None for daemon in daemons):
            break
        time.sleep(0.2)
    said = "\n".join(f"{path.name}: {path.read_text()[-1500:]}" for path in sorted(folder.glob("*.out")))
    pytest.fail(f"Slurm did not start:\n{said}")


def test_the_profile_runs_a_training_and_a_profile_as_slurm_jobs(slurm, tmp_path):
    for name in ("Snakefile", "environment.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("varient", "baselines", "workflow"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = slurm | {"PYTHONPATH": paths, "VARIENT_DEVICE": "cpu"}
    target = "runs/smoke/records/profile-var-d6.json"
    run = subprocess.run(
        [Path(sys.executable).parent / "snakemake", "--workflow-profile", "workflow/profiles/slurm",
         "--configfile", "workflow/config/smoke.yaml", "--slurm-init-seconds-before-status-checks", "10",
         "--slurm-status-command", "squeue", "--slurm-no-account", "--", target],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (tmp_path / target).exists()

    listed = subprocess.run(["squeue", "--noheader", "--states=all", "--format=%i %T %k"], env=slurm, text=True,
                            capture_output=True, check=True).stdout
    jobs = {rule: line.split()[:2] for line in listed.splitlines()
            for rule in ("train_tokenizer", "train_base", "profile") if f"rule_{rule}" in line}
    assert {rule: state for rule, (_, state) in jobs.items()} == dict.fromkeys(
        ("train_tokenizer", "train_base", "profile"), "COMPLETED"), listed
    asked = {rule: subprocess.run(["scontrol", "show", "job", number], env=slurm, text=True, capture_output=True,
                                  check=True).stdout for rule, (number, _) in jobs.items()}
    assert "OverSubscribe=NO" in asked["profile"] and "OverSubscribe=OK" in asked["train_base"]
    assert "TimeLimit=02:00:00" in asked["profile"] and "TimeLimit=01:00:00" in asked["train_base"]
    assert "MinMemoryNode=62.50G" in asked["train_base"]  # 64000 MiB
