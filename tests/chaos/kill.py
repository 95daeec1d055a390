"""Kill runs of the smoke experiment at seeded moments, start them again until they are done, and compare what came out.

    python tests/chaos/kill.py --kills 20
    python tests/chaos/kill.py --at group:12.3 --at worker:4     # these kills alone, in this order

Killed is a worker (a process of `varient`), Snakemake alone (its jobs go on as orphans), or the whole group with
SIGKILL; Snakemake is also interrupted (SIGINT) and terminated (SIGTERM), and a start may find a full disk (no file may
grow beyond some KiB).  Each kill is printed with its moment, in seconds after the first job of the start.  All weights
and samples have to be those of an undisturbed run, byte for byte, and so have records and tables but for times and what
is computed from them.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # of the tests, as pytest has it

from project_copy import BIN, SMOKE, copy_to

VICTIMS = ("worker", "snakemake", "group", "worker", "snakemake", "group", "interrupt", "terminate", "full-disk")
SIGNALS = {"interrupt": signal.SIGINT, "terminate": signal.SIGTERM}
SMALL_FILES = 40_000
"""Bytes that no file may exceed on a full disk; networks of the smoke experiment are larger, their states too."""
TIMED = {"created", "latency", "decoder_latency", "latency_by_scale_s", "reference", "load", "rss_mib",
         "energy_j_per_image", "idle_w"}
"""Keys of records that a clock or the machine's load decides."""
TIMED_COLUMNS = {"latency_s", "speedup", "images_per_s"}
PATIENCE_S, ORPHANS_S = 3600, 300


@dataclass(frozen=True)
class Kill:
    """Who is killed, and how many seconds after the first job; a full disk is there from the start."""

    victim: str
    moment_s: float

    @classmethod
    def parse(cls, text: str) -> Kill:
        victim, _, moment = text.partition(":")
        if victim not in VICTIMS:
            raise argparse.ArgumentTypeError(f"{victim!r} is none of {', '.join(dict.fromkeys(VICTIMS))}")
        return cls(victim, float(moment))

    def __str__(self) -> str:
        return f"{self.victim}:{self.moment_s:.1f}"


class Project:
    """A copy of the project, and its workflow run there."""

    def __init__(self, folder: Path, targets: Sequence[str]) -> None:
        self.folder, self.targets = copy_to(folder), list(targets)
        self.started: set[int] = set()

    def run(self, kill: Kill | None = None, choose: Random | None = None) -> str | None:
        """Run the workflow, or kill it; what was killed, "" where it failed by itself, None where it is done."""
        self._snakemake("--unlock").wait()
        process = self._snakemake("--cores", "2", small_files=kill is not None and kill.victim == "full-disk")
        try:
            if kill is None or kill.victim == "full-disk":
                status = process.wait(PATIENCE_S)
                return None if status == 0 else "" if kill is None else "what found the disk full"
            end = float("inf")
            while time.monotonic() < end or (kill.victim == "worker" and not _workers(process.pid)):
                self.started |= set(_descendants(process.pid))
                if end == float("inf") and _workers(process.pid):
                    end = time.monotonic() + kill.moment_s
                if process.poll() is not None:
                    return None if process.returncode == 0 else ""
                time.sleep(0.05)
            return self._kill(process, kill.victim, choose or Random(0))
        finally:
            self.started |= set(_descendants(process.pid))
            if process.poll() is None and kill is None:
                process.kill()

    def wait_for_orphans(self) -> None:
        """Wait until all processes that were started here have ended."""
        end = time.monotonic() + ORPHANS_S
        while self.started and time.monotonic() < end:
            self.started = {pid for pid in self.started if _is_running(pid)}
            time.sleep(0.1)

    def finish(self) -> None:
        """Start it until it is done.

        Raises:
            RuntimeError: it fails again and again.
        """
        for _ in range(5):
            self.wait_for_orphans()
            if self.run() is None:
                return
        raise RuntimeError(f"{self.folder}: does not end well; see runs/smoke/logs")

    def _kill(self, process: subprocess.Popen, victim: str, choose: Random) -> str:
        below = _descendants(process.pid)
        self.started |= set(below)
        if victim == "worker":
            pid = choose.choice(sorted(_workers(process.pid)) or [process.pid])
            what = " ".join(_command(pid)[-12:])[:150]
            _signal(pid, signal.SIGKILL)
            process.wait(PATIENCE_S)
            return what
        if victim in SIGNALS:
            _signal(process.pid, SIGNALS[victim])
            process.wait(PATIENCE_S)
            return "Snakemake"
        for pid in (process.pid, *(below if victim == "group" else ())):
            _signal(pid, signal.SIGKILL)
        process.wait(PATIENCE_S)
        return "all" if victim == "group" else f"Snakemake alone, {len(_workers(*below))} orphans"

    def _snakemake(self, *arguments: str, small_files: bool = False) -> subprocess.Popen:
        def limit() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL_FILES, SMALL_FILES))

        profile = ["--workflow-profile", "workflow/profiles/local"]
        return subprocess.Popen(
            [BIN / "snakemake", *arguments, *SMOKE, *profile, "--", *self.targets], cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(self.folder), "VARIENT_SAVE_EVERY": "3"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=limit if small_files else None)


def _processes() -> dict[int, int]:
    """Running processes: pid -> pid of the parent."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (place / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            found[int(place.name)] = int(parent)
    return found


def _descendants(*roots: int) -> list[int]:
    parents, found = _processes(), list(roots)
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[len(roots):]


def _workers(*roots: int) -> list[int]:
    """Processes of `varient` below others, or among them."""
    return [pid for pid in {*roots, *_descendants(*roots)} if "-m" in (words := _command(pid))
            and any(word.startswith("varient") for word in words)]


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _is_running(pid: int) -> bool:
    return pid in _processes()


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def results(folder: Path) -> dict[str, bytes]:
    """What a run has made, times left out: path -> content."""
    found = {}
    for path in sorted(folder.glob("runs/smoke/*.safetensors")) + sorted(folder.glob("runs/smoke/samples/*/*.npz")) \
            + sorted(folder.glob("runs/smoke/real/*.npz")):
        found[str(path.relative_to(folder))] = path.read_bytes()
    for path in sorted(folder.glob("runs/smoke/records/*.json")):
        found[str(path.relative_to(folder))] = json.dumps(_untimed(json.loads(path.read_text()))).encode()
    for path in sorted(folder.glob("results/smoke/*.csv")):
        if path.name != "claims.csv":  # some verdicts are on times
            with path.open(newline="") as file:
                rows = [{name: cell for name, cell in row.items() if name not in TIMED_COLUMNS}
                        for row in csv.DictReader(file)]
            found[str(path.relative_to(folder))] = json.dumps(rows).encode()
    return found


def _untimed(record: Any) -> Any:
    if isinstance(record, dict):
        return {key: _untimed(value) for key, value in record.items() if key not in TIMED}
    return record


def seeded(kills: int, seed: int, horizon_s: float) -> Iterator[Kill]:
    """So many kills; each kind of victim comes in turn."""
    draw = Random(seed)
    for number in range(kills):
        yield Kill(VICTIMS[number % len(VICTIMS)], round(draw.uniform(0, horizon_s), 1))


def chaos(kills: Sequence[Kill], targets: Sequence[str], place: Path, *, seed: int = 0) -> list[str]:
    """Differences between an undisturbed run and runs in which the kills happen; each kill is printed.

    Raises:
        RuntimeError: a run does not end well.
    """
    begin = time.monotonic()
    undisturbed = Project(place / "undisturbed", targets)
    undisturbed.finish()
    expected, differences = results(undisturbed.folder), []
    print(f"undisturbed: {len(expected)} files, {time.monotonic() - begin:.0f} s", flush=True)
    waiting, choose, number = list(kills), Random(seed), 0
    while waiting:
        number += 1
        project, untouched = Project(place / f"killed-{number}", targets), True
        while waiting:
            killed = project.run(waiting[0], choose)
            if killed is None:  # done before the moment; in a project without kills it would be so again
                if untouched:
                    print(f"{waiting.pop(0)} (seed {seed}): the run was done before", flush=True)
                break
            untouched = untouched and not killed
            print(f"{waiting[0]} (seed {seed}): {killed or 'not killed: a job failed before, as beside an orphan'}",
                  flush=True)
            if killed:
                waiting.pop(0)
            else:
                project.wait_for_orphans()
        project.finish()
        found = results(project.folder)
        differences += [f"{project.folder.name}: {path}" for path in sorted(expected.keys() | found.keys())
                        if found.get(path) != expected.get(path)]
        shutil.rmtree(project.folder)
    return differences


def main() -> None:
    """Kill, compare, and print what differs; exit code 1 with differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--horizon", type=float, default=60, help="seconds after the first job within which is killed")
    parser.add_argument("--at", type=Kill.parse, action="append", metavar="VICTIM:SECONDS", help="these kills alone")
    parser.add_argument("targets", nargs="*", default=["results"], help="default: all results but the report")
    chosen = parser.parse_args()
    kills = chosen.at or list(seeded(chosen.kills, chosen.seed, chosen.horizon))
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        differences = chaos(kills, chosen.targets, Path(place), seed=chosen.seed)
    print("\n".join(differences))
    print(f"{len(kills)} kills, seed {chosen.seed}, {len(differences)} differences, {time.monotonic() - begin:.0f} s")
    sys.exit(len(differences) > 0)


if __name__ == "__main__":
    main()
