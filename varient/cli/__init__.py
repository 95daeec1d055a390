"""The `varient` command.

Commands only parse, call one function of the library and report; heavy imports happen inside them, so that `--help` and
a wrong config answer at once.
"""

from varient.cli import answers, stages
from varient.cli.app import app

__all__ = ["answers", "app", "stages"]
