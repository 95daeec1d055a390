rule profile:
    """Latency and memory, in a process of its own.  Takes all cores of a machine so that nothing runs beside it; on a
    cluster, where Snakemake has no cores to count, the profile asks for a node without other jobs.
    """
    input:
        weights=weights_of,
        files=user_files_of("runs/{experiment}/records/profile-{system}.json"),
        code=code_of("varient.profiling.profiler"),
    output:
        "runs/{experiment}/records/profile-{system}.json",
    log:
        "runs/{experiment}/logs/profile-{system}.log",
    conda:
        ENVIRONMENT
    threads: workflow.resource_settings.cores or 8
    resources:
        gpu=GPU,
    params:
        config=config_file,
        settings=settings_of(*PROFILED),
    shell:
        "python -m varient profile --config {params.config:q} --system {wildcards.system:q}"
        " --run-dir runs/{wildcards.experiment:q} --output {output:q} > {log:q} 2>&1"


rule sweep:
    """Throughput at doubled batches, alone on the machine as a profile.  The records of an interrupted sweep are no
    outputs, so that Snakemake leaves them there and the sweep goes on with them; a record of other weights or settings
    is refused, and has to be removed.
    """
    input:
        weights=weights_of,
        files=user_files_of(f"{SWEEPS}/{{system}}.json"),
    output:
        f"{SWEEPS}/{{system}}.json",
    log:
        f"runs/{EXPERIMENT.name}/logs/sweep-{{system}}.log",
    conda:
        ENVIRONMENT
    threads: workflow.resource_settings.cores or 8
    resources:
        gpu=GPU,
    params:
        config=config_file,
        settings=settings_of(*PROFILED),
        run_dir=lambda wildcards: f"runs/{EXPERIMENT.name}",
        most=SWEPT_UP_TO,
    shell:
        "python -m varient sweep --config {params.config:q} --system {wildcards.system:q} --run-dir {params.run_dir:q}"
        " --most {params.most:q} --json > {output:q} 2> {log:q}"
