"""Start a training through the launcher in VARIENT_LAUNCH: `python -m varient.launch train supernet ...`.

VARIENT_LAUNCH is the command line of a launcher, such as `torchrun --standalone --nproc-per-node 8` or
`accelerate launch --num_processes 8`; without it the training runs in one process.  On GPUs (VARIENT_DEVICE=cuda) the
launcher sees exactly one GPU for each process, none of which another `varient` process uses.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from varient.devices import take_gpus, wanted_device
from varient.settings import read_settings

VARIABLE = "VARIENT_LAUNCH"
_PROCESSES = ("--nproc-per-node", "--nproc_per_node", "--num-processes", "--num_processes")


def launched_processes() -> int:
    """Number of processes that VARIENT_LAUNCH starts on this machine; 1 without a launcher.

    Raises:
        ValueError: the launcher has no option with the number of processes, or is not a valid command line; as
            `varient.settings.read_settings`.
    """
    words = _words()
    if not words:
        return 1
    options = [part for word in words for part in word.split("=", 1)]
    for option, value in pairwise(options):
        if option in _PROCESSES and value.isdecimal() and int(value) > 0:
            return int(value)
    raise ValueError(f"{VARIABLE} = {read_settings().launch!r} must give the number of processes, as in "
                     "torchrun --standalone --nproc-per-node 8, or accelerate launch --num_processes 8")


def training_gpus() -> int:
    """Number of GPUs that a training uses: one for each process if VARIENT_DEVICE=cuda, else 0.

    Raises:
        ValueError: as `launched_processes`.
    """
    return launched_processes() if wanted_device("cpu") == "cuda" else 0


def launcher() -> list[str]:
    """Program and options in VARIENT_LAUNCH; this Python interpreter if it is not set.

    The program is searched beside this Python, where `torchrun` and `accelerate` are installed, and then on PATH.

    Raises:
        ValueError: no such program, or not a valid command line; as `varient.settings.read_settings`.
    """
    words = _words()
    if not words:
        return [sys.executable]
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    program = shutil.which(words[0], path=folders)
    if program is None:
        raise ValueError(f"{VARIABLE} = {read_settings().launch!r}: there is no program {words[0]!r} on PATH")
    return [program, *words[1:]]


def command(arguments: Sequence[str]) -> list[str]:
    """The command line of `varient` with the given arguments under the launcher.

    Raises:
        ValueError: as `launcher`.
    """
    return [*launcher(), "-m", "varient", *arguments]


def _words() -> list[str]:
    said = read_settings().launch
    try:
        return shlex.split(said)
    except ValueError as error:
        raise ValueError(f"{VARIABLE} = {said!r} is not a valid command line: {error}") from None


def main() -> None:
    """Become the launcher."""
    try:
        words = command(sys.argv[1:])
        if gpus := training_gpus():
            take_gpus(gpus, for_children=True)
    except (ValueError, OSError) as error:
        sys.exit(f"varient: {error}")
    try:
        os.execv(words[0], words)
    except OSError as error:
        sys.exit(f"varient: {VARIABLE}: {words[0]} cannot be started: {error.strerror}")


if __name__ == "__main__":
    main()
