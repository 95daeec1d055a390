"""The file lists that decide what the workflow reruns."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT

from varient.sources import stage_sources

STAGES = ["varient.training.tokenizer", "varient.training.classifier", "varient.training.supernet",
          "varient.models.official", "varient.generation", "varient.evaluation.reference", "varient.evaluation.scoring",
          "varient.profiling.profiler", "varient.report.tables", "varient.report.table3"]

LOADED = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps([m.__file__ for name, m in sys.modules.items() if name.split(".")[0] == "varient" and m.__file__]))
"""


@pytest.mark.parametrize("stage", STAGES)
def test_the_list_covers_what_the_stage_really_loads(stage):
    result = subprocess.run([sys.executable, "-c", LOADED, stage], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {str(path.removeprefix(f"{ROOT}/")) for path in json.loads(result.stdout)}
    boundary = {path for path in loaded if path.endswith("__init__.py")}  # docstrings, and the version
    assert loaded - boundary <= set(stage_sources(stage))


def test_rendering_and_profiling_code_is_no_reason_to_train_again():
    training = stage_sources("varient.training.supernet", "varient.models.official")
    assert not any("report" in path or "profiling" in path or "sampling" in path or "kv_cache" in path
                   for path in training)


def test_a_misspelt_stage_is_refused():
    with pytest.raises(ValueError, match="no such module"):
        stage_sources("varient.trainig")
