"""The document on adding a row says what to edit; here it is done."""

import json
import os
import re
import shutil
import subprocess
import sys

from conftest import ROOT

DOCUMENT = (ROOT / "docs/adding-a-row.md").read_text()
PLAN = """
import json
from pathlib import Path
from varient.experiment import load_experiment
from varient.systems.registry import resolve_system
config = load_experiment(Path("workflow/config/digits.yaml"))
print(json.dumps(resolve_system("free-d8-last", config).plan.layers(10)))
"""


def _edit(text: str) -> str:
    """The text after the document's hunks, each of which has to fit in exactly one place."""
    hunks = re.split(r"^@@.*@@\n", re.search(r"```diff\n(.*?)```", DOCUMENT, re.DOTALL)[1], flags=re.MULTILINE)[1:]
    assert len(hunks) == 3
    for hunk in hunks:
        lines = hunk.splitlines()
        before = "\n".join(line[1:] for line in lines if line[0] in " -")
        after = "\n".join(line[1:] for line in lines if line[0] in " +")
        assert text.count(before) == 1
        text = text.replace(before, after)
    return text


def test_a_suffix_is_added_in_one_file(tmp_path):
    for name in ("varient", "baselines", "workflow"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    ids = tmp_path / "varient/systems/ids.py"
    ids.write_text(_edit(ids.read_text()))

    def run(*command: str) -> str:
        return subprocess.run([sys.executable, *command], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)},
                              capture_output=True, text=True, check=True).stdout

    assert json.loads(run("-c", PLAN)) == list(range(22, 30))
    last, equidistant = (json.loads(run("-m", "varient", "cost", "--json", "--system", system))
                          for system in ("free-d8-last", "free-d8"))
    assert all(last.pop(key) != equidistant.pop(key) for key in ("system", "stages"))
    assert last == equidistant  # as many layers cost the same, whichever they are
    listed = run("-c", "from varient.systems.ids import forms; print(forms())")
    assert "[-last]" in listed
