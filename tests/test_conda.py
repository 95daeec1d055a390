"""`--sdm conda`: jobs run in the environment that Snakemake builds from environment.yml, and in no other."""

import shlex
import sys
from pathlib import Path

from project_copy import SMOKE, copy_to, snakemake

# What Snakemake asks of conda.  `env create` downloads nothing here: the environment's `python` is the one that runs
# the tests, and writes down each call and the environment through which it came.
CONDA = """#!/bin/sh
case "$1 $2" in
    "info --json") echo '{{"conda_prefix": "{root}", "platform": "linux-64"}}' ;;
    "config --get") echo '{{"get": {{"channel_priority": "strict"}}}}' ;;
    "clean -y") ;;
    "--version ") echo "conda 25.1.0" ;;
    "env create")
        for word; do last=$word; done
        mkdir -p "$last/bin"
        printf '#!/bin/sh\\necho "%s $*" >> {calls}\\nexec {python} "$@"\\n' "$last" > "$last/bin/python"
        chmod +x "$last/bin/python" ;;
    *) echo "unexpected: $*" >&2; exit 1 ;;
esac
"""
ACTIVATE = 'export PATH="$1/bin:$PATH"\n'


def _stand_in(root: Path) -> Path:
    """A conda below `root`; its file of calls."""
    calls = root / "calls"
    (root / "bin").mkdir(parents=True)
    conda = CONDA.format(root=root, calls=shlex.quote(str(calls)), python=shlex.quote(sys.executable))
    (root / "bin/conda").write_text(conda)
    (root / "bin/conda").chmod(0o755)
    (root / "bin/activate").write_text(ACTIVATE)
    return calls


def test_jobs_run_in_the_environment_that_snakemake_builds(tmp_path):
    calls = _stand_in(tmp_path / "conda")
    folder = copy_to(tmp_path / "project")
    deploy = folder / "environment.post-deploy.sh"
    assert "pip install" in deploy.read_text()
    deploy.write_text("python -c pass\n")  # nothing is installed into the tests' environment
    result = snakemake(folder, "--cores", "1", "--sdm", "conda", *SMOKE, "--", "runs/smoke/real/train.npz",
                       PATH=f"{tmp_path}/conda/bin:/usr/bin:/bin")
    assert result.returncode == 0, result.stdout + result.stderr
    built, job = calls.read_text().splitlines()
    assert built.endswith(" -c pass")
    environment, *words = job.split()
    assert Path(environment).is_relative_to(folder / ".snakemake/conda")
    assert words[:2] == ["-m", "varient"]
