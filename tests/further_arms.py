"""The digits experiment with what `make further` adds to it; docs/results has records of some of that."""

from collections.abc import Mapping

from conftest import ROOT

from varient.config import parse_config
from varient.yaml_file import read_yaml

CONFIGS_OF_MAKE_FURTHER = [f"workflow/config/{name}.yaml" for name in ("digits", "digits-further")]


def _merged(plain, further):
    """As Snakemake merges config files: mappings key by key, all else replaced."""
    both = {key: _merged(plain[key], value) for key, value in further.items()
            if isinstance(value, Mapping) and isinstance(plain.get(key), Mapping)}
    return {**plain, **further, **both}


FURTHER_DIGITS = parse_config(_merged(*(read_yaml(ROOT / path) for path in CONFIGS_OF_MAKE_FURTHER)), "make further")
