"""Starts a training the way VARIENT_LAUNCH says: `python -m varient.launch train supernet ...`.

VARIENT_LAUNCH is a launcher of several processes with its options, `torchrun --standalone --nproc-per-node 8` or
`accelerate launch --num_processes 8`; without it the training is one process.  On GPUs (VARIENT_DEVICE=cuda) the
launcher sees as many as it starts processes, and none that another process of ours has taken.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise

from varient.devices import take_gpus, wanted_device

VARIABLE = "VARIENT_LAUNCH"
_PROCESSES = ("--nproc-per-node", "--nproc_per_node", "--num-processes", "--num_processes")


def processes_of(environment: Mapping[str, str] = os.environ) -> int:
    """Processes that VARIENT_LAUNCH starts on this machine; 1 where it names no launcher.

    Raises:
        ValueError: a launcher that does not say how many.
    """
    words = shlex.split(environment.get(VARIABLE, ""))
    if not words:
        return 1
    options = [part for word in words for part in word.split("=", 1)]
    for option, value in pairwise(options):
        if option in _PROCESSES and value.isdecimal() and int(value) > 0:
            return int(value)
    raise ValueError(f"{VARIABLE} = {environment[VARIABLE]!r} must say as a number how many processes it starts: "
                     "torchrun --standalone --nproc-per-node 8, or accelerate launch --num_processes 8")


def training_gpus(environment: Mapping[str, str] = os.environ) -> int:
    """GPUs that a training takes: one for each process with VARIENT_DEVICE=cuda, else none.

    Raises:
        ValueError: as `processes_of` and `varient.devices.wanted_device`.
    """
    return processes_of(environment) if wanted_device("cpu", environment) == "cuda" else 0


def command(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> list[str]:
    """The command line of `varient` with the given arguments under the launcher."""
    launcher = shlex.split(environment.get(VARIABLE, "")) or [sys.executable]
    return [*launcher, "-m", "varient", *arguments]


def main() -> None:
    """Become the launcher."""
    try:
        words = command(sys.argv[1:])
        if gpus := training_gpus():
            take_gpus(gpus, for_children=True)
        os.execvp(words[0], words)
    except (ValueError, OSError) as error:
        sys.exit(f"varient: {error}")


if __name__ == "__main__":
    main()
