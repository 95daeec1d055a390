"""The `varient` command.

A command only parses its arguments, calls one function of the library and prints the result.  Heavy imports happen
inside the commands, so that `--help` and the error for a wrong config appear at once.
"""

from varient.cli import answers, demo, stages
from varient.cli.app import app

__all__ = ["answers", "app", "demo", "stages"]
