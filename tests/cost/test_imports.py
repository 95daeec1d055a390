import subprocess
import sys
from pathlib import Path

import pytest

import varient.cost

MODULES = sorted(path.stem for path in Path(varient.cost.__file__).parent.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("module", ["__init__", *MODULES])
def test_costs_are_known_without_torch(module):
    name = "varient.cost" if module == "__init__" else f"varient.cost.{module}"
    heavy = "{'torch', 'accelerate', 'diffusers', 'snakemake'}"
    found = subprocess.run([sys.executable, "-c", f"import sys, {name}; print({heavy} & set(sys.modules))"],
                           capture_output=True, text=True, check=True).stdout
    assert found.strip() == "set()"
