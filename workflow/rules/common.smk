from pathlib import Path

from varient.report.inputs import table_inputs
from varient.systems import resolve_system

# The default experiment owns results/; others have a folder of their own there.
RESULTS = "results" if EXPERIMENT.name == "digits" else f"results/{EXPERIMENT.name}"


def weights_of(wildcards):
    """Weight file of the system that the wildcards name."""
    return str(
        resolve_system(wildcards.system, EXPERIMENT).weights_path(
            Path("runs") / wildcards.experiment
        )
    )


def score_records(wildcards):
    """Score records that a table shows."""
    systems = table_inputs(int(wildcards.table), EXPERIMENT)["score"]
    return [f"runs/{EXPERIMENT.name}/records/score-{system}.json" for system in systems]


def profile_records(wildcards):
    """Profile records that a table shows."""
    if wildcards.table == "3":
        return sorted(
            str(path) for path in Path("benchmarks/records").glob("profile-*.json")
        )
    systems = table_inputs(int(wildcards.table), EXPERIMENT)["profile"]
    return [
        f"runs/{EXPERIMENT.name}/records/profile-{system}.json" for system in systems
    ]
