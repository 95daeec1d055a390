"""The digits experiment with what `make further` adds to it; docs/results has records of some of that."""

import shlex
import subprocess

import yaml
from conftest import ROOT

from varient.config import load_config, parse_config


def settings_of_make_further():
    """What `make further` gives to Snakemake's --config, as it stands there."""
    said = subprocess.run(["make", "-n", "further"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    words = shlex.split(said[said.rindex("snakemake"):])
    return words[words.index("--config") + 1:]


def _with_further():
    plain = load_config(ROOT / "workflow/config/digits.yaml").model_dump(mode="json")
    given = {key: yaml.safe_load(value) for key, value in (word.split("=", 1) for word in settings_of_make_further())}
    return parse_config(plain | given | {"ablations": plain["ablations"] | given["ablations"]}, "make further")


FURTHER_DIGITS = _with_further()
