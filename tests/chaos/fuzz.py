"""Fuzz every kind of file that `varient` reads: seeded damage, read by the product, in processes of limited memory.

    python tests/chaos/fuzz.py --inputs 4000
    python tests/chaos/fuzz.py --only weights:17:0     # one case again, with what it did

A case is KIND:NUMBER:SEED.  Its outcome is one of

    same        accepted, and all tensors, images and numbers are those of the undamaged file
    refused     one of varient's own errors: at most five lines that name the file
    left aside  a cache or a saved state that was not used, as is meant
    changed     accepted, with another content; a fault where the file has checksums, unless they were made to fit

    accepted    the same where it is no fault

and these are faults always: a traceback, a hang of more than 10 s (CPU time; 300 s altogether), growth of more than
1 GiB, the end of the process, a message that is too long or does not name the file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType

sys.path.insert(0, str(Path(__file__).parents[1]))  # of the tests, as pytest has it

from fuzz_kinds import KINDS, Kind
from mutations import ANY, Damage

HANG_S, WAIT_S = 10, 300
"""Limits of a case: CPU time, which does not depend on what else the machine does, and altogether."""
GROWTH = 2 ** 30
MOST_LINES, MOST_CHARACTERS = 5, 2000
FAULTS = ("changed", "traceback", "hang", "growth", "ended", "message")
AT_ONCE = 100
"""Cases of a process."""


@dataclass(frozen=True)
class Case:
    """One damaged file."""

    kind: str
    number: int
    seed: int

    @classmethod
    def parse(cls, text: str) -> Case:
        kind, number, seed = text.rsplit(":", 2)
        return cls(kind, int(number), int(seed))

    def __str__(self) -> str:
        return f"{self.kind}:{self.number}:{self.seed}"

    def damage(self, whole: bytes) -> tuple[Damage, bytes]:
        """What is done to the file, and its content afterwards."""
        draw = Random(str(self))
        damages = KINDS[self.kind].damages
        damage = draw.choice(damages if damages and draw.random() < 0.6 else ANY)
        return damage, damage(whole, draw)


@dataclass(frozen=True)
class Outcome:
    """What became of a case."""

    case: Case
    damage: str
    outcome: str
    told: str = ""

    @property
    def is_fault(self) -> bool:
        return self.outcome in FAULTS


class _Hang(BaseException):
    """The alarm of a case that takes too long."""


def fuzz(cases: Sequence[Case], keep: Path | None = None) -> Iterator[Outcome]:
    """Run the cases and yield what became of each; a process that ends or hangs for good costs one case only.

    Args:
        keep: folder for the files of faults.
    """
    waiting = list(cases)
    while waiting:
        kind = waiting[0].kind
        together = [case for case in waiting[:AT_ONCE] if case.kind == kind]
        done = yield from _in_a_process(kind, together, keep)
        waiting = waiting[done:]


def _in_a_process(kind: str, cases: list[Case], keep: Path | None) -> Generator[Outcome, None, int]:
    """Run cases of one kind in a child; returns how many are done."""
    with tempfile.TemporaryDirectory() as place:
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(readable)
            _limit_and_run(KINDS[kind], cases, Path(place), writable, keep)
        os.close(writable)
        done = 0
        with os.fdopen(readable, "rb", buffering=0) as lines:
            for case in cases:
                done += 1
                # An alarm interrupts neither compiled code nor one that waits.
                ready, _, _ = select.select([lines], [], [], WAIT_S)
                line = lines.readline() if ready else b""
                if not line:
                    yield Outcome(case, "?", *(("ended", "the process ended") if ready else
                                               ("hang", "the process did not come back")))
                    break
                yield Outcome(case, *json.loads(line))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return done


def _limit_and_run(kind: Kind, cases: list[Case], place: Path, output: int, keep: Path | None) -> None:
    """What the child does: limit its memory, make an undamaged file, damage it once for each case."""
    try:
        warnings.simplefilter("ignore")
        (place / "undamaged").mkdir()
        whole = kind.make(place / "undamaged")
        shutil.copytree(place / "undamaged", place / "read")
        reference = _digest(kind.read(place / "read" / whole.relative_to(place / "undamaged")))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + GROWTH + GROWTH // 4,) * 2)
        for case in cases:
            folder = place / f"{case.number}-{case.seed}"
            shutil.copytree(place / "undamaged", folder)
            outcome = _run(kind, case, folder / whole.relative_to(place / "undamaged"), reference, keep)
            shutil.rmtree(folder)
            os.write(output, (json.dumps([outcome.damage, outcome.outcome, outcome.told[:3000]]) + "\n").encode())
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _digest(content: bytes | None) -> str:
    return "none" if content is None else hashlib.sha256(content).hexdigest()


def _run(kind: Kind, case: Case, path: Path, reference: str, keep: Path | None) -> Outcome:
    damage, content = case.damage(path.read_bytes())
    path.write_bytes(content)
    before = _resident_now()
    signal.signal(signal.SIGPROF, _alarm)
    signal.setitimer(signal.ITIMER_PROF, HANG_S)
    try:
        try:
            found = kind.read(path)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        outcome, told = ("same", "") if _digest(found) == reference else \
            ("left aside", "") if found is None else \
            ("changed" if kind.sealed and damage in ANY else "accepted", "")
    except _Hang:
        outcome, told = "hang", f"more than {HANG_S} s of CPU time"
    except (Exception, SystemExit) as error:
        outcome, told = _told(error, path)
    if (grown := _resident_peak() - before) > GROWTH:
        outcome, told = "growth", f"{grown / GROWTH:.1f} GiB; {told}"
    if keep and outcome in FAULTS:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{str(case).replace(':', '-')}-{path.name}").write_bytes(content)
    return Outcome(case, damage.__name__, outcome, told)


def _told(error: BaseException, path: Path) -> tuple[str, str]:
    """What an exception is: a refusal in our words, or a fault."""
    text = str(error)
    if isinstance(error, MemoryError) or "out of memory" in text:
        return "growth", text
    ours = type(error).__module__.split(".")[0] == "varient" or (
        isinstance(error, SystemExit) and text.startswith("varient: "))
    if not ours:
        return "traceback", "".join(traceback.format_exception(error)[-4:])
    if len(text.splitlines()) > MOST_LINES or len(text) > MOST_CHARACTERS:
        return "message", text
    if path.name not in text and path.parent.name not in text:
        return "message", f"does not name {path.name}: {text}"
    return "refused", text


def _alarm(_signal: int, _frame: FrameType | None) -> None:
    raise _Hang


def _resident_now() -> int:
    """Resident bytes of this process; the kernel's record of their peak begins anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _resident_peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def cases_of(inputs: int, seed: int, kinds: Sequence[str] = tuple(KINDS)) -> list[Case]:
    """So many cases, the same number of each kind, or nearly."""
    return [Case(kind, number, seed) for at, kind in enumerate(kinds)
            for number in range(inputs // len(kinds) + (at < inputs % len(kinds)))]


def main() -> None:
    """Run the cases, print the faults as they come and a table of all outcomes; exit code 1 with faults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=KINDS, help="only these kinds")
    parser.add_argument("--only", type=Case.parse, action="append", metavar="KIND:NUMBER:SEED", help="only these cases")
    parser.add_argument("--keep", type=Path, help="folder for the files of faults")
    chosen = parser.parse_args()
    cases = chosen.only or cases_of(chosen.inputs, chosen.seed, chosen.kind or tuple(KINDS))
    begin, found = time.monotonic(), []
    for outcome in fuzz(cases, chosen.keep):
        found.append(outcome)
        if outcome.is_fault or chosen.only:
            print(f"{outcome.case} {outcome.damage}: {outcome.outcome}: {outcome.told}", flush=True)
    counts = {kind: Counter(outcome.outcome for outcome in found if outcome.case.kind == kind)
              for kind in dict.fromkeys(outcome.case.kind for outcome in found)}
    columns = [name for name in ("same", "accepted", "refused", "left aside", *FAULTS)
               if name not in FAULTS or any(name in count for count in counts.values())]
    for kind, count in counts.items():
        print(f"{kind:22}" + "  ".join(f"{name} {count[name]:4}" for name in columns))
    faults = sum(outcome.is_fault for outcome in found)
    print(f"{len(found)} inputs, seed {chosen.seed}, {faults} faults, {time.monotonic() - begin:.0f} s")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
