rule table:
    input:
        config=ancient(f"runs/{EXPERIMENT.name}/config.json"),
        scores=score_records,
        profiles=profile_records,
        paper="varient/paper/table{table}.csv",
        data=[
            "varient/paper/table2.csv",
            "varient/profiling/devices.yaml",
            "baselines/sources.yaml",
        ],
        code=stage_sources("varient.report.tables"),
    output:
        csv=f"{RESULTS}/table{{table}}.csv",
        md=f"{RESULTS}/table{{table}}.md",
        tex=f"{RESULTS}/table{{table}}.tex",
    log:
        f"runs/{EXPERIMENT.name}/logs/table{{table}}.log",
    conda:
        "../../environment.yml"
    params:
        settings=EXPERIMENT.digest("supernet", "transformer", "systems", "rows"),
        scores=lambda wildcards, input: [f"--score {path}" for path in input.scores],
        profiles=lambda wildcards, input: [
            f"--profile {path}" for path in input.profiles
        ],
    shell:
        "python -m varient table --config {input.config} {wildcards.table} {params.scores} {params.profiles}"
        " --output {output.csv} > {log} 2>&1"


rule ablations:
    """All arms with their scores in one file; what they mean for the paper's claims is another matter."""
    input:
        config=ancient(f"runs/{EXPERIMENT.name}/config.json"),
        scores=ablation_records,
        code=stage_sources("varient.ablations"),
    output:
        f"{RESULTS}/ablations.csv",
    log:
        f"runs/{EXPERIMENT.name}/logs/ablations.log",
    conda:
        "../../environment.yml"
    params:
        settings=EXPERIMENT.digest("ablations", "supernet"),
        scores=lambda wildcards, input: [f"--score {path}" for path in input.scores],
    shell:
        "python -m varient ablations --config {input.config} {params.scores} --output {output} > {log} 2>&1"
