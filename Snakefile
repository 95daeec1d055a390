"""From real images (or ImageNet and released weights) to the paper's tables.

    snakemake --cores all results/table2.csv
    snakemake --cores all results/imagenet256/table2.csv --configfile workflow/config/imagenet256.yaml

Stages exchange data through files in runs/<experiment>/.  A stage is rerun when its inputs, settings or code change.
"""

import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod
from snakemake.utils import min_version

min_version("9.12")

from varient.config import ConfigError
from varient.doctor import blocking
from varient.experiment import parse_experiment
from varient.report.figures import FIGURES as FIGURE_SOURCES
from varient.sources import stage_sources
from varient.systems.names import base_pattern, supernet_pattern
from varient.yaml_file import read_yaml

# The default config is loaded only if none is given: Snakemake would merge the two key by key.
if "name" not in config:

    configfile: "workflow/config/digits.yaml"


# Snakemake silently uses the last of duplicate keys; read_yaml refuses them.
try:
    for path in workflow.configfiles:
        read_yaml(Path(path))
    EXPERIMENT = parse_experiment(config, origin="config")
except ConfigError as error:
    raise WorkflowError(str(error)) from None

# `python` in rules is that of the environment built by `--sdm conda`, or else the one that runs this workflow,
# regardless of PATH.  The first part of the prefix is Snakemake's default, which this one replaces.
PYTHON_FOLDER = str(Path(sys.executable).parent)
PREFIX = "set -euo pipefail; "
if DeploymentMethod.CONDA not in workflow.deployment_settings.deployment_method:
    PREFIX += 'export PATH={PYTHON_FOLDER:q}:"$PATH"; '
shell.prefix(PREFIX)


wildcard_constraints:
    experiment=EXPERIMENT.name,
    system=r"[a-z0-9-]+",
    role=r"features|judge|half\d+",
    split="|".join(EXPERIMENT.data.splits),
    base=base_pattern(),
    supernet=supernet_pattern(),
    epoch=r"\d+",
    shard=r"\d+",
    table=r"\d+",
    figure="|".join(FIGURE_SOURCES),


include: "workflow/rules/common.smk"
include: "workflow/rules/setup.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/sample.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/profile.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/report.smk"


report: OPENING


onstart:
    # Before the first job, check for problems that would make all jobs fail.  `varient doctor` reports these and more.
    jobs = list(workflow.dag.needrun_jobs())
    read = {path for job in jobs for path in job.input}
    computes_here = not workflow.non_local_exec and any(
        "gpu" in job.rule.resources for job in jobs
    )
    if faults := blocking(EXPERIMENT, read, on_these_devices=computes_here):
        raise WorkflowError("not ready:", *faults)
    # The limit of jobs a second starts a timer at each look for jobs; each timer looks again and starts another, so
    # that after 150 jobs the looks fill a core.  Jobs of one machine are limited by its cores.
    if not workflow.non_local_exec:
        workflow.scheduler.job_rate_limiter = None


localrules:
    all,
    results,
    sweeps,


rule all:
    default_target: True
    input:
        RESULT_FILES,
        REPORT,
        [*PAPER_SIZE_TABLES, DEMO] if IS_DEFAULT else [],


rule results:
    """Everything but the report."""
    input:
        RESULT_FILES,


rule sweeps:
    """Throughput against the batch size, which `all` leaves out."""
    input:
        expand(f"{FIGURES}/throughput.{{suffix}}", suffix=["png", "pdf"]),
