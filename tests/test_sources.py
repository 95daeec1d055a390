"""The file lists that decide what the workflow reruns."""

import ast
import json
import subprocess
import sys

import pytest
from conftest import ROOT

from varient import sources
from varient.sources import sources_digest, stage_sources

STAGES = ["varient.training.tokenizer", "varient.training.classifier", "varient.training.base",
          "varient.training.supernet",
          "varient.models.official", "varient.generation", "varient.evaluation.reference", "varient.evaluation.scoring",
          "varient.profiling.profiler", "varient.report.tables", "varient.report.table3", "varient.report.opening",
          "varient.baselines.code.training", "varient.baselines.dit.training", "varient.baselines.llamagen.training"]
BASELINES = [stage for stage in STAGES if stage.startswith("varient.baselines")]

LOADED = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps([module.__file__ for name, module in sys.modules.items()
                  if name.split(".")[0] == "varient" and module.__file__]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_the_list_covers_what_the_stage_really_loads(stage):
    result = subprocess.run([sys.executable, "-c", LOADED, stage], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {str(path.removeprefix(f"{ROOT}/")) for path in json.loads(result.stdout)}
    assert {path for path in loaded if _has_code(path)} <= set(stage_sources(stage))


def _has_code(path: str) -> bool:
    """Whether there is more than a docstring; the package's version is no code of a stage."""
    rest = ast.parse((ROOT / path).read_text()).body[1:]
    return bool(rest) and path != "varient/__init__.py"


def test_rendering_and_profiling_code_is_no_reason_to_train_again():
    training = stage_sources("varient.training.base", "varient.training.supernet", "varient.models.official")
    assert not any("report" in path or "profiling" in path or "sampling" in path or "kv_cache" in path
                   for path in training)


def test_a_digest_is_of_names_and_contents(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_ROOT", tmp_path)
    (tmp_path / "varient").mkdir()
    (tmp_path / "varient/__init__.py").write_text("")
    found = set()
    for name, text in (("a", "x = 1"), ("a", "x = 2"), ("b", "x = 2")):
        (tmp_path / f"varient/{name}.py").write_text(text)
        found.add(sources_digest(f"varient.{name}"))
        assert sources_digest(f"varient.{name}", "tests.b") == sources_digest(f"varient.{name}") in found
    assert len(found) == 3


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage.startswith("varient.training")])
def test_what_is_compared_with_what_is_no_reason_to_train_again(stage):
    others = {"varient/systems/ids.py", "varient/systems/registry.py", "varient/ablations.py", "varient/experiment.py"}
    assert all((ROOT / other).exists() for other in others)
    assert not others & set(stage_sources(stage))


@pytest.mark.parametrize("stage", BASELINES)
def test_a_package_counts_where_a_module_of_it_does_but_not_what_it_imports_for_others(stage):
    sources = stage_sources(stage)
    assert f"{stage.rpartition('.')[0].removeprefix('varient.').replace('.', '/')}/__init__.py" in sources
    assert not any(name in path for path in sources for name in ("sampling", "decoding", "pipeline", "kv_cache"))
    assert any("sampling" in path for path in stage_sources(stage.rpartition(".")[0]))


def test_files_without_code_do_not_count():
    sources = stage_sources("varient.training.supernet", "varient.baselines.dit.training")
    assert not {"varient/__init__.py", "varient/training/__init__.py", "varient/systems/__init__.py"} & set(sources)


def test_a_misspelt_stage_is_refused():
    with pytest.raises(ValueError, match="no such module"):
        stage_sources("varient.trainig")
