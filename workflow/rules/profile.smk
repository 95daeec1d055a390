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
